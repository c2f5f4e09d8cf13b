"""The weights that a scheduler leaves after training basic_cnn natively."""

from __future__ import annotations

from functools import cache
from typing import Any

from dahl import starpu
from dahl.context import Context
from dahl.models import basic_cnn
from dahl.training import Hyperparameters, Trainer
from schedulers import CompiledPolicy, PlacementPolicy, PullPolicy
from tests.dahl.trainers import COSTS, WORKERS, machine_watts, synthetic


@cache
def trained_sha256(scheduler: PlacementPolicy | PullPolicy | str) -> str:
    """Digest of basic_cnn's weights after two epochs of 80 images in tiles of 4."""
    policy: Any = scheduler if isinstance(scheduler, str) else CompiledPolicy(scheduler)
    with starpu.Runtime(cpu_workers=WORKERS, scheduler=policy, watts=machine_watts) as runtime:
        context = Context(runtime, COSTS, machine_watts(runtime.workers))
        dataset = synthetic(train_size=80, test_size=10)
        trainer = Trainer(context, basic_cnn(), dataset, Hyperparameters(batch_size=16, tile=4))
        for epoch in (1, 2):
            trainer.run_epoch(epoch)
        return trainer.weights_sha256()
