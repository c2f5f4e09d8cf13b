"""What needs an NVIDIA card: `python -m pytest -m gpu`, in a process that has loaded no other variant of StarPU."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dahl.test_gpu_stand_in import WAYS, agree
from tests.gpu_stand_in.build import ROOT

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(name: str) -> dict[str, Any]:
        file = tmp_path_factory.mktemp(name) / "found.json"
        done = subprocess.run(
            [sys.executable, "-m", "tests.dahl.gpu_child", name, str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(Path(file).read_text()))

    return run


@pytest.mark.parametrize("way", WAYS)
def test_training_on_the_card_gives_the_weights_and_losses_of_the_cpu(child: Any, way: str) -> None:
    found = child("training")[way]
    agree(found, "basic_cnn", way.startswith("fused"))
    assert found["one_at_a_time"]
    assert min(found["tasks"]) > 0


def test_lenet_on_the_card_gives_the_weights_and_losses_of_the_cpu(child: Any) -> None:
    agree(child("lenet"), "lenet", True)


def test_data_that_do_not_fit_at_once_come_and_go(child: Any) -> None:
    found = child("small_memory")
    assert all(found["right"])
    assert np.array(found["moved"])[0, 1] == found["bytes"]


def test_what_the_card_refuses_is_said_in_words_and_it_starts_again(child: Any) -> None:
    found = child("failures")
    assert found["wrong label"][1].endswith("a label is outside the classes")
    assert found["scratch"][0] == "GpuMemoryError"
    assert found["nothing wrong"] is None


def test_history_models_tell_cpu_and_gpu_apart(child: Any) -> None:
    assert child("history")["known_after"] == [True, True]
