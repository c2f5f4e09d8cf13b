"""From a run's configuration to what it names: data set, model, scheduler, platform, energy sources."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hydra.utils import instantiate

from dahl import starpu
from dahl.costs import CostModel, Estimates
from dahl.tiling import check_tile_sizes
from dahl.training import can_fuse
from energy import SOURCES, PowerModel, RateHz, Selection, power_model_for, select_sources
from energy.sampler import DEFAULT_RATE
from experiments.events import EventWriter, report_stderr
from experiments.graphs import GraphDescription, GraphError, GraphWorkload
from experiments.platform import OPERATION_KINDS, SimulatedNode
from experiments.policies import load_scheduler
from experiments.workers import gpu_workers, variant_of, with_usable_gpus
from schedulers import CompiledPolicy, InterpretedPolicy, StarPUScheduler


@dataclass(frozen=True)
class Workload:
    """What one trial runs; nothing of StarPU has started yet."""

    config: Mapping[str, Any]
    dataset: Any
    """A ``dahl.datasets.Dataset``; None beside a graph."""
    model: Any
    scheduler: Any
    platform: SimulatedNode | None
    sources: Selection
    """Counters to read; none in a simulation."""
    graph: GraphDescription | None = None
    """What runs instead of training."""
    estimates: Estimates = field(default_factory=Estimates)
    costs: CostModel | None = None
    """Expected seconds of tasks: a platform's, or measured on this machine; None where nobody asked for them."""

    @property
    def simulated(self) -> bool:
        """Whether time and joules are a simulation's."""
        return self.platform is not None

    @property
    def variant(self) -> str:
        """The variant of StarPU that runs it."""
        return variant_of(self.config)

    def runtime(self, run_dir: Path, live_watts: np.ndarray | None = None) -> starpu.Runtime:
        """A StarPU that has not started yet, with its files in the run's own folder.

        `live_watts` is the memory in which a policy finds the watts of the machine.
        """
        return starpu.Runtime(
            cpu_workers=self.config["workers"],
            gpu_workers=gpu_workers(self.config),
            gpu_memory_mib=self.config.get("gpu_memory_mib"),
            scheduler=self._installable(),
            explain=self.explains,
            platform=self.platform.platform if self.platform else None,
            noise=self.platform.length_noise(self.config["seed"]) if self.platform else None,
            overheads=self.platform.overheads(self._scheduler_name) if self.platform else None,
            trace=True,  # the power model counts from it, whether it is written down or not
            home=run_dir / "starpu",
            watts=lambda workers: machine_watts(self.power_model(workers)),
            energy_weight=self._energy_weight(),
            live_watts=live_watts,
        )

    @property
    def _scheduler_name(self) -> str:
        """As the group's files are called."""
        if isinstance(self.scheduler, StarPUScheduler):
            return self.scheduler.name
        return str(self.config.get("choices", {}).get("scheduler", type(self.scheduler).__name__))

    def _energy_weight(self) -> starpu.EnergyWeight | None:
        own = self.scheduler
        if not isinstance(own, StarPUScheduler) or not own.weighs_energy:
            return None
        return starpu.EnergyWeight(own.gamma_us_per_j, own.idle_w)

    @property
    def fuse(self) -> bool:
        """Whether layers that follow each other are one task.

        ``auto``: on this machine, whose workers are alike, where the model has such layers.
        Simulated nodes keep one task a layer, since that is what there is to place.
        """
        chosen = self.config["fuse"]
        if chosen == "auto":
            return not self.simulated and can_fuse(self.model, self.dataset.image_shape)
        return bool(chosen)

    @property
    def explains(self) -> bool:
        """Whether every decision of the policy is kept."""
        return bool(self.config["scheduler"].get("explain", False))

    def _installable(self) -> str | starpu.Policy:
        if isinstance(self.scheduler, StarPUScheduler):
            return self.scheduler.name
        if self.config["scheduler"].get("compiled", True):
            return CompiledPolicy(self.scheduler)
        return InterpretedPolicy(self.scheduler)

    def power_model(self, workers: Sequence[starpu.Worker]) -> PowerModel:
        """The watts assumed of these workers."""
        if self.platform:
            kinds = {kind.name: kind.kind for kind in self.graph.kinds} if self.graph else OPERATION_KINDS
            return self.platform.power_model(workers, kinds)
        return power_model_for(self.config["energy"]["model"], [worker.arch for worker in workers])

    def link_joule_per_byte(self, workers: Sequence[starpu.Worker]) -> npt.NDArray[np.float64] | None:
        """The joules of a byte between two memory nodes; None where moving data takes none of its own."""
        if self.platform is None or not self.platform.transfers_cost_joules:
            return None
        return self.platform.link_joule_per_byte(workers)

    @property
    def needs_costs(self) -> bool:
        """Whether the scheduler needs expected times or joules, which have to be measured first."""
        own = self.scheduler
        if isinstance(own, StarPUScheduler):
            return not self.simulated and own.needs_costs
        return not self.simulated and not {"length_s", "energy_j"}.isdisjoint(own.NEEDS)


