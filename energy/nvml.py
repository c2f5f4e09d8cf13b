"""NVIDIA GPUs' energy counters and power through NVML."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from energy.gpu_identity import GpuIdentity, pci_address, visible_gpus
from energy.integral import LONGEST_GAP_S, PowerIntegral
from energy.source import Channel, Quality, ReadError, Reading, Source, SourceUnavailableError

_COUNTER_PERIOD_S = 0.1
_AVERAGED_S = 1.0
_UNIT_J = 1e-3
_INTEGRAL_UNIT_J = 1e-6

# nvml.h: fields, their scope (0: the GPU), and where a value of each nvmlValueType_t stands.
_ENERGY, _AVERAGE_POWER, _INSTANT_POWER = 83, 185, 186
_FIELDS = [(_ENERGY, 0), (_INSTANT_POWER, 0), (_AVERAGE_POWER, 0)]
_MEMBER = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}

# nvml.h: nvmlReturn_t.
_NOT_SUPPORTED, _NO_PERMISSION, _DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND = 3, 4, 9, 12
_FUNCTION_NOT_FOUND, _GPU_IS_LOST, _RESET_REQUIRED, _VERSION_MISMATCH = 13, 15, 16, 18
_ABSENT_HERE = (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND)
# What drivers that do not know a field answer for it.
_INVALID_ARGUMENT = 2
_REMEDIES = {
    _NOT_SUPPORTED: "use GPUs that show their power, hide others with CUDA_VISIBLE_DEVICES, or choose energy=model",
    _NO_PERMISSION: "ask for read access to /dev/nvidia* (often the group `video`), or choose energy=model",
    _DRIVER_NOT_LOADED: "sudo modprobe nvidia (nvidia-smi must list a GPU), or choose energy=model",
    _LIBRARY_NOT_FOUND: "install the NVIDIA driver (nvidia-smi must list a GPU), or choose energy=model",
    _FUNCTION_NOT_FOUND: "install a newer NVIDIA driver, or choose energy=model",
    _GPU_IS_LOST: "reboot: the GPU has left the bus (`sudo dmesg | grep -i xid` tells why)",
    _RESET_REQUIRED: "sudo nvidia-smi --gpu-reset",
    _VERSION_MISMATCH: "reboot, so that the driver's kernel module and library are of one version again",
}
_REMEDY_OTHER = "see whether nvidia-smi lists the GPUs, or choose energy=model"


@dataclass(slots=True)
class _Gpu:
    """An open GPU, and the way to each of its channels."""

    handle: Any
    fields: dict[int, Channel] = field(default_factory=dict)
    """Channels by field, read in one call."""
    counter: Channel | None = None
    """Read by `nvmlDeviceGetTotalEnergyConsumption`, where there is no such field."""
    usage: Channel | None = None
    """Read by `nvmlDeviceGetPowerUsage`, where there is no such field."""
    integrals: dict[str, PowerIntegral] = field(default_factory=dict)

    @property
    def channels(self) -> tuple[Channel, ...]:
        calls = [channel for channel in (self.counter, self.usage) if channel is not None]
        return (*calls, *self.fields.values())


@final
class NvmlSource(Source):
    """Reads every GPU that CUDA shows: the energy counter (Volta and later), instant and average power.

    Channels are `nvml:gpu-N` (the counter: mJ since the driver was loaded, updated every 20 to 100 ms) and
    `nvml:gpu-N/instant_power`, `nvml:gpu-N/average_power` (sampled, summed up here), in NVML's order, which
    is by PCI address. A channel's `device` is the GPU's UUID, PCI address and name. In the total is the counter;
    a GPU without one (before Volta) has its power in the total instead.

    The counter covers the whole board with its memory, and never wraps: a value below the one before means that
    the driver was loaded anew. Of a GPU cut into MIG instances all is that of the whole GPU (`scope` is
    `parent_gpu`), once, however many instances are in use.

    `library` answers like the module `pynvml`, which is taken when it is None; `CUDA_VISIBLE_DEVICES` and
    `CUDA_DEVICE_ORDER` are those of `environment`, or of the process.
    """

    name = "nvml"
    quality: Quality = "measured"

    def __init__(self, library: Any = None, environment: Mapping[str, str] | None = None) -> None:
        self._given = library
        self.in_process = library is not None
        self._environment = environment
        self._library: Any = None
        self._open: list[_Gpu] = []

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(channel for gpu in self._open for channel in gpu.channels)

    @property
    def gpus(self) -> tuple[tuple[Any, Any], ...]:
        """The library and the handle of each GPU that is read; none before `open`."""
        return tuple((self._library, gpu.handle) for gpu in self._open)

    def open(self) -> None:
        self.close()
        library = self._given if self._given is not None else _pynvml()
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            raise _unavailable("NVML does not start", error) from error
        self._library = library
        try:
            self._find_gpus()
        except BaseException:
            self.close()
            raise

    def _find_gpus(self) -> None:
        handles, left_out = self._handles()
        identities = [self._identity(index, handle) for index, handle in handles]
        environment = os.environ if self._environment is None else self._environment
        visible = visible_gpus(identities, environment, self._parent_of_mig)
        if not visible:
            shown = environment.get("CUDA_VISIBLE_DEVICES")
            why = (
                "the driver sees no GPU"
                if not identities
                else f"CUDA_VISIBLE_DEVICES={shown!r} hides every GPU"
            )
            raise SourceUnavailableError("nvml", why, "choose energy=model")
        for place, ((index, handle), identity) in enumerate(zip(handles, identities, strict=True)):
            if place in visible:
                self._open.append(self._opened(index, handle, identity))
            else:
                left_out.append((f"nvml:gpu-{index}", f"{identity.uuid} is hidden by CUDA_VISIBLE_DEVICES"))
        self.left_out = tuple(left_out)

    def _handles(self) -> tuple[list[tuple[int, Any]], list[tuple[str, str]]]:
        """Every physical GPU, and those that this user may not touch, which CUDA does not show either."""
        library = self._library
        handles: list[tuple[int, Any]] = []
        closed = []
        try:
            count = library.nvmlDeviceGetCount()
        except library.NVMLError as error:
            raise _unavailable("the GPUs cannot be counted", error) from error
        for index in range(count):
            try:
                handles.append((index, library.nvmlDeviceGetHandleByIndex(index)))
            except library.NVMLError as error:
                if error.value != _NO_PERMISSION:
                    raise _unavailable(f"GPU {index} does not answer", error) from error
                closed.append((f"nvml:gpu-{index}", f"{error}: it belongs to someone else"))
        if closed and not handles:
            raise SourceUnavailableError(
                "nvml", f"all GPUs are closed: {closed[0][1]}", _REMEDIES[_NO_PERMISSION]
            )
        return handles, closed

    def _identity(self, index: int, handle: Any) -> GpuIdentity:
        library = self._library
        try:
            return GpuIdentity(
                uuid=_string(library.nvmlDeviceGetUUID(handle)),
                pci_bus_id=pci_address(_string(library.nvmlDeviceGetPciInfo(handle).busId)),
                name=_string(library.nvmlDeviceGetName(handle)),
                mig=self._is_cut(handle),
            )
        except library.NVMLError as error:
            raise _unavailable(f"GPU {index} does not answer", error) from error

    def _is_cut(self, handle: Any) -> bool:
        try:
            current, _ = self._library.nvmlDeviceGetMigMode(handle)
        except self._library.NVMLError as error:
            if error.value in _ABSENT_HERE:
                return False
            raise
        return bool(current)

    def _parent_of_mig(self, uuid: str) -> str:
        library = self._library
        try:
            instance = library.nvmlDeviceGetHandleByUUID(uuid)
            return _string(
                library.nvmlDeviceGetUUID(library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance))
            )
        except library.NVMLError as error:
            raise _unavailable(f"the GPU of the MIG instance {uuid} cannot be told", error) from error

    def _opened(self, index: int, handle: Any, identity: GpuIdentity) -> _Gpu:
        gpu = _Gpu(handle)
        name = f"nvml:gpu-{index}"
        try:
            working = self._working_fields(handle)
            counts = _ENERGY in working or self._works("nvmlDeviceGetTotalEnergyConsumption", handle)
            if _ENERGY in working:
                gpu.fields[_ENERGY] = _counter(name, identity)
            elif counts:
                gpu.counter = _counter(name, identity)
            in_total = not counts
            for number, kind in ((_INSTANT_POWER, "instant"), (_AVERAGE_POWER, "average")):
                if number in working:
                    gpu.fields[number] = _power(f"{name}/{kind}_power", identity, in_total, kind)
                    in_total = False
            if not gpu.fields.keys() - {_ENERGY} and self._works("nvmlDeviceGetPowerUsage", handle):
                gpu.usage = _power(f"{name}/average_power", identity, in_total, "average")
        except self._library.NVMLError as error:
            raise _unavailable(f"GPU {index} ({identity.name}) cannot be read", error) from error
        if not gpu.channels:
            why = f"GPU {index} ({identity.name}) has no readable energy counter and shows no power"
            raise SourceUnavailableError("nvml", why, _REMEDIES[_NOT_SUPPORTED])
        gpu.integrals = {channel.name: PowerIntegral() for channel in gpu.channels if channel.integrated}
        return gpu

    def _working_fields(self, handle: Any) -> set[int]:
        try:
            values = self._library.nvmlDeviceGetFieldValues(handle, _FIELDS)
        except self._library.NVMLError as error:
            if error.value in _ABSENT_HERE:
                return set()
            raise
        for value in values:
            if value.nvmlReturn not in (0, _INVALID_ARGUMENT, *_ABSENT_HERE):
                raise self._library.NVMLError(value.nvmlReturn)
        return {value.fieldId for value in values if value.nvmlReturn == 0}

    def _works(self, function: str, handle: Any) -> bool:
        try:
            getattr(self._library, function)(handle)
        except self._library.NVMLError as error:
            if error.value in _ABSENT_HERE:
                return False
            raise
        return True

    def close(self) -> None:
        self._open.clear()
        library, self._library = self._library, None
        if library is not None:
            # A driver that was unloaded in the meantime has nothing left to shut down.
            with contextlib.suppress(library.NVMLError):
                library.nvmlShutdown()

    def read(self) -> list[Reading]:
        if not self._open:
            raise ReadError("nvml", {"all channels": "the source is not open"})
        readings: list[Reading] = []
        failed: dict[str, str] = {}
        for gpu in self._open:
            self._read_calls(gpu, readings, failed)
            self._read_fields(gpu, readings, failed)
        if failed:
            raise ReadError("nvml", failed, readings)
        return readings

    def _read_calls(self, gpu: _Gpu, readings: list[Reading], failed: dict[str, str]) -> None:
        library = self._library
        for channel, function in (
            (gpu.counter, library.nvmlDeviceGetTotalEnergyConsumption),
            (gpu.usage, library.nvmlDeviceGetPowerUsage),
        ):
            if channel is None:
                continue
            before_ns = time.monotonic_ns()
            try:
                value = int(function(gpu.handle))
            except library.NVMLError as error:
                failed[channel.name] = str(error)
                continue
            readings.append(_reading(gpu, channel, (before_ns + time.monotonic_ns()) // 2, value))

    def _read_fields(self, gpu: _Gpu, readings: list[Reading], failed: dict[str, str]) -> None:
        if not gpu.fields:
            return
        library = self._library
        before_ns = time.monotonic_ns()
        try:
            values = library.nvmlDeviceGetFieldValues(gpu.handle, [(number, 0) for number in gpu.fields])
        except library.NVMLError as error:
            failed.update({channel.name: str(error) for channel in gpu.fields.values()})
            return
        t_ns = (before_ns + time.monotonic_ns()) // 2
        for channel, value in zip(gpu.fields.values(), values, strict=True):
            if value.nvmlReturn != 0:
                failed[channel.name] = str(library.NVMLError(value.nvmlReturn))
            elif value.valueType not in _MEMBER:
                failed[channel.name] = f"a value of the unknown type {value.valueType}"
            else:
                amount = int(getattr(value.value, _MEMBER[value.valueType]))
                readings.append(_reading(gpu, channel, t_ns, amount))


def _reading(gpu: _Gpu, channel: Channel, t_ns: int, value: int) -> Reading:
    """A counter's mJ as they are, mW summed up to uJ."""
    if channel.integrated:
        value = gpu.integrals[channel.name].add(t_ns, value * 1000)
    return Reading(channel.name, t_ns, value)


def _counter(name: str, gpu: GpuIdentity) -> Channel:
    return Channel(
        name,
        "gpu",
        True,
        _UNIT_J,
        None,
        _COUNTER_PERIOD_S,
        _device(gpu),
        scope="parent_gpu" if gpu.mig else "",
    )


def _power(name: str, gpu: GpuIdentity, in_total: bool, kind: str) -> Channel:
    return Channel(
        name,
        "gpu",
        in_total,
        _INTEGRAL_UNIT_J,
        None,
        LONGEST_GAP_S if kind == "instant" else _AVERAGED_S,
        _device(gpu),
        integrated=True,
        longest_gap_s=LONGEST_GAP_S,
        scope="parent_gpu" if gpu.mig else "",
    )


def _device(gpu: GpuIdentity) -> str:
    return f"{gpu.uuid} {gpu.pci_bus_id} {gpu.name}"


def _string(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text


def _unavailable(what: str, error: Any) -> SourceUnavailableError:
    return SourceUnavailableError("nvml", f"{what} ({error})", _REMEDIES.get(error.value, _REMEDY_OTHER))


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise SourceUnavailableError(
            "nvml", f"the module pynvml is missing ({error})", "python -m pip install nvidia-ml-py"
        ) from error
    return pynvml
