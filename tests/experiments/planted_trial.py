"""`planted_trial.py WAY RUN_DIR ...`: a trial with a regression planted into it."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

from dahl.training import Trainer
from energy import PowerModel
from experiments import trial
from experiments.workload import Workload


def one_percent_more_joules() -> None:
    """Every watt of the node's model is 1 % more."""
    power_model = Workload.power_model

    def more(self: Workload, workers: object) -> PowerModel:
        model = power_model(self, workers)
        raised = [
            dataclasses.replace(
                worker,
                idle_w=1.01 * worker.idle_w,
                busy_w=1.01 * worker.busy_w,
                polling_w=1.01 * worker.polling_w,
                parked_w=None if worker.parked_w is None else 1.01 * worker.parked_w,
                busy_w_by_codelet={name: 1.01 * watts for name, watts in worker.busy_w_by_codelet.items()},
            )
            for worker in model.workers
        ]
        return dataclasses.replace(model, base_w=1.01 * model.base_w, workers=tuple(raised))

    Workload.power_model = more


def one_weight_bit() -> None:
    """The lowest bit of one trained weight is the other way round."""
    digest = Trainer.weights_sha256

    def flipped(self: Trainer) -> str:
        weights = self.parameters[0].value.numpy()
        bits = np.ascontiguousarray(weights).view(np.uint32)
        bits.flat[0] ^= 1
        self.parameters[0].value.write(bits.view(np.float32))
        return digest(self)

    Trainer.weights_sha256 = flipped


def nothing() -> None:
    """A trial like any other."""


if __name__ == "__main__":
    way, *arguments = sys.argv[1:]
    {plant.__name__: plant for plant in (one_percent_more_joules, one_weight_bit, nothing)}[way]()
    sys.exit(trial.main(arguments))
