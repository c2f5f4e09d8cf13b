"""What processes on the stand-in for CUDA do: `python -m tests.dahl.gpu_child NAME FILE` writes what it found."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dahl import ops, starpu
from dahl.context import Context
from dahl.starpu.launch import Buffer, Clear, CudaKernel, Program
from dahl.training import Hyperparameters, Trainer
from experiments.every_class import EveryClass
from schedulers import CompiledPolicy
from tests.dahl.gpu_training import BATCH, EPOCHS, MODELS, TILE, dataset


def train(model: str, *, fuse: bool, cpus: int, gpus: int) -> dict[str, Any]:
    """Train for some epochs; returns the weights, the losses, who ran what, and the bytes that moved."""

    def main(runtime: starpu.Runtime) -> dict[str, Any]:
        context = Context(runtime)
        trainer = Trainer(
            context, MODELS[model], dataset(), Hyperparameters(batch_size=BATCH, tile=TILE, fuse=fuse)
        )
        results = [(trainer.run_epoch(epoch).loss, trainer.evaluate().loss) for epoch in range(EPOCHS)]
        trace = runtime.take_trace()
        own = [trace[trace["worker"] == worker.id] for worker in runtime.workers]
        return {
            "weights": {name: values.tolist() for name, values in trainer.weights().items()},
            "losses": results,
            "arches": [worker.arch for worker in runtime.workers],
            "tasks": [len(tasks) for tasks in own],
            "one_at_a_time": all((tasks["start_s"][1:] >= tasks["end_s"][:-1]).all() for tasks in own),
            "moved": runtime.take_transfers().tolist(),
        }

    policy = CompiledPolicy(EveryClass())
    return starpu.Runtime(cpu_workers=cpus, gpu_workers=gpus, scheduler=policy).run(main)


def training() -> dict[str, Any]:
    """Both ways to lay a network out, on a GPU alone and beside a core, one StarPU after the other."""
    found = {}
    for name, model, fuse, cpus, gpus in (
        ("layers on a GPU", "basic_cnn", False, 0, 1),
        ("layers on both", "basic_cnn", False, 1, 1),
        ("fused on a GPU", "basic_cnn", True, 0, 1),
        ("fused on both", "basic_cnn", True, 1, 1),
    ):
        found[name] = train(model, fuse=fuse, cpus=cpus, gpus=gpus)
    return found


def lenet() -> dict[str, Any]:
    """The larger network, each tile's step in one task."""
    return train("lenet", fuse=True, cpus=0, gpus=1)


def two_gpus() -> dict[str, Any]:
    """Two GPUs and a core share the layers of the larger network."""
    return train("lenet", fuse=False, cpus=1, gpus=2)


