"""What the terminal shows of a trial: a live line while it runs, a table of its epochs when it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.bar import Bar
from experiments.events import Event
from experiments.supervisor import Outcome

QUALITY_WORDS = {
    "measured": "measured: read from hardware counters or sensors",
    "estimated": "estimated: real activity of the workers x assumed watts",
    "simulated": "simulated: simulated activity of the workers x assumed watts",
    "modelled": "modelled: computed from other measurements, by a fit or by replaying a run",
}
NOTHING = "–"  # a dash for what was not recorded, never a 0


class TrialDisplay:
    """Follows the events of one trial; keeps the rows of its epochs and of their blocks for the table and the summary.

    On a terminal one line is kept up to date, redrawn when an event arrives: nothing wakes up in between, so
    that the display costs next to no energy. Elsewhere each event of weight is a line of its own.
    """

    def __init__(self, console: Console, title: str, epochs: int) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.blocks: list[dict[str, Any]] = []
        self.started: Event = {}
        self.whole: dict[str, Any] = {}
        """The window around all epochs and evaluations, once it has ended."""
        self._console = console
        self._title = title
        self._epochs_asked = epochs
        self._epoch = 0
        self._seconds_done = 0.0
        self._bar = Bar(console)

    def __enter__(self) -> TrialDisplay:
        self._say(f"[bold]{escape(self._title)}[/bold]")
        self._bar.start("starting")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._bar.stop()

    def take(self, event: Event) -> None:
        """Show one event."""
        match event["event"]:
            case "started":
                self._on_started(event)
            case "notice":
                self._say(escape(str(event["message"])))
            case "loading":
                self._update(str(event["message"]), "")
            case "calibrating":
                self._update(str(event["message"]), "", aloud=True)
            case "epoch_start":
                self._epoch = int(event["epoch"])
                self._update(self._where(), "")
            case "batch":
                self._on_batch(event)
            case "window" if event["window"] == "epoch":
                self.blocks.append(_without_stamp(event))
            case "window" if event["window"] == "run":
                self.whole = _without_stamp(event)
            case "epoch_end":
                self._on_epoch_end(event)

    def _on_started(self, event: Event) -> None:
        self.started = event
        self._update("compiling kernels", "")
        mode = "[yellow]simulated[/yellow] · " if event.get("simulated") else ""
        what = (
            f"workers · StarPU {event['starpu']}"
            if "starpu" in event
            else f"threads · PyTorch {event['torch']}"
        )
        self._say(f"{mode}{event['workers']} {what} · {escape(str(event['energy']))}")

    def _on_batch(self, event: Event) -> None:
        total = int(self.started.get("images_per_epoch") or 0)
        seconds, images = float(event["seconds"]), int(event["images"])
        figures = [rate(images, seconds), f"loss {number(event.get('loss'), '.4f')}"]
        figures += self._watts(event.get("watts"))
        left = self._seconds_left(total, images, seconds)
        if left is not None:
            figures.append(f"{left:.0f} s left")
        self._update(self._where(), " · ".join(figures), images, total)

    def _watts(self, live_w: float | None) -> list[str]:
        """Live, or where no counter can be read those of the last epoch."""
        if live_w is not None:
            return [f"{live_w:.1f} W"]
        last = self.epochs[-1] if self.epochs else {}
        if last.get("gross_j") is None or not last["seconds"]:
            return []
        return [f"{last['gross_j'] / last['seconds']:.1f} W in the last epoch"]

    def _seconds_left(self, total: int, images: int, seconds: float) -> float | None:
        """From the rate so far; of simulated time nothing can be said."""
        if self.started.get("simulated") or not total or not images:
            return None
        done = total * len(self.epochs) + images
        return (self._seconds_done + seconds) / done * (total * self._epochs_asked - done)

    def _on_epoch_end(self, event: Event) -> None:
        row = _without_stamp(event)
        self.epochs.append(row)
        self._seconds_done += float(row["seconds"])
        parts = [
            self._joules_of(row),
            f"{row['seconds']:.3f} s",
            rate(row["images"], row["seconds"]),
            f"loss {number(row.get('loss'), '.4f')}",
            f"test accuracy {number(row.get('accuracy'), '.4f')}",
        ]
        if not self._bar.shown:
            self._say(f"epoch {row['epoch']}/{self._epochs_asked}: {', '.join(parts)}")

    def _joules_of(self, row: Mapping[str, Any]) -> str:
        """An epoch's joules; at the end of a block of several that of the block."""
        block = block_of(row, self.blocks)
        if block is None:
            return f"{joules(row.get('gross_j'))} J ({row.get('quality') or 'not recorded'})"
        if row["epoch"] < block["last_epoch"]:
            return f"joules with epochs {epochs_of(block)}"
        return (
            f"{joules(block.get('gross_j'))} J over epochs {epochs_of(block)} "
            f"({block.get('quality') or 'not recorded'})"
        )

    def _where(self) -> str:
        return f"epoch {self._epoch}/{self._epochs_asked}"

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _update(self, what: str, figures: str, done: int = 0, total: int = 0, *, aloud: bool = False) -> None:
        if aloud and not self._bar.shown:
            self._say(escape(what))
        self._bar.show(what, figures, done, total or None)


