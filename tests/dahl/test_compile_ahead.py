"""Compiling kernels in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dahl.layers import Conv2d, Sequential
from dahl.models import basic_cnn, lenet
from dahl.recording_fused import fused_kernels
from dahl.starpu import Kernel, Operand
from dahl.starpu.compile_ahead import compile_ahead
from dahl.starpu.kernel import is_on_disk
from tests.dahl.starpu_kernels import ADD, AFFINE


def _impossible(x: Any) -> None:
    x[0] = "no number"


IMPOSSIBLE = Kernel("impossible", _impossible, (Operand("x", "rw", 1),))


def test_what_the_cache_lacks_is_compiled_into_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAHL_CACHE", str(tmp_path))
    kernels = [AFFINE, IMPOSSIBLE, ADD]
    assert not any(map(is_on_disk, kernels))
    compile_ahead(kernels)
    assert [is_on_disk(kernel) for kernel in kernels] == [True, False, True]


def test_a_kernel_that_cannot_be_kept_is_no_reason_to_start_a_process() -> None:
    def local(x: Any) -> None:
        x[0] = 1

    assert is_on_disk(Kernel("local", local, (Operand("x", "rw", 1),)))


@pytest.mark.parametrize(
    ("model", "counts", "expected"),
    [
        (basic_cnn(), [4], ["cnn_step", "cnn_evaluation", "sum_and_step"]),
        (basic_cnn(), [2], ["cnn_update_step", "cnn_evaluation", "sum_and_step"]),
        (lenet(), [2], ["lenet_step", "lenet_evaluation", "sum_and_step"]),
        (lenet(), [4, 2, 1], ["lenet_update_step", "lenet_step", "lenet_evaluation", "sum_and_step"]),
        (Sequential((Conv2d(2),), name="bare"), [4], []),
    ],
)
def test_the_kernels_of_a_run_are_known_before_it_starts(
    model: Sequential, counts: list[int], expected: list[str]
) -> None:
    """Updates are part of the steps with one tile, and with one for each of two workers where parameters are few."""
    assert [kernel.name for kernel in fused_kernels(model, (1, 28, 28), counts, 2)] == expected
