"""For how long GPUs were slowed down, by an object that answers like NVML."""

from __future__ import annotations

import pynvml

from energy.gpu_throttling import GpuSlowdowns, GpuThrottling
from tests.energy.nvml_library import Gpu, Nvml, nvml_error

THERMAL, BOARD, POWER = (
    pynvml.NVML_PERF_POLICY_THERMAL,
    pynvml.NVML_PERF_POLICY_BOARD_LIMIT,
    pynvml.NVML_PERF_POLICY_POWER,
)


def test_heat_and_the_board_are_summed_over_the_gpus_and_the_power_limit_is_kept_apart() -> None:
    first = Gpu(slowed_ns={THERMAL: 250_000_000, POWER: 4_000_000_000})
    second = Gpu(slowed_ns={BOARD: 500_000_000, POWER: 1_000_000_000})
    assert GpuThrottling(Nvml(first, second), {}).read() == GpuSlowdowns(0.75, 5.0)


def test_a_card_that_does_not_tell_gives_no_figure_and_another_one_still_does() -> None:
    assert GpuThrottling(Nvml(Gpu()), {}).read() == GpuSlowdowns(None, None)
    telling = Gpu(slowed_ns={THERMAL: 1_000_000_000})
    assert GpuThrottling(Nvml(Gpu(), telling), {}).read() == GpuSlowdowns(1.0, 0.0)


def test_a_machine_without_nvml_has_no_figures() -> None:
    absent = Nvml(start=nvml_error(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert GpuThrottling(absent, {}).read() == GpuSlowdowns(None, None)


def test_a_gpu_that_is_hidden_from_cuda_is_not_read() -> None:
    mine, other = Gpu(slowed_ns={THERMAL: 0}), Gpu(slowed_ns={THERMAL: 9_000_000_000})
    assert GpuThrottling(Nvml(mine, other), {"CUDA_VISIBLE_DEVICES": "0"}).read().throttled_s == 0.0


def test_nvml_is_let_go() -> None:
    library = Nvml(Gpu())
    throttling = GpuThrottling(library, {})
    assert library.running == 1
    throttling.close()
    assert library.running == 0
