"""Expected seconds and joules of operations on each worker: from a platform's rates, or from measurements."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from dahl.ops.operation import Operation
from dahl.starpu import MachineWatts, Worker

UNKNOWN = math.nan


def cost_key(operation: Operation, shapes: Mapping[str, Any], scalars: Mapping[str, Any]) -> str:
    """Return the text that tasks of equal cost share: ``relu_4d/16x4x26x26/16x4x26x26``.

    A repeated operand stands as its count and shape: ``8*4x1x3x3``. An integer that the operation has a default for,
    such as a stride, is told where it differs from it: windows of other sizes can make the same shapes.
    """
    parts = [operation.name]
    for operand in operation.kernel.operands:
        shape = shapes[operand.name]
        if operand.repeated:
            parts.append(f"{len(shape)}*" + "x".join(map(str, shape[0])))
        else:
            parts.append("x".join(map(str, shape)))
    for name, kind in operation.kernel.scalars:
        if kind == "int64" and name in operation.defaults and scalars[name] != operation.defaults[name]:
            parts.append(f"{name}={scalars[name]}")
    return "/".join(parts)


class CostModel(ABC):
    """Tells the expected seconds of an operation on a worker, and its watts where they were measured."""

    @abstractmethod
    def length_s(
        self, worker: Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any
    ) -> float:
        """Return seconds, or NaN where unknown."""

    @abstractmethod
    def watts(self, worker: Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any) -> float:
        """Return what running it draws above the idle machine, or NaN where only the worker's own watts are known."""


@final
@dataclass(frozen=True)
class Rates:
    """What one kind of worker does: FLOP/s by kind of kernel, bytes/s, and the seconds that a task takes at least."""

    flop_per_s: Mapping[str, float]
    bytes_per_s: float
    launch_s: float

    def __post_init__(self) -> None:
        for name, value in {**self.flop_per_s, "bytes_per_s": self.bytes_per_s}.items():
            if not value > 0 or not math.isfinite(value):
                raise ValueError(f"the rate {name} must be above 0, got {value}")
        if not self.launch_s > 0 or not math.isfinite(self.launch_s):
            raise ValueError(
                f"launch_s must be above 0, got {self.launch_s}: a simulated task needs a length"
            )


@final
@dataclass(frozen=True)
class RooflineCosts(CostModel):
    """Seconds as launch + max(flops / rate, bytes / bandwidth), by worker class.

    Source: the roofline model (Williams, Waterman, Patterson, CACM 2009).
    """

    rates: Mapping[str, Rates]

    def length_s(
        self, worker: Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any
    ) -> float:
        rates = self.rates.get(worker.worker_class)
        if rates is None or operation.kind not in rates.flop_per_s:
            return UNKNOWN
        cost = operation.cost(shapes, scalars)
        return rates.launch_s + max(
            cost.flops / rates.flop_per_s[operation.kind], cost.bytes / rates.bytes_per_s
        )

    def watts(self, worker: Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any) -> float:
        return UNKNOWN


@final
@dataclass(frozen=True)
class MeasuredCosts(CostModel):
    """Seconds and watts from measurements: worker class, then ``cost_key``. What was not measured is NaN."""

    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    net_w: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Above the idle machine, for each worker that is busy with it."""

    def length_s(
        self, worker: Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any
    ) -> float:
        return self.seconds.get(worker.worker_class, {}).get(cost_key(operation, shapes, scalars), UNKNOWN)

    def watts(self, worker: Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any) -> float:
        return self.net_w.get(worker.worker_class, {}).get(cost_key(operation, shapes, scalars), UNKNOWN)


@final
@dataclass(frozen=True)
class FirstKnownCosts(CostModel):
    """Seconds and watts from the first of some models that knows them."""

    models: tuple[CostModel, ...]

    def length_s(
        self, worker: Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any
    ) -> float:
        for model in self.models:
            seconds = model.length_s(worker, operation, shapes, scalars)
            if not math.isnan(seconds):
                return seconds
        return UNKNOWN

    def watts(self, worker: Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any) -> float:
        for model in self.models:
            watts = model.watts(worker, operation, shapes, scalars)
            if not math.isnan(watts):
                return watts
        return UNKNOWN


@final
@dataclass(frozen=True)
class Estimates:
    """How far what is expected of tasks is from what they take, to see how robust a policy is against it.

    Expected seconds and joules are the known ones, times ``bias`` of the worker class (1 where it names none), times
    ``exp(noise * z)`` with a standard normal z of its own for each kind of task and worker class, drawn from ``seed``.
    """

    bias: Mapping[str, float] = field(default_factory=dict)
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in self.bias.items():
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"estimates.bias of {name} must be a factor above 0, got {value}")
        if not (self.noise >= 0 and math.isfinite(self.noise)):
            raise ValueError(f"estimates.noise must be 0 or more, got {self.noise}")

    def factor(self, worker_class: str, key: str) -> float:
        """Return expected over actual for the tasks that share a ``cost_key``."""
        factor = self.bias.get(worker_class, 1.0)
        if self.noise == 0:
            return factor
        digest = hashlib.sha256(f"{self.seed}/{worker_class}/{key}".encode()).digest()
        normal = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little"))).standard_normal()
        return factor * math.exp(self.noise * float(normal))


def energy_j(watts: MachineWatts | None, worker: Worker, length_s: float, codelet: str = "") -> float:
    """Return the joules, net of the worker's idle watts, of running a codelet for so long; NaN where unknown."""
    if watts is None:
        return UNKNOWN
    own = watts.workers[worker.id]
    return length_s * (own.busy_w_by_codelet.get(codelet, own.busy_w) - own.idle_w)
