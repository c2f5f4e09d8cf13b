from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from energy import NvmlSource, ReadError, SourceUnavailableError


class Nvml:
    """Answers like the module `pynvml`: one counter per GPU, or the error that NVML gives for it."""

    NVMLError = pynvml.NVMLError

    def __init__(self, *counters_mj: int | Exception, start: Exception | None = None) -> None:
        self.counters_mj: list[int | Exception] = list(counters_mj)
        self.start = start
        self.running = 0

    def nvmlInit(self) -> None:
        if self.start is not None:
            raise self.start
        self.running += 1

    def nvmlShutdown(self) -> None:
        self.running -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.counters_mj)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return SimpleNamespace(index=index)

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return f"GPU-{handle.index:08d}"

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return "NVIDIA A100"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        counter_mj = self.counters_mj[handle.index]
        if isinstance(counter_mj, Exception):
            raise counter_mj
        return counter_mj


def nvml_error(code: int) -> Exception:
    error: Exception = pynvml.NVMLError(code)
    return error


def test_every_gpu_is_a_channel_in_millijoules_that_knows_its_uuid() -> None:
    library = Nvml(1500, 2500)
    with NvmlSource(library) as source:
        assert [(reading.channel, reading.raw) for reading in source.read()] == [
            ("nvml:gpu-0", 1500),
            ("nvml:gpu-1", 2500),
        ]
        assert [channel.device for channel in source.channels] == [
            "GPU-00000000 NVIDIA A100",
            "GPU-00000001 NVIDIA A100",
        ]
        assert {(c.component, c.unit_j, c.wrap, c.in_total) for c in source.channels} == {
            ("gpu", 1e-3, None, True)
        }
    assert library.running == 0


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_no_driver_is_unavailable_with_a_remedy(code: int) -> None:
    library = Nvml(start=nvml_error(code))
    with pytest.raises(SourceUnavailableError, match="NVML does not start") as caught:
        NvmlSource(library).open()
    assert "nvidia-smi" in caught.value.remedy


def test_a_driver_without_a_gpu_is_unavailable() -> None:
    library = Nvml()
    with pytest.raises(SourceUnavailableError, match="no GPU"):
        NvmlSource(library).open()
    assert library.running == 0


def test_a_gpu_without_an_energy_counter_is_unavailable_and_named() -> None:
    library = Nvml(1500, nvml_error(pynvml.NVML_ERROR_NOT_SUPPORTED))
    with pytest.raises(SourceUnavailableError, match="GPU 1 has no readable energy counter"):
        NvmlSource(library).open()
    assert library.running == 0


def test_a_gpu_lost_in_the_middle_of_a_run_is_an_error_and_the_others_are_kept() -> None:
    library = Nvml(1500, 2500)
    with NvmlSource(library) as source:
        library.counters_mj[0] = nvml_error(pynvml.NVML_ERROR_GPU_IS_LOST)
        with pytest.raises(ReadError, match="GPU is lost") as caught:
            source.read()
        assert [(reading.channel, reading.raw) for reading in caught.value.readings] == [("nvml:gpu-1", 2500)]
