"""Tasks on GPUs through StarPU's own CUDA driver, over libraries that stand in for CUDA's (tests/gpu_stand_in).

Everything but the card is the real thing: the variant `cuda`, the C that launches, programs and sources. What a card
alone decides, such as speed and its compiler's code, is not tested here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest

from dahl import starpu
from dahl.context import Context
from dahl.training import Hyperparameters, Trainer
from tests.dahl.cuda_host import needs_compiler
from tests.dahl.gpu_training import BATCH, EPOCHS, MODELS, TILE, dataset
from tests.gpu_stand_in.build import ROOT, environment, needs_stand_in

pytestmark = [needs_stand_in, needs_compiler]

WAYS = ["layers on a GPU", "layers on both", "fused on a GPU", "fused on both"]


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(name: str, **settings: object) -> dict[str, Any]:
        file = tmp_path_factory.mktemp(name) / "found.json"
        done = subprocess.run(
            [sys.executable, "-m", "tests.dahl.gpu_child", name, str(file)],
            env=environment(**settings),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(file.read_text()))

    return run


@cache
def on_cpu(model: str, fuse: bool) -> tuple[dict[str, np.ndarray], list[tuple[float, float]]]:
    def main(runtime: starpu.Runtime) -> tuple[dict[str, np.ndarray], list[tuple[float, float]]]:
        hyper = Hyperparameters(batch_size=BATCH, tile=TILE, fuse=fuse)
        trainer = Trainer(Context(runtime), MODELS[model], dataset(), hyper)
        losses = [(trainer.run_epoch(epoch).loss, trainer.evaluate().loss) for epoch in range(EPOCHS)]
        return trainer.weights(), losses

    return starpu.Runtime(cpu_workers=1, scheduler="eager").run(main)


def agree(found: dict[str, Any], model: str, fuse: bool) -> None:
    weights, losses = on_cpu(model, fuse)
    assert set(found["weights"]) == set(weights)
    for name, values in weights.items():
        np.testing.assert_allclose(found["weights"][name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_training_on_a_gpu_gives_the_weights_and_losses_of_the_cpu(child: Any, way: str) -> None:
    agree(child("training")[way], "basic_cnn", way.startswith("fused"))


@pytest.mark.parametrize("way", WAYS)
def test_each_worker_runs_its_share_one_task_at_a_time(child: Any, way: str) -> None:
    found = child("training")[way]
    assert found["arches"] == (["cuda"] if way.endswith("GPU") else ["cuda", "cpu"])
    assert min(found["tasks"]) > 0
    assert found["one_at_a_time"]


def test_two_gpus_and_a_core_share_a_network(child: Any) -> None:
    found = child("two_gpus", STAND_IN_DEVICES=2)
    agree(found, "lenet", False)
    assert found["arches"] == ["cuda", "cuda", "cpu"]
    assert min(found["tasks"]) > 0
    moved = np.array(found["moved"])
    assert moved.shape == (3, 3)
    assert moved[1, 2] > 0  # from one GPU to the other, without main memory


def test_data_stay_on_a_gpu_between_tasks(child: Any) -> None:
    to_gpu, back = (child("training")["fused on a GPU"]["moved"][i][1 - i] for i in (0, 1))
    weights, _ = on_cpu("basic_cnn", True)
    parameters = sum(values.nbytes for values in weights.values())
    histories = 8 * EPOCHS * 20
    # The parameters and their velocity go there once; losses are written before each epoch and read after it.
    assert 2 * parameters <= to_gpu <= 2 * parameters + 4 * histories
    assert back <= 2 * parameters + 4 * histories


def test_data_that_do_not_fit_at_once_come_and_go(child: Any) -> None:
    found = child("small_memory")
    assert all(found["right"])
    assert found["bytes"] > found["limit"]
    assert found["moved"] == [[0, found["bytes"]], [found["bytes"], 0]]


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("wrong label", "KernelError", "failed on worker 0: ValueError: a label is outside the classes"),
        ("scratch", "GpuMemoryError", "no memory left"),
        (
            "task",
            "GpuMemoryError",
            "relu_in_place_2d takes 128 MiB of data, but 64 MiB of a GPU are for data",
        ),
        ("too little", "BadArgumentError", "gpu_memory_mib must be at least 64"),
        (
            "more than is free",
            "GpuMemoryError",
            "gpu_memory_mib=1048576, but GPU 0 has 4096 of 4096 MiB free",
        ),
        ("more than there are", "NoGpuError", "3 GPU workers are asked for, but CUDA shows 1 GPUs"),
    ],
)
def test_what_a_gpu_refuses_is_said_in_words(child: Any, what: str, error: str, words: str) -> None:
    found = child("failures")[what]
    assert found[0] == error
    assert words in found[1]


def test_after_a_failure_starpu_and_its_gpus_start_again(child: Any) -> None:
    assert child("failures")["nothing wrong"] is None


def test_history_models_tell_cpu_and_gpu_apart(child: Any) -> None:
    found = child("history")
    assert found["arches"] == ["cuda", "cpu"]
    assert found["known_before"] == [False, False]
    assert found["known_after"] == [True, True]