def show_end(
    console: Console,
    display: TrialDisplay,
    outcome: Outcome,
    run_dir: Path,
    log_lines: Sequence[str],
    extra: Sequence[str] = (),
) -> None:
    """The table of epochs, how the trial ended, and where its records are."""
    if display.epochs:
        simulated = bool(display.started.get("simulated"))
        console.print(epoch_table(display.epochs, display.blocks, simulated=simulated))
        for words in quality_words(display.blocks or display.epochs):
            console.print(f"joules are {words}", highlight=False, soft_wrap=True)
        for words in disturbed_words([*display.blocks, display.whole]):
            console.print(words, highlight=False, soft_wrap=True)
    if outcome.status == "failed":
        for line in () if outcome.explained else log_lines:
            console.print(f"  [dim]{escape(line)}[/dim]", highlight=False, soft_wrap=True)
        console.print(f"log: {escape(str(run_dir / 'trial.log'))}", highlight=False, soft_wrap=True)
    if outcome.error is not None:
        said = outcome.error.removeprefix(f"{outcome.status} ")
        console.print(f"[red]{outcome.status}:[/red] {escape(said)}", highlight=False, soft_wrap=True)
    for line in extra:
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"records: {escape(str(run_dir))}", highlight=False, soft_wrap=True)


def epoch_table(
    epochs: Sequence[Mapping[str, Any]], blocks: Sequence[Mapping[str, Any]] = (), *, simulated: bool
) -> Table:
    """One row for each epoch; what was not recorded is a dash. A block of several epochs stands in its last row."""
    table = Table(title="simulated" if simulated else None, title_justify="left")
    for name in ("epoch", "joules", "net of idle", "± J", "seconds", "images/s", "loss", "test accuracy"):
        table.add_column(name, justify="right")
    for row in epochs:
        block = block_of(row, blocks)
        ends = block is not None and row["epoch"] == block["last_epoch"]
        counted = block if block is not None and ends else row
        table.add_row(
            f"{row['epoch']} ({epochs_of(counted)})" if ends else str(row["epoch"]),
            joules(counted.get("gross_j")),
            joules(counted.get("net_j")),
            joules(counted.get("bound_j")),
            f"{row['seconds']:.3f}",
            f"{row['images'] / row['seconds']:,.0f}" if row["seconds"] else NOTHING,
            number(row.get("loss"), ".4f"),
            number(row.get("accuracy"), ".4f"),
        )
    return table


def block_of(row: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The block of several epochs that an epoch's joules were counted with; None where they are its own."""
    for block in blocks:
        last = block.get("last_epoch", block["epoch"])
        if block["epoch"] <= row["epoch"] <= last and last > block["epoch"]:
            return block
    return None


def epochs_of(block: Mapping[str, Any]) -> str:
    """The epochs of a block in words."""
    return f"{block['epoch']} to {block['last_epoch']}"


def quality_words(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the joules of these epochs or blocks are, in words; several lines where they differ or are too short."""
    found = dict.fromkeys(row.get("quality") for row in epochs)
    words = ["not recorded" if quality is None else QUALITY_WORDS[quality] for quality in found]
    short = [
        epochs_of(row) if row.get("last_epoch", row["epoch"]) > row["epoch"] else str(row["epoch"])
        for row in epochs
        if row.get("resolvable") is False
    ]
    if short:
        words.append(
            f"not resolvable in epochs {', '.join(short)}: shorter than three periods of the counter"
        )
    return words


def disturbed_words(windows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line where other work disturbed windows."""
    disturbed = [window["foreign_cores"] for window in windows if window.get("disturbed")]
    if not disturbed:
        return []
    return [
        f"disturbed: up to {max(disturbed):.2f} cores were busy with other work in a window, whose joules and "
        "seconds are of that, too"
    ]


def _without_stamp(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("event", "t_mono_ns")}


def joules(value: float | None) -> str:
    """Joules with as many digits as they deserve."""
    if value is None:
        return NOTHING
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:#.3g}"


def number(value: float | None, form: str) -> str:
    """A number in the given format, or a dash."""
    return NOTHING if value is None else format(value, form)


def rate(images: int, seconds: float) -> str:
    """Images per second."""
    return f"{images / seconds:,.0f} images/s" if seconds else f"{NOTHING} images/s"
