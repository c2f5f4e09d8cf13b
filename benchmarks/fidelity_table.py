"""How near simulated epochs come to real ones: errors, and the order of the policies."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from scipy.stats import kendalltau

from benchmarks.measuring import Spread

TARGETS = {"median_error": 0.10, "largest_error": 0.25, "tau": 0.8}
"""At most, at most, at least."""


@final
@dataclass(frozen=True)
class Compared:
    """Epochs of one workload under one scheduler."""

    model: str
    workers: int
    tile: int
    scheduler: str
    real_s: Spread
    simulated_s: float

    @property
    def error(self) -> float:
        """Simulated over real, less 1."""
        return self.simulated_s / self.real_s.median - 1

    @property
    def workload(self) -> tuple[str, int, int]:
        """What the schedulers are compared on."""
        return self.model, self.workers, self.tile


@final
@dataclass(frozen=True)
class Order:
    """Whether the policies of one workload come in the same order."""

    tau: float
    """Kendall's tau-b; NaN where all are equal."""
    told_apart: int
    """Pairs of policies whose real epochs do not overlap."""
    kept: int
    """Those of them whose simulated epochs are in the same order."""


def order_of(rows: Sequence[Compared]) -> Order:
    """Compare the order of the schedulers of one workload."""
    tau = kendalltau([row.real_s.median for row in rows], [row.simulated_s for row in rows]).statistic
    told_apart = kept = 0
    for one, other in itertools.combinations(rows, 2):
        if one.real_s.lowest > other.real_s.highest:
            one, other = other, one
        if one.real_s.highest < other.real_s.lowest:
            told_apart += 1
            kept += one.simulated_s < other.simulated_s
    return Order(float(tau), told_apart, kept)


def verdict(rows: Sequence[Compared]) -> dict[str, Any]:
    """The figures over all workloads.

    `tau` is the mean over workloads with an order. `tau_told_apart` is (kept - not kept) / all pairs of policies whose
    real epochs do not overlap: the order of the others is chance. None where there is nothing to compare.
    """
    errors = [abs(row.error) for row in rows]
    workloads = {row.workload: [own for own in rows if own.workload == row.workload] for row in rows}
    orders = [order_of(own) for own in workloads.values() if len(own) > 1]
    taus = [order.tau for order in orders if not math.isnan(order.tau)]
    told_apart, kept = sum(order.told_apart for order in orders), sum(order.kept for order in orders)
    return {
        "median_error": statistics.median(errors),
        "largest_error": max(errors),
        "tau": statistics.fmean(taus) if taus else None,
        "told_apart": told_apart,
        "kept": kept,
        "tau_told_apart": (2 * kept - told_apart) / told_apart if told_apart else None,
    }


def verdict_lines(found: Mapping[str, Any]) -> list[str]:
    """What the figures say, each beside its target."""
    lines = [
        f"median error {found['median_error']:.1%}, aim: at most {TARGETS['median_error']:.0%}",
        f"largest error {found['largest_error']:.1%}, aim: at most {TARGETS['largest_error']:.0%}",
    ]
    if found["tau"] is not None:
        lines.append(
            f"Kendall's tau of the policies' order {found['tau']:.2f}, mean over workloads, aim: at least "
            f"{TARGETS['tau']}"
        )
    if found["tau_told_apart"] is not None:
        lines.append(
            f"of {found['told_apart']} pairs of policies whose real epochs do not overlap {found['kept']} are in the "
            f"same order (tau {found['tau_told_apart']:.2f})"
        )
    return lines


HEADINGS = ("model", "workers", "tile", "scheduler", "real s", "simulated s", "error")


def cells(row: Compared) -> list[str]:
    """A row as tables show it."""
    known = [row.model, str(row.workers), str(row.tile), row.scheduler]
    return [*known, row.real_s.text(3), f"{row.simulated_s:.3f}", f"{row.error:+.1%}"]


def markdown(rows: Sequence[Compared], lines: Sequence[str]) -> str:
    """The table and what it says, as Markdown."""
    table = [f"| {' | '.join(HEADINGS)} |", "|---|---|---|---|---|---|---|"]
    table += [f"| {' | '.join(cells(row))} |" for row in rows]
    return "\n".join([*table, "", *(f"- {line}" for line in lines), ""])