def machine_watts(model: PowerModel) -> starpu.MachineWatts:
    """A power model as policies see it: each channel (CPUs, GPUs) is one power domain."""
    channels = model.channels
    return starpu.MachineWatts(
        base_w=model.base_w,
        workers=tuple(
            starpu.WorkerWatts(
                worker.idle_w,
                worker.busy_w,
                channels.index(worker.channel),
                {str(name): watts for name, watts in worker.busy_w_by_codelet.items()},
            )
            for worker in model.workers
        ),
    )


def load_workload(config: Mapping[str, Any], events: EventWriter) -> Workload:
    """Make everything that the configuration names, the cheap and the picky first.

    Raises what they raise: PolicyFileError, DatasetError, SourceUnavailableError, ValueError for a parameter,
    InstantiationException of Hydra around an error in a constructor.
    """
    config = with_usable_gpus(config, events)
    scheduler = load_scheduler(config["scheduler"])
    platform = load_platform(config["platform"])
    _check_rate_names(config["energy"].get("rate_hz", {}))
    sources = Selection((), ())
    if platform is None:
        energy = config["energy"]
        sources = select_sources(energy["sources"], settings=energy.get("settings", {}))
    costs = platform.costs if platform else None
    check_classes("estimates.bias", config["estimates"]["bias"], platform)
    if isinstance(config["tile"], Mapping):
        check_classes("tile", config["tile"], platform)
    estimates = Estimates(**config["estimates"])
    graph = load_graph(config["workload"], platform)
    if graph is not None:
        return Workload(config, None, None, scheduler, platform, sources, graph, estimates, costs)
    model = instantiate(config["model"])
    threading.Thread(target=_import_pandas).start()
    with report_stderr(events, "loading"):
        dataset = instantiate(config["dataset"]).load()
    workload = Workload(config, dataset, model, scheduler, platform, sources, None, estimates, costs)
    if config["tile"] != "auto" and config["framework"]["name"] != "torch":
        check_tile_sizes(config["tile"], config["batch_size"], fuse=workload.fuse)
    return workload


def _import_pandas() -> None:
    """Import what PyArrow imports with its first array, 0.2 s, while another thread waits for the data set."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pandas")


def load_graph(config: Mapping[str, Any], platform: SimulatedNode | None) -> GraphDescription | None:
    """Return the graph that runs instead of training; None trains. Raises GraphError where it cannot run."""
    if config["_target_"] is None:
        return None
    if platform is None:
        raise GraphError(
            "the tasks of this workload have no kernels: it runs on simulated nodes, platform=NAME"
        )
    made: GraphWorkload = instantiate(config)
    graph = made.describe()
    arches = {arch for arch, classes in (("cpu", platform.cpu), ("cuda", platform.gpu)) if classes}
    for kind in graph.kinds:
        if not arches & set(kind.arches):
            raise GraphError(
                f"{kind.name} runs on {' and '.join(kind.arches)} only; platform {platform.name} has no such worker"
            )
    return graph


def check_classes(key: str, by_class: Mapping[str, Any], platform: SimulatedNode | None) -> None:
    """Raise ValueError for a worker class that there is not."""
    classes = ("cpu", "cuda") if platform is None else (*platform.cpu, *platform.gpu)
    unknown = [name for name in by_class if name not in classes]
    if unknown:
        raise ValueError(f"{key} names {unknown[0]}; there are: {', '.join(classes)}")


def _check_rate_names(rate_hz: RateHz) -> None:
    """Raise ValueError where a rate is for no source that there is."""
    known = (*SOURCES, DEFAULT_RATE)
    for name in rate_hz if isinstance(rate_hz, Mapping) else ():
        if name not in known:
            raise ValueError(
                f"energy.rate_hz.{name}: there is no such energy source; there are {', '.join(known)}"
            )


def load_platform(config: Mapping[str, Any]) -> SimulatedNode | None:
    """Return the node to simulate; None runs on this machine."""
    if not config["simulated"]:
        return None
    node: SimulatedNode = instantiate({key: value for key, value in config.items() if key != "simulated"})
    return node
