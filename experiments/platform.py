"""A simulated node from a few lines of YAML: its SimGrid platform, its tasks' lengths, and its watts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dahl.costs import CostModel, FirstKnownCosts, MeasuredCosts, Rates, RooflineCosts
from dahl.ops import OPERATIONS
from dahl.starpu import Gpu, Link, Noise, Overheads, Platform, Worker
from energy import PowerModel, WorkerPower
from experiments.node_fields import PlatformError, check_around, check_class, check_link, check_number

OPERATION_KINDS: Mapping[str, str] = {name: operation.kind for name, operation in OPERATIONS.items()}
"""The kind of kernel of each operation of a network."""

FREE_LINK = Link(bandwidth_bytes_per_s=1e15, latency_s=1e-9)
"""A gigabyte in a microsecond: SimGrid has no link without time."""

ANY_SCHEDULER = "any"
"""In place of a scheduler's name: those that ``around_us`` does not name."""


@final
@dataclass(frozen=True, kw_only=True)
class SimulatedNode:
    """A node that does not have to exist; configs/platform/*.yaml describe some, docs/simulation.md every field.

    ``cpu`` and ``gpu`` map the name of a worker class to its fields. Each GPU takes one CPU core to drive it, whose
    watts are the GPU's. ``peer_link`` joins any two GPUs directly; without it their data pass through the host.
    A worker without a task for ``park_after_s`` draws its ``parked_w``. ``noise`` is the sigma of the lognormal
    variation of tasks' lengths. ``free_links`` lets data move in next to no time (`FREE_LINK`) and at no joules, which
    shows what the links of a node cost. ``allocated`` GPUs have the memory that tasks' data need, as after a first
    epoch; the others take StarPU's 175 us for each piece, one after the other for the whole node. ``around_us`` is what
    the runtime takes around a task in microseconds, by scheduler (`ANY_SCHEDULER`: all that it does not name):
    ``before``, ``after``, ``wake``, ``submit``, as in
    ``dahl.starpu.Overheads``. Raises PlatformError, which names the field.
    """

    name: str
    base_w: float
    cpu: Mapping[str, Mapping[str, Any]]
    gpu: Mapping[str, Mapping[str, Any]]
    peer_link: Mapping[str, Any] | None = None
    park_after_s: float = 0.0
    noise: float = 0.0
    free_links: bool = False
    allocated: bool = False
    around_us: Mapping[str, Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        where = f"platform {self.name}"
        for field in ("base_w", "park_after_s", "noise"):
            check_number(where, field, getattr(self, field))
        for name, fields in self.cpu.items():
            check_class(f"{where}, {name}", fields, gpu=False)
        for name, fields in self.gpu.items():
            check_class(f"{where}, {name}", fields, gpu=True)
        if self.peer_link is not None:
            check_link(f"{where}, peer_link", self.peer_link)
        check_around(where, self.around_us or {})
        for field in ("free_links", "allocated"):
            if not isinstance(getattr(self, field), bool):
                raise PlatformError(f"{where}: {field} must be true or false, got {getattr(self, field)!r}")
        if shared := set(self.cpu) & set(self.gpu):
            raise PlatformError(f"{where}: a CPU and a GPU class are both called {', '.join(shared)}")
        self._check_workers()

    @property
    def platform(self) -> Platform:
        """What SimGrid simulates."""
        cpus = tuple(name for name, fields in self.cpu.items() for _ in range(fields["count"]))
        gpus = tuple(
            self._gpu(name, fields) for name, fields in self.gpu.items() for _ in range(fields["count"])
        )
        peer_link = None if self.peer_link is None else self._link(self.peer_link)
        return Platform(
            name=self.name, cpu_classes=cpus, gpus=gpus, peer_link=peer_link, allocated=self.allocated
        )

    @property
    def costs(self) -> CostModel:
        """The expected length of operations on each worker class: from its table, else from its rates."""
        rates = {
            name: Rates(
                {kind: rate * 1e9 for kind, rate in fields["gflop_per_s"].items()},
                fields["gbyte_per_s"] * 1e9,
                fields["launch_us"] * 1e-6,
            )
            for name, fields in self._classes()
            if "gflop_per_s" in fields
        }
        measured = {name: fields["seconds"] for name, fields in self._classes() if "seconds" in fields}
        roofline = RooflineCosts(rates)
        return FirstKnownCosts((MeasuredCosts(measured), roofline)) if measured else roofline

    def power_model(
        self, workers: Sequence[Worker], kinds: Mapping[str, str] = OPERATION_KINDS
    ) -> PowerModel:
        """Return the watts of these workers; in a simulation idle workers sleep, so nobody polls.

        ``kinds`` tells by a codelet's name which kind of kernel it runs.
        """
        own = []
        for worker in workers:
            fields = (self.cpu if worker.arch == "cpu" else self.gpu)[worker.worker_class]
            idle_w, by_kind = float(fields["idle_w"]), fields.get("busy_w_by_kind", {})
            own.append(
                WorkerPower(
                    idle_w=idle_w,
                    busy_w=float(fields["busy_w"]),
                    polling_w=idle_w,
                    parked_w=float(fields.get("parked_w", idle_w)),
                    busy_w_by_codelet={
                        codelet: float(by_kind[kind]) for codelet, kind in kinds.items() if kind in by_kind
                    },
                    channel="cpu" if worker.arch == "cpu" else "gpu",
                )
            )
        return PowerModel(
            base_w=float(self.base_w),
            workers=tuple(own),
            stays_awake_s=0.0,
            park_after_s=float(self.park_after_s),
            has_links=self.transfers_cost_joules,
        )

    def length_noise(self, seed: int) -> Noise | None:
        """Return how tasks' lengths vary; None where they do not."""
        return Noise(sigma=float(self.noise), seed=seed) if self.noise else None

    def overheads(self, scheduler: str) -> Overheads | None:
        """Return what the runtime takes around a task under this scheduler; None where the node does not say."""
        by_name = self.around_us or {}
        around_us = by_name.get(scheduler, by_name.get(ANY_SCHEDULER))
        if around_us is None:
            return None
        return Overheads(**{f"{name}_s": microseconds * 1e-6 for name, microseconds in around_us.items()})

    @property
    def transfers_cost_joules(self) -> bool:
        """Whether any link takes joules for the data that it moves."""
        links = [fields["link"] for fields in self.gpu.values()]
        return not self.free_links and any(
            link.get("joule_per_gbyte", 0) > 0 for link in (*links, self.peer_link or {})
        )

    def link_joule_per_byte(self, workers: Sequence[Worker]) -> npt.NDArray[np.float64]:
        """Return the joules of a byte from one memory node (row) to another (column)."""
        count = 1 + max((worker.memory_node for worker in workers), default=0)
        to_host = np.zeros(count)
        if self.free_links:
            return np.zeros((count, count))
        for worker in workers:
            if worker.arch == "cuda":
                link = self.gpu[worker.worker_class]["link"]
                to_host[worker.memory_node] = link.get("joule_per_gbyte", 0.0) * 1e-9
        between = to_host[:, None] + to_host[None, :]
        if self.peer_link is not None:
            between[1:, 1:] = self.peer_link.get("joule_per_gbyte", 0.0) * 1e-9
        np.fill_diagonal(between, 0.0)
        return between

    def _classes(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        return (*self.cpu.items(), *self.gpu.items())

    def _gpu(self, name: str, fields: Mapping[str, Any]) -> Gpu:
        return Gpu(
            worker_class=name,
            memory_bytes=round(fields["memory_gbyte"] * 1e9),
            link=self._link(fields["link"]),
        )

    def _link(self, fields: Mapping[str, Any]) -> Link:
        if self.free_links:
            return FREE_LINK
        return Link(bandwidth_bytes_per_s=fields["gbyte_per_s"] * 1e9, latency_s=fields["latency_us"] * 1e-6)

    def _check_workers(self) -> None:
        """Refuse a node on which some operation has no worker: nothing would run it."""
        cores = sum(fields["count"] for fields in self.cpu.values())
        gpus = sum(fields["count"] for fields in self.gpu.values())
        if cores > gpus:
            return
        only = sorted(name for name, operation in OPERATIONS.items() if "cuda" not in operation.arches)
        raise PlatformError(
            f"platform {self.name}: cpu has {cores} cores, and {gpus} GPUs take one each to be driven, so no CPU "
            f"worker is left for {', '.join(only)}; give a CPU class a higher count"
        )
