"""A simulated node from a few lines of YAML: its SimGrid platform, its tasks' lengths, and its watts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from dahl.costs import Rates, RooflineCosts
from dahl.starpu import Gpu, Link, Platform, Worker
from energy import PowerModel, WorkerPower

KINDS = ("conv", "gemm", "memory")
CPU_FIELDS = {"count", "gflop_per_s", "gbyte_per_s", "launch_us", "idle_w", "busy_w"}
GPU_FIELDS = CPU_FIELDS | {"memory_gbyte", "link"}
LINK_FIELDS = {"gbyte_per_s", "latency_us"}


class PlatformError(ValueError):
    """A platform's description does not describe a machine; the message names the field."""


@final
@dataclass(frozen=True, kw_only=True)
class SimulatedNode:
    """A node that does not have to exist; configs/platform/*.yaml describe some.

    ``cpu`` and ``gpu`` map the name of a worker class to its fields: ``count``, ``gflop_per_s`` by kind of kernel
    (conv, gemm, memory), ``gbyte_per_s``, ``launch_us`` (what a task takes at least), ``idle_w`` and ``busy_w``; a GPU
    has ``memory_gbyte`` and ``link`` (``gbyte_per_s``, ``latency_us``) besides. Each GPU takes one CPU core to drive
    it, whose watts are the GPU's.
    """

    name: str
    base_w: float
    cpu: Mapping[str, Mapping[str, Any]]
    gpu: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        if not (self.base_w >= 0 and math.isfinite(self.base_w)):
            raise PlatformError(f"platform {self.name}: base_w must be 0 or more, got {self.base_w}")
        for classes, wanted in ((self.cpu, CPU_FIELDS), (self.gpu, GPU_FIELDS)):
            for name, fields in classes.items():
                self._check(name, fields, wanted)
        if set(self.cpu) & set(self.gpu):
            raise PlatformError(
                f"platform {self.name}: a CPU and a GPU class are both called {set(self.cpu) & set(self.gpu)}"
            )

    @property
    def platform(self) -> Platform:
        """What SimGrid simulates."""
        cpus = tuple(name for name, fields in self.cpu.items() for _ in range(fields["count"]))
        gpus = tuple(
            self._gpu(name, fields) for name, fields in self.gpu.items() for _ in range(fields["count"])
        )
        return Platform(name=self.name, cpu_classes=cpus, gpus=gpus)

    @property
    def costs(self) -> RooflineCosts:
        """The expected length of operations on each worker class."""
        return RooflineCosts(
            {
                name: Rates(
                    {kind: rate * 1e9 for kind, rate in fields["gflop_per_s"].items()},
                    fields["gbyte_per_s"] * 1e9,
                    fields["launch_us"] * 1e-6,
                )
                for name, fields in (*self.cpu.items(), *self.gpu.items())
            }
        )

    def power_model(self, workers: Sequence[Worker]) -> PowerModel:
        """Return the watts of these workers; in a simulation idle workers sleep, so nobody polls."""
        own = []
        for worker in workers:
            fields = (self.cpu if worker.arch == "cpu" else self.gpu)[worker.worker_class]
            idle_w, busy_w = float(fields["idle_w"]), float(fields["busy_w"])
            channel = "cpu" if worker.arch == "cpu" else "gpu"
            own.append(WorkerPower(idle_w=idle_w, busy_w=busy_w, polling_w=idle_w, channel=channel))
        return PowerModel(base_w=float(self.base_w), workers=tuple(own), stays_awake_s=0.0)

    def _gpu(self, name: str, fields: Mapping[str, Any]) -> Gpu:
        link = Link(
            bandwidth_bytes_per_s=fields["link"]["gbyte_per_s"] * 1e9,
            latency_s=fields["link"]["latency_us"] * 1e-6,
        )
        return Gpu(worker_class=name, memory_bytes=round(fields["memory_gbyte"] * 1e9), link=link)

    def _check(self, name: str, fields: Mapping[str, Any], wanted: set[str]) -> None:
        where = f"platform {self.name}, {name}"
        if set(fields) != wanted:
            odd = ", ".join(sorted(set(fields) ^ wanted))
            raise PlatformError(f"{where}: takes {', '.join(sorted(wanted))}; missing or unknown: {odd}")
        if set(fields["gflop_per_s"]) != set(KINDS):
            raise PlatformError(
                f"{where}: gflop_per_s takes {', '.join(KINDS)}, got {sorted(fields['gflop_per_s'])}"
            )
        link = fields.get("link", {})
        if "link" in wanted and set(link) != LINK_FIELDS:
            raise PlatformError(f"{where}: link takes {', '.join(sorted(LINK_FIELDS))}, got {sorted(link)}")
        numbers = {key: value for key, value in fields.items() if key not in ("gflop_per_s", "link")}
        numbers |= {f"gflop_per_s.{kind}": rate for kind, rate in fields["gflop_per_s"].items()}
        numbers |= {f"link.{key}": value for key, value in link.items()}
        for key, value in numbers.items():
            least = 0 if key in ("idle_w", "busy_w", "link.latency_us") else math.ulp(0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise PlatformError(
                    f"{where}: {key} must be a number {'of 0 or more' if not least else 'above 0'}, got {value!r}"
                )
        if not isinstance(fields["count"], int):
            raise PlatformError(f"{where}: count must be whole, got {fields['count']!r}")
        if fields["busy_w"] < fields["idle_w"]:
            raise PlatformError(f"{where}: busy_w {fields['busy_w']} is below idle_w {fields['idle_w']}")
