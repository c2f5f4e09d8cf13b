"""For how long GPUs were slowed down: by their driver for heat and limits of the board, or by their power limit.

NVML counts both in nanoseconds since the driver was loaded (nvmlDeviceGetViolationStatus), so that nothing is missed
between two readings, as it would be with the reasons of a moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from energy.nvml import NvmlSource
from energy.source import SourceUnavailableError

_HEAT_AND_BOARD = ("NVML_PERF_POLICY_THERMAL", "NVML_PERF_POLICY_BOARD_LIMIT", "NVML_PERF_POLICY_RELIABILITY")
_POWER_LIMIT = ("NVML_PERF_POLICY_POWER",)


@final
@dataclass(frozen=True)
class GpuSlowdowns:
    """Seconds since the driver was loaded, summed over the GPUs; None where no GPU tells."""

    throttled_s: float | None
    """For heat, a limit of the board or its reliability."""
    power_limited_s: float | None
    """At the power limit, which a long training at full speed can be for all of its time."""


@final
class GpuThrottling:
    """Reads the GPUs that CUDA shows; `library` and `environment` as of `energy.nvml.NvmlSource`.

    Where NVML does not start or no GPU is to be seen there is nothing to read, and both figures are None.
    """

    def __init__(self, library: Any = None, environment: Mapping[str, str] | None = None) -> None:
        self._source = NvmlSource(library, environment)
        # No GPU is no error here: then none was slowed down, and nothing is said of it.
        with contextlib.suppress(SourceUnavailableError):
            self._source.open()

    def read(self) -> GpuSlowdowns:
        """Return what NVML has counted so far."""
        return GpuSlowdowns(self._sum_s(_HEAT_AND_BOARD), self._sum_s(_POWER_LIMIT))

    def close(self) -> None:
        """Let NVML go."""
        self._source.close()

    def _sum_s(self, policies: tuple[str, ...]) -> float | None:
        found_ns = []
        for library, handle in self._source.gpus:
            for policy in policies:
                # Consumer cards and MIG do not tell, and a card can be lost: no figure, then.
                with contextlib.suppress(library.NVMLError):
                    status = library.nvmlDeviceGetViolationStatus(handle, getattr(library, policy))
                    found_ns.append(status.violationTime)
        return sum(found_ns) / 1e9 if found_ns else None
