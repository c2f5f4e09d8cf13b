"""An object that answers like the module `pynvml`, with GPUs that a test sets by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import pynvml

ENERGY, AVERAGE, INSTANT = 83, 185, 186


def nvml_error(code: int) -> Exception:
    """The exception that `pynvml` raises for a return code."""
    error: Exception = pynvml.NVMLError(code)
    return error


@dataclass
class Gpu:
    """What one GPU answers, or the error in place of it."""

    energy_mj: int | Exception = 0
    instant_mw: int | Exception = 100_000
    average_mw: int | Exception = 90_000
    name: str = "NVIDIA A100"
    uuid: str = ""
    bus_id: str = ""
    mig: bool | None = None
    """None: it cannot be cut."""
    handle_error: Exception | None = None
    slowed_ns: dict[int, int] | None = None
    """Nanoseconds by NVML_PERF_POLICY_...; None: this card does not tell."""
    has_fields: bool = True
    """False before the driver that brought nvmlDeviceGetFieldValues."""


@final
class Nvml:
    """Answers like the module `pynvml` with these GPUs, or with the error that NVML gives for one."""

    NVMLError = pynvml.NVMLError
    NVML_PERF_POLICY_POWER = pynvml.NVML_PERF_POLICY_POWER
    NVML_PERF_POLICY_THERMAL = pynvml.NVML_PERF_POLICY_THERMAL
    NVML_PERF_POLICY_BOARD_LIMIT = pynvml.NVML_PERF_POLICY_BOARD_LIMIT
    NVML_PERF_POLICY_RELIABILITY = pynvml.NVML_PERF_POLICY_RELIABILITY

    def __init__(self, *gpus: Gpu, start: Exception | None = None, mig: dict[str, int] | None = None) -> None:
        self.gpus = list(gpus)
        self.start = start
        self.mig = mig or {}
        self.running = 0
        self.unloaded = False
        for index, gpu in enumerate(self.gpus):
            gpu.uuid = gpu.uuid or f"GPU-{index:08d}-aaaa"
            gpu.bus_id = gpu.bus_id or f"00000000:{0x3B + index:02X}:00.0"

    def nvmlInit(self) -> None:
        if self.start is not None:
            raise self.start
        self.running += 1

    def nvmlShutdown(self) -> None:
        self.running -= 1
        if self.unloaded:
            raise nvml_error(pynvml.NVML_ERROR_UNINITIALIZED)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        gpu = self.gpus[index]
        if gpu.handle_error is not None:
            raise gpu.handle_error
        return gpu

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: Gpu) -> str:
        return gpu.name

    def nvmlDeviceGetPciInfo(self, gpu: Gpu) -> Any:
        info = pynvml.nvmlPciInfo_t()
        info.busId = gpu.bus_id.encode()
        return info

    def nvmlDeviceGetMigMode(self, gpu: Gpu) -> list[int]:
        if gpu.mig is None:
            raise nvml_error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(gpu.mig), int(gpu.mig)]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.mig:
            raise nvml_error(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, instance: str) -> Gpu:
        return self.gpus[self.mig[instance]]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: Gpu) -> int:
        return _value(gpu.energy_mj)

    def nvmlDeviceGetPowerUsage(self, gpu: Gpu) -> int:
        return _value(gpu.average_mw)

    def nvmlDeviceGetViolationStatus(self, gpu: Gpu, policy: int) -> Any:
        if gpu.slowed_ns is None:
            raise nvml_error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        status = pynvml.c_nvmlViolationTime_t()
        status.violationTime = gpu.slowed_ns.get(policy, 0)
        return status

    def nvmlDeviceGetFieldValues(self, gpu: Gpu, fields: Sequence[tuple[int, int]]) -> Any:
        if not gpu.has_fields:
            raise nvml_error(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        values = (pynvml.c_nvmlFieldValue_t * len(fields))()
        for slot, (number, scope) in zip(values, fields, strict=True):
            slot.fieldId, slot.scopeId = number, scope
            answer = {ENERGY: gpu.energy_mj, INSTANT: gpu.instant_mw, AVERAGE: gpu.average_mw}[number]
            if isinstance(answer, Exception):
                slot.nvmlReturn = answer.value
            elif number == ENERGY:
                slot.valueType, slot.value.ullVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, answer
            else:
                slot.valueType, slot.value.uiVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, answer
        return values


def _value(answer: int | Exception) -> int:
    if isinstance(answer, Exception):
        raise answer
    return answer
