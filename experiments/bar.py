"""One line of progress at the foot of a terminal, redrawn only when there is something new to tell."""

from __future__ import annotations

from typing import final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


@final
class Bar:
    """A description, a bar and a text of figures, there between `start` and `stop`; all text is taken as it is.

    Nothing wakes up between two calls of `show`, so that the display costs next to no energy. Where the console is no
    terminal there is no bar, and `shown` stays false.
    """

    def __init__(self, console: Console, *, counted: bool = False) -> None:
        """`counted`: how many of how many stands beside the bar."""
        self._console = console
        self._counted = counted
        self._progress: Progress | None = None
        self._task = TaskID(0)

    @property
    def shown(self) -> bool:
        """Whether the line is on a terminal now."""
        return self._progress is not None

    def start(self, description: str, figures: str = "", total: float | None = None) -> None:
        """Put the line there; harmless where there is no terminal."""
        if not self._console.is_terminal:
            return
        count = "{task.completed:.0f}/{task.total:.0f} " if self._counted else ""
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn(count + "{task.fields[figures]}", markup=False),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task(description, total=total, figures=figures)
        self._progress.start()

    def show(self, description: str, figures: str, done: float, total: float | None) -> None:
        """Redraw the line; without a total the bar tells only that something goes on."""
        if self._progress is not None:
            self._progress.update(
                self._task,
                description=description,
                figures=figures,
                completed=done,
                total=total,
                refresh=True,
            )

    def stop(self) -> None:
        """Take the line away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
