"""What the terminal shows of a calibration: a bar over the kinds of task, then a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.bar import Bar
from experiments.events import Event
from experiments.progress import NOTHING, QUALITY_WORDS


class CalibrationDisplay:
    """Follows the events of one tile size; redrawn only when one arrives."""

    def __init__(self, console: Console, title: str) -> None:
        self.measured: list[dict[str, Any]] = []
        self._console, self._title = console, title
        self._total = self._known = 0
        self._check: Event | None = None
        self._bar = Bar(console, counted=True)

    def __enter__(self) -> CalibrationDisplay:
        self._bar.start(self._title, "starting", total=0)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._bar.stop()

    def take(self, event: Event) -> None:
        """Show one event."""
        match event["event"]:
            case "kinds":
                self._total, self._known = int(event["total"]), int(event["known"])
                self._say(f"{self._title}: {self._total} kinds of task, {self._known} measured before")
                self._update("")
            case "measured":
                self.measured.append({key: value for key, value in event.items() if key != "event"})
                self._update(f"{event['operation']} {_microseconds(event['seconds'])} us, {_watts(event)} W")
            case "checked":
                self._check = event
            case "calibrating" | "loading":
                self._update(str(event["message"]))
            case "notice":
                self._say(str(event["message"]))

    def show_end(self, file: Path) -> None:
        """The table of what was measured, and what the numbers are worth."""
        if not self.measured:
            return
        table = Table(title=self._title, title_justify="left")
        table.add_column("kind of task")
        for name in ("us", "95 % of tasks", "W above idle", "uJ", "tasks"):
            table.add_column(name, justify="right")
        for row in self.measured:
            table.add_row(
                escape(str(row["key"])),
                _microseconds(row["seconds"]),
                f"{_microseconds(row['seconds_low'])} to {_microseconds(row['seconds_high'])}",
                _watts(row),
                NOTHING if row["energy_j"] is None else f"{row['energy_j'] * 1e6:.1f}",
                f"{row['repeats']:,}",
            )
        self._console.print(table)
        for quality in dict.fromkeys(row["quality"] for row in self.measured):
            self._say(f"watts and joules are {QUALITY_WORDS[quality]}")
        self._show_unresolved()
        if self._check is not None and self._check["measured_j"]:
            share = (
                self._check["predicted_j"] / self._check["measured_j"] if self._check["predicted_j"] else None
            )
            told = NOTHING if share is None else f"{share:.1%}"
            self._say(
                f"mini-batches as training runs them: the tasks' own joules give {told} of the measured ones"
            )

    def _show_unresolved(self) -> None:
        unsure = [row["key"] for row in self.measured if not row["resolved"] and row["quality"] == "measured"]
        if unsure:
            self._say(f"watts not pinned down to 5 % (limit_s=... gives them longer): {', '.join(unsure)}")

    def _say(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def _update(self, figures: str) -> None:
        self._bar.show(self._title, figures, self._known + len(self.measured), self._total)


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"


def _watts(row: Mapping[str, Any]) -> str:
    if row["watts"] is None:
        return NOTHING
    if row["watts_low"] is None:
        return f"{row['watts']:.2f}"
    return f"{row['watts']:.2f} ({row['watts_low']:.2f} to {row['watts_high']:.2f})"
