"""What GPUs CUDA shows, asked before StarPU starts: StarPU itself would go on without them, or end the process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, final

from dahl.starpu.errors import ERRORS, NoGpuError, StarPUError

_NO_DEVICE, _PROHIBITED = 100, 2
_SHARE_OF_FREE = 0.8
"""What StarPU's data may take of a GPU's free memory: constants, scratch and cuBLAS need some, too."""
MIB = 2**20
LEAST_MIB = 64
"""StarPU takes 32 MiB at a time; where it cannot, it waits for memory that nobody gives back."""


@final
@dataclass(frozen=True)
class GpuDevice:
    """A GPU by CUDA's number: its name, its compute capability (90 for 9.0) and where it is on the bus."""

    number: int
    capability: int
    compute_mode: int
    pci_bus_id: str
    name: str


@final
@dataclass(frozen=True)
class GpuProbe:
    """``driver`` and ``runtime`` are versions of CUDA, 13000 for 13.0; ``driver`` is 0 without one."""

    devices: tuple[GpuDevice, ...]
    driver: int
    runtime: int
    error: int
    words: str


def probe(ffi: Any, lib: Any) -> GpuProbe:
    """Ask the CUDA runtime; leaves no context behind."""
    found = ffi.new("dahl_gpu_probe *")
    lib.dahl_cuda_probe(found)
    devices = tuple(
        GpuDevice(
            number,
            found.device[number].capability,
            found.device[number].compute_mode,
            ffi.string(found.device[number].pci_bus_id).decode().lower(),
            ffi.string(found.device[number].name).decode(),
        )
        for number in range(found.count)
    )
    return GpuProbe(devices, found.driver, found.runtime, found.error, ffi.string(found.words).decode())


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def usable(found: GpuProbe, wanted: int | None) -> int:
    """Return how many GPUs to start workers for; None wants all that there are.

    Raises NoGpuError, in one line with the way out, where there are fewer.
    """
    if wanted is None and not found.devices:
        return 0
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES={hidden!r})"
    if found.driver == 0:
        raise NoGpuError(
            "no NVIDIA driver is found (libcuda.so.1): nvidia-smi must list a GPU; gpu_workers=0 runs on CPU cores"
        )
    if found.error and found.driver < found.runtime:
        raise NoGpuError(
            f"the NVIDIA driver knows CUDA up to {_version(found.driver)}, StarPU was built with CUDA "
            f"{_version(found.runtime)}: update the driver, or build with an older CUDA "
            "(CUDA_HOME=... scripts/get-starpu --cuda --force)"
        )
    if found.error and found.error != _NO_DEVICE:
        raise NoGpuError(f"CUDA finds no GPU: {found.words} (error {found.error}); nvidia-smi may tell more")
    count = len(found.devices) if wanted is None else wanted
    if count > len(found.devices):
        raise NoGpuError(
            f"{count} GPU workers are asked for, but CUDA shows {len(found.devices)} GPUs{shown}"
        )
    for device in found.devices[:count]:
        if device.compute_mode == _PROHIBITED:
            raise NoGpuError(
                f"GPU {device.number} ({device.pci_bus_id}) is in compute mode `prohibited`, set by its administrator; "
                "CUDA_VISIBLE_DEVICES chooses others"
            )
    return count


def memory_limits(ffi: Any, lib: Any, count: int, limit_mib: int | None) -> dict[str, str]:
    """Return the variables that tell StarPU how much of each GPU's memory its data may take.

    ``limit_mib`` None is most of what is free now. Raises NoGpuError where a GPU cannot be opened, because another
    process has it for itself, and GpuMemoryError where it has less than ``limit_mib`` free.
    """
    variables = {}
    free, total = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    for number in range(count):
        status = lib.dahl_cuda_memory(number, free, total)
        if status:
            trouble = ffi.string(lib.dahl_cuda_trouble()).decode()
            raise NoGpuError(
                f"GPU {number} cannot be used: {trouble}; does another process have it for itself?"
            )
        free_mib = int(free[0] / MIB)
        if limit_mib is not None and limit_mib > free_mib:
            raise _too_little(number, limit_mib, free_mib, int(total[0] / MIB))
        own = int(free_mib * _SHARE_OF_FREE) if limit_mib is None else limit_mib
        variables[f"STARPU_LIMIT_CUDA_{number}_MEM"] = str(own)
    return variables


def _too_little(number: int, limit_mib: int, free_mib: int, total_mib: int) -> StarPUError:
    return ERRORS[19](
        f"gpu_memory_mib={limit_mib}, but GPU {number} has {free_mib} of {total_mib} MiB free; "
        "nvidia-smi shows who uses the rest"
    )
