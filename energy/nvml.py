"""NVIDIA GPUs' energy counters through NVML."""

from __future__ import annotations

import time
from typing import Any, final

from energy.source import Channel, Quality, ReadError, Reading, Source, SourceUnavailableError

_PERIOD_S = 0.1
_UNIT_J = 1e-3


@final
class NvmlSource(Source):
    """Reads `nvmlDeviceGetTotalEnergyConsumption` of every GPU (Volta and later): mJ since driver load.

    Channels are `nvml:gpu-N` in NVML's order (by PCI address, which `CUDA_VISIBLE_DEVICES` does not
    change); the channel's `device` is the GPU's UUID and name. The counter covers the whole board, its
    memory too, and never wraps: a value below the one before means that the driver was loaded anew.
    The hardware updates it every 20 to 100 ms.

    `library` answers like the module `pynvml`, which is taken when it is None.
    """

    name = "nvml"
    quality: Quality = "measured"

    def __init__(self, library: Any = None) -> None:
        self._given = library
        self.in_process = library is not None
        self._library: Any = None
        self._open: list[tuple[Channel, Any]] = []

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(channel for channel, _ in self._open)

    def open(self) -> None:
        self.close()
        library = self._given if self._given is not None else _pynvml()
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            raise SourceUnavailableError(
                "nvml",
                f"NVML does not start ({error})",
                "install the NVIDIA driver (nvidia-smi must list a GPU), or choose energy=model",
            ) from error
        self._library = library
        try:
            self._find_gpus(library)
        except BaseException:
            self.close()
            raise

    def _find_gpus(self, library: Any) -> None:
        try:
            count = library.nvmlDeviceGetCount()
        except library.NVMLError as error:
            raise _no_counter("the GPUs cannot be counted", error) from error
        if count == 0:
            raise SourceUnavailableError("nvml", "the driver sees no GPU", "choose energy=model")
        for index in range(count):
            try:
                handle = library.nvmlDeviceGetHandleByIndex(index)
                device = f"{library.nvmlDeviceGetUUID(handle)} {library.nvmlDeviceGetName(handle)}"
                library.nvmlDeviceGetTotalEnergyConsumption(handle)
            except library.NVMLError as error:
                raise _no_counter(f"GPU {index} has no readable energy counter", error) from error
            channel = Channel(f"nvml:gpu-{index}", "gpu", True, _UNIT_J, None, _PERIOD_S, device)
            self._open.append((channel, handle))

    def close(self) -> None:
        self._open.clear()
        library, self._library = self._library, None
        if library is not None:
            library.nvmlShutdown()

    def read(self) -> list[Reading]:
        if not self._open:
            raise ReadError("nvml", {"all channels": "the source is not open"})
        readings = []
        failed = {}
        for channel, handle in self._open:
            before_ns = time.monotonic_ns()
            try:
                counts = int(self._library.nvmlDeviceGetTotalEnergyConsumption(handle))
            except self._library.NVMLError as error:
                failed[channel.name] = str(error)
                continue
            readings.append(Reading(channel.name, (before_ns + time.monotonic_ns()) // 2, counts))
        if failed:
            raise ReadError("nvml", failed, readings)
        return readings


def _no_counter(what: str, error: Exception) -> SourceUnavailableError:
    return SourceUnavailableError(
        "nvml", f"{what} ({error})", "use GPUs of the Volta generation or later, or choose energy=model"
    )


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise SourceUnavailableError(
            "nvml", f"the module pynvml is missing ({error})", "python -m pip install nvidia-ml-py"
        ) from error
    return pynvml