def _clear_half(x: np.ndarray) -> None:
    for i in range(x.size // 2):
        x[i] = 0.0


HALF = starpu.Kernel("clear_half", _clear_half, (starpu.Operand("x", "rw", ndim=1),))
"""On a GPU a command without a function of its own: the stand-in runs those thread by thread."""


def small_memory() -> dict[str, Any]:
    """Data that do not fit into the GPU's memory at once come and go."""
    limit_mib, random = 64, np.random.default_rng(0)
    arrays = [random.standard_normal(3 << 19, np.float32) for _ in range(12)]
    size = arrays[0].size
    cleared = CudaKernel(None, lambda shapes, scalars: Program((Clear(Buffer("x"), 4 * (size // 2)),)))

    def main(runtime: starpu.Runtime) -> dict[str, Any]:
        codelet = runtime.codelet("clear_half", HALF, arches=("cuda",))
        program = runtime.program(HALF, cleared, {"x": (size,)}, {})
        handles = [runtime.register(values.copy()) for values in arrays]
        for handle in handles:
            runtime.submit(codelet, [handle], HALF.pack([(size,)], {}), program=program)
        right = []
        for handle, values in zip(handles, arrays, strict=True):
            with handle.acquire("r") as found:
                first, rest = found[: size // 2], found[size // 2 :]
                right.append(not first.any() and bool((rest == values[size // 2 :]).all()))
        return {"right": right, "moved": runtime.take_transfers().tolist()}

    found = starpu.Runtime(cpu_workers=0, gpu_workers=1, gpu_memory_mib=limit_mib, scheduler="eager").run(
        main
    )
    return {**found, "bytes": sum(a.nbytes for a in arrays), "limit": limit_mib << 20}


def failures() -> dict[str, Any]:
    """What GPUs refuse, each in words; StarPU starts again after each."""
    found: dict[str, Any] = {}

    def attempt(name: str, work: Callable[[Context], object], **options: Any) -> None:
        def main(runtime: starpu.Runtime) -> None:
            work(Context(runtime))
            runtime.wait_all()

        try:
            starpu.Runtime(**{"cpu_workers": 0, "gpu_workers": 1, "scheduler": "eager", **options}).run(main)
            found[name] = None
        except starpu.StarPUError as error:
            found[name] = [type(error).__name__, str(error)]

    def wrong_label(context: Context) -> None:
        logits = context.tensor(np.zeros((4, 3), np.float32))
        labels = context.tensor(np.array([0, 1, 7, 2], np.int32))
        losses, gradient = context.tensor((1,), dtype=np.float64), context.tensor((4, 3))
        operands = {"logits": logits, "labels": labels, "losses": losses, "loss": losses, "dlogits": gradient}
        names = [operand.name for operand in ops.SOFTMAX_CROSS_ENTROPY.kernel.operands]
        context.submit(ops.SOFTMAX_CROSS_ENTROPY, *(operands[name] for name in names), scale=1.0)

    def too_much_scratch(context: Context) -> None:
        assert context.runtime.gpus is not None
        status = context.runtime.lib.dahl_cuda_reserve(1 << 40)
        starpu.errors.check(status, "reserving")

    attempt("wrong label", wrong_label)
    attempt("scratch", too_much_scratch)

    def too_large(context: Context) -> None:
        context.submit(ops.RELU_IN_PLACE[2], context.tensor((1, 1 << 25)))

    attempt("task", too_large, gpu_memory_mib=64)
    attempt("too little", lambda context: None, gpu_memory_mib=63)
    attempt("more than is free", lambda context: None, gpu_memory_mib=1 << 20)
    attempt("more than there are", lambda context: None, gpu_workers=3)
    attempt(
        "nothing wrong",
        lambda context: context.submit(ops.RELU_IN_PLACE[2], context.tensor(np.ones((4, 4), np.float32))),
    )
    return found


def history() -> dict[str, Any]:
    """StarPU's own models of lengths tell CPU and GPU apart."""

    def main(runtime: starpu.Runtime) -> dict[str, Any]:
        operation = ops.RELU_IN_PLACE[2]
        kernel = operation.kernel
        codelet = runtime.codelet("relu", kernel, arches=("cpu", "cuda"), model="history")
        handle = runtime.register(np.zeros((64, 64), np.float32))
        shapes = {operand.name: (64, 64) for operand in kernel.operands}
        args = kernel.pack(list(shapes.values()), {})
        assert operation.cuda is not None
        program = runtime.program(kernel, operation.cuda, shapes, {})
        before = [runtime.expected_length_s(codelet, [handle], w.id) for w in runtime.workers]
        after = before
        for _ in range(30):  # StarPU forgets lengths that differ too much, as on a busy machine
            for _ in range(30):
                runtime.submit(codelet, [handle], args, program=program)
            runtime.wait_all()
            after = [runtime.expected_length_s(codelet, [handle], w.id) for w in runtime.workers]
            if np.isfinite(after).all():
                break
        runtime.pause()
        runtime.resume()
        return {
            "arches": [worker.arch for worker in runtime.workers],
            "known_before": [bool(np.isfinite(value)) for value in before],
            "known_after": [bool(np.isfinite(value)) for value in after],
        }

    policy = CompiledPolicy(EveryClass())
    with tempfile.TemporaryDirectory() as home:
        return starpu.Runtime(cpu_workers=1, gpu_workers=1, scheduler=policy, home=Path(home)).run(main)


if __name__ == "__main__":
    found = {
        "training": training,
        "lenet": lenet,
        "two_gpus": two_gpus,
        "small_memory": small_memory,
        "failures": failures,
        "history": history,
    }[sys.argv[1]]()
    Path(sys.argv[2]).write_text(json.dumps(found))
