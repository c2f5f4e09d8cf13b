"""A simulated epoch, each in a process of its own."""

from __future__ import annotations

import pytest

from tests.dahl.children import child_json

SIMULATION = """
import json
from dahl import starpu
from dahl.context import Context
from dahl.costs import Rates, RooflineCosts
from dahl.datasets import Synthetic
from dahl.models import lenet
from dahl.training import Hyperparameters, Trainer
from tests.dahl.run_one_scheduler import NODE, watts_of

COSTS = RooflineCosts({
    "core": Rates({"conv": 1e9, "gemm": 1e9, "memory": 1e8}, bytes_per_s=5e9, launch_s=1e-6),
    "gpu": Rates({"conv": 1e12, "gemm": 1e12, "memory": 1e11}, bytes_per_s=2e11, launch_s=5e-6),
})

def main(runtime):
    context = Context(runtime, COSTS, watts_of(runtime.workers))
    dataset = Synthetic(height=16, width=16, train_size=300, test_size=70).load()
    trainer = Trainer(context, lenet(filters=(4, 6), units=8), dataset, Hyperparameters(batch_size=64, tile=TILE))
    before = trainer.weights_sha256()
    progress = []
    result = trainer.run_epoch(1, progress.append)
    evaluation = trainer.evaluate()
    trace = runtime.take_trace()
    names = context.codelet_names()
    print(json.dumps({
        "seconds": repr(result.seconds), "evaluation": repr(evaluation.seconds),
        "joules": repr(runtime.energy_used_j()),
        "predicted_j": repr(float(trace["predicted_j"].sum())),
        "numbers": [str(result.loss), str(evaluation.loss), str(evaluation.accuracy), str(progress[-1].loss)],
        "unchanged": trainer.weights_sha256() == before,
        "images": result.images, "gathered": sum(names[c] == "gather" for c in trace["codelet"]),
        "arches": sorted({runtime.workers[w].arch for w in trace["worker"]}),
        "gather": sorted({runtime.workers[w].arch for w, c in zip(trace["worker"], trace["codelet"])
                          if names[c] == "gather"}),
    }))

starpu.Runtime(platform=NODE, scheduler="dmda", watts=watts_of).run(main)
"""


def test_a_simulated_epoch_has_the_same_digits_twice_and_runs_no_kernel() -> None:
    first, second = (child_json(SIMULATION.replace("TILE", "16")) for _ in range(2))
    assert first == second
    assert float(first["seconds"]) > 0
    assert float(first["evaluation"]) > 0
    assert float(first["joules"]) == pytest.approx(float(first["predicted_j"]), rel=1e-6)
    assert first["numbers"] == ["nan"] * 4, "a simulation computes no loss and no accuracy"
    assert first["unchanged"], "a kernel ran"
    assert (first["images"], first["gathered"]) == (300, 4 * 4 + 3 + 4 + 1), (
        "the mini-batches of a real epoch"
    )
    assert first["arches"] == ["cpu", "cuda"]
    assert first["gather"] == ["cpu"], "the data set stays in main memory"


def test_each_class_of_workers_has_tiles_of_its_size() -> None:
    """8 cores, 2 GPUs: of 64 images two tiles of 16 and eight of 4, of 44 two and three, of 6 one of 4 and one of 2."""
    found = child_json(SIMULATION.replace("TILE", "{'core': 4, 'gpu': 16}"))
    assert (found["images"], found["gathered"]) == (300, 4 * 10 + 5 + 10 + 2)
