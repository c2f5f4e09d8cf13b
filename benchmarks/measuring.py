"""What the benchmarks share: alternated rounds, medians with their spread, the machine, tables, records."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, final

from rich.console import Console
from rich.table import Table

from experiments.environment import collect
from experiments.records import write_json

ROUNDS = 5
MACHINE_FIELDS = ("commit", "dirty", "python", "libraries", "cpu", "processors", "memory_mib", "governor")
"""What a record says of the machine: no host name and no path."""


@final
@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing: their median, lowest and highest."""

    median: float
    lowest: float
    highest: float
    values: tuple[float, ...]

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        if not values:
            raise ValueError("a spread needs at least one value")
        return Spread(statistics.median(values), min(values), max(values), tuple(values))

    def text(self, digits: int = 2) -> str:
        """``median (lowest - highest)``, as tables show it."""
        return f"{self.median:,.{digits}f} ({self.lowest:,.{digits}f} - {self.highest:,.{digits}f})"


Case = Callable[[], Mapping[str, float]]
"""Measures once and returns numbers by name."""


def alternate(cases: Mapping[str, Case], rounds: int) -> dict[str, dict[str, Spread]]:
    """Run every case once a round, each second round in reverse order; return the spreads by case and name.

    So what disturbs the machine for a while hits all cases alike.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    found: dict[str, dict[str, list[float]]] = {name: {} for name in cases}
    for number in range(rounds):
        order = list(cases)[:: 1 if number % 2 == 0 else -1]
        for name in order:
            for key, value in cases[name]().items():
                found[name].setdefault(key, []).append(value)
    return {name: {key: Spread.of(v) for key, v in values.items()} for name, values in found.items()}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@final
class Machine:
    """The machine, commit and versions that figures depend on, and how much others used it meanwhile."""

    def __init__(self, proc_stat: Path = Path("/proc/stat")) -> None:
        known = collect(Path(__file__).parents[1])
        self.described: dict[str, Any] = {name: known[name] for name in MACHINE_FIELDS}
        self._proc_stat = proc_stat
        self._others_s, self._since_s = self._others_now_s(), time.monotonic()

    def others_cores(self) -> float:
        """Cores that other processes kept busy since the start, on average (proc(5), /proc/stat).

        Above 0 the figures are of a machine that was shared. A child's time counts once it has ended.
        """
        seconds = time.monotonic() - self._since_s
        return max(0.0, self._others_now_s() - self._others_s) / max(seconds, 1e-9)

    def _others_now_s(self) -> float:
        user, nice, system, _, _, irq, softirq, steal = map(int, self._proc_stat.read_text().split()[1:9])
        busy_s = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return busy_s - sum(os.times()[:4])

    def line(self, *, spread: bool = True) -> str:
        """One line for under a table."""
        where = f"{self.described['cpu']}, {self.described['processors']} cores"
        shared = f"others kept {self.others_cores():.1f} cores busy meanwhile"
        return f"{where}; {shared}{'; median (lowest - highest)' if spread else ''}"


def options(description: str, *, rounds: bool = True) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; ``rounds`` for those that alternate."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file too")
    if rounds:
        parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"alternated (default {ROUNDS})")
    return parser


def positive(text: str) -> int:
    """An integer of at least 1, as an argument's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def show(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
    """Print a table: the first column to the left, the others to the right."""
    console = Console(width=None if os.isatty(1) else 150)
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, markup=False)


def record(path: Path | None, benchmark: str, machine: Machine, **figures: Any) -> None:
    """Write the figures whole, where a file is asked for. Dataclasses become objects."""
    if path is not None:
        described = {**machine.described, "others_cores": machine.others_cores()}
        write_json(path, {"benchmark": benchmark, "machine": described, **_plain(figures)})


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
