"""The joules of a trial's windows, and the tables that they, the tasks and the epochs go to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from energy import (
    EnergySession,
    LivePage,
    PowerModel,
    PowerStream,
    Snapshot,
    Transfers,
    Window,
    WindowEnergy,
    break_down,
)
from experiments.cpu_time import CpuTime
from experiments.engine import Engine
from experiments.events import EventWriter
from experiments.guard import DisturbedError, Guard, Load, Reading
from experiments.schemas import BREAKDOWN, DECISIONS, GUARD, TASKS, TRANSFERS, WINDOWS
from experiments.tables import TableStream, power_stream_path

Mark = tuple[Snapshot, float]
"""The counters as read, and the clock of the tasks."""


@dataclass(frozen=True)
class BatchRange:
    """Mini-batches of one epoch, numbered from 1, with the marks at which they began and were done."""

    epoch: int
    first: int
    last: int
    begin: Mark
    end: Mark


_STALE_S = 5.0
"""Live watts that are older are not shown."""


@dataclass
class OpenWindow:
    """A window that is being counted; `energy` is there once it is closed."""

    window: Window
    name: str
    epoch: int
    start_s: float
    energy: WindowEnergy | None = None
    load: Reading | None = None
    """The machine's load when the window began, where it is guarded."""
    epoch_starts_s: list[float] = field(default_factory=list)
    """On StarPU's clock, where the window holds several epochs."""
    ranges: list[BatchRange] = field(default_factory=list)


class Meter:
    """Counts the joules of one window after another, and writes their tasks and joules down.

    With `cpu_time` the power model counts from the process's CPU time, otherwise from the tasks.
    """

    def __init__(
        self,
        run_dir: Path,
        runtime: Engine,
        session: EnergySession,
        events: EventWriter,
        *,
        write_tasks: bool,
        write_decisions: bool,
        write_transfers: bool = False,
        link_joule_per_byte: np.ndarray | None = None,
        guard: Guard | None = None,
        refuse_disturbed: bool = False,
        cpu_time: CpuTime | None = None,
    ) -> None:
        self._runtime = runtime
        self._guard, self._refuse_disturbed = guard, refuse_disturbed
        self._loads = TableStream(run_dir, "guard", GUARD) if guard else None
        self._cpu_time = cpu_time
        self._link_joule_per_byte = link_joule_per_byte
        self._session = session
        self._events = events
        self._windows = TableStream(run_dir, "windows", WINDOWS)
        # CPU time does not say what it was used for.
        self._breakdown = TableStream(run_dir, "breakdown", BREAKDOWN) if cpu_time is None else None
        self._tasks = TableStream(run_dir, "tasks", TASKS) if write_tasks else None
        self._decisions = TableStream(run_dir, "decisions", DECISIONS) if write_decisions else None
        self._transfers = TableStream(run_dir, "transfers", TRANSFERS) if write_transfers else None
        self._moved_bytes = 0
        self.channels = (*session.channels, *session.model_channels)

    @property
    def moved_bytes(self) -> int | None:
        """Bytes between main memory and GPUs in the windows of epochs so far; None where there is but one memory."""
        return None if self._transfers is None else self._moved_bytes

    @property
    def counts(self) -> bool:
        """Whether a counter in the total is read, so that a window can be too short to resolve."""
        return any(channel.in_total for channel in self._session.channels.values())

    @contextmanager
    def window(self, name: str, epoch: int = 0) -> Iterator[OpenWindow]:
        """Count the block, which must leave no task behind; `epoch` is 0 outside of epochs.

        A block that raises is not counted: its joules would be those of something else.
        """
        opened = self.open(name, epoch)
        yield opened
        self.close_window(opened)

    @contextmanager
    def around(self, name: str) -> Iterator[OpenWindow]:
        """Count the block around other windows, and the time between them."""
        opened = self.open(name, 0)
        yield opened
        end_s = self._runtime.now_s()
        load = self._load(opened)
        opened.energy = opened.window.close(start_s=opened.start_s, end_s=end_s)
        self._write(opened.energy, opened.start_s, end_s, last_epoch=0)
        self._write_load(opened, load, 0)
        self._tell(opened.energy, 0, load)
        self._refuse(opened, load)

    def open(self, name: str, epoch: int) -> OpenWindow:
        """Begin a window, to be ended by `close_window`."""
        load = self._guard.read() if self._guard else None
        start_s = self._runtime.now_s()
        self._mark_cpu_time()
        return OpenWindow(self._session.open_window(name, epoch), name, epoch, start_s, load=load)

    def mark(self) -> Mark:
        """Read the counters now, for a range inside of a window."""
        self._mark_cpu_time()
        return self._session.snapshot(), self._runtime.now_s()

    def close_window(self, opened: OpenWindow) -> WindowEnergy:
        """End a window in which no task is left, and write down what it cost and what ran in it."""
        opened.window.stop()
        self._mark_cpu_time()
        end_s = self._runtime.now_s()
        load = self._load(opened)
        tasks = self._take_tasks()
        activity = {**tasks, **self._take_transfers(opened.start_s, end_s)}
        if self._cpu_time is not None:
            activity = dict(self._cpu_time.take())
        energy = opened.energy = opened.window.close(activity, opened.start_s, end_s)
        last_epoch = opened.epoch + max(0, len(opened.epoch_starts_s) - 1)
        self._write_transfers(opened, last_epoch)
        self._write(energy, opened.start_s, end_s, last_epoch=last_epoch)
        self._write_tasks(opened, tasks)
        self._write_batches(opened, activity)
        self._write_breakdown(energy, activity, opened.start_s, end_s, last_epoch)
        self._write_decisions(opened.name, opened.epoch)
        self._write_load(opened, load, last_epoch)
        self._tell(energy, last_epoch, load)
        self._tell_trouble(energy)
        self._refuse(opened, load)
        return energy

    def _load(self, opened: OpenWindow) -> Load | None:
        """What else has run since the window was opened; None where it is not guarded."""
        if self._guard is None or opened.load is None:
            return None
        return self._guard.load(opened.load, self._guard.read())

    def _write_load(self, opened: OpenWindow, load: Load | None, last_epoch: int) -> None:
        if load is not None and self._loads is not None:
            where = {"window": opened.name, "epoch": opened.epoch, "last_epoch": last_epoch}
            self._loads.append_row({**where, **asdict(load)})

    def _refuse(self, opened: OpenWindow, load: Load | None) -> None:
        """Raise DisturbedError for a disturbed block of epochs, or all of them, where those are refused."""
        if not self._refuse_disturbed or load is None or not load.disturbed:
            return
        if opened.name in ("epoch", "run"):
            raise DisturbedError(
                f"guard=refuse: {load.words} in the window '{opened.name}' (epoch {opened.epoch}); "
                "guard=label goes on and says so"
            )

    def _tell_trouble(self, energy: WindowEnergy) -> None:
        """Say at once that a window has no joules, and why; training goes on."""
        if self._session.trouble is not None and any(not part.complete for part in energy.channels.values()):
            self._events.emit(
                "notice", message=f"incomplete joules of {energy.name}: {self._session.trouble}"
            )

    def note_cpu_time(self) -> None:
        """Let the power trace follow the CPU time, where it is what counts; to be called often."""
        if self._cpu_time is not None:
            self._cpu_time.note()

    def _mark_cpu_time(self) -> None:
        if self._cpu_time is not None:
            self._cpu_time.mark()

    def live_w(self) -> float | None:
        """Watts over about the last second, over the counters in the total; None where there are none."""
        live = self._session.live()
        in_total = [name for name, channel in self._session.channels.items() if channel.in_total]
        if not in_total or any(name not in live or live[name].age_s > _STALE_S for name in in_total):
            return None
        return sum(live[name].watts for name in in_total)

    def close(self) -> None:
        """End the tables."""
        for table in (
            self._windows,
            self._loads,
            self._breakdown,
            self._transfers,
            self._tasks,
            self._decisions,
        ):
            if table is not None:
                table.close()

    def _tell(self, energy: WindowEnergy, last_epoch: int, load: Load | None) -> None:
        self._events.emit(
            "window",
            window=energy.name,
            epoch=energy.index,
            last_epoch=last_epoch,
            seconds=energy.seconds,
            gross_j=energy.total_j,
            net_j=energy.total_net_j,
            bound_j=energy.total_bound_j,
            quality=energy.quality,
            resolvable=energy.resolvable,
            foreign_cores=load.foreign_cores + load.stolen_cores if load else None,
            disturbed=load.disturbed if load else None,
        )

    def _take_tasks(self) -> dict[str, Any]:
        """The tasks that ended since the last call, by column, with the codelets' names."""
        records = self._runtime.take_trace()
        return {**self._columns(records), "tile": np.ascontiguousarray(records["tag"])}

    def _take_transfers(self, start_s: float, end_s: float) -> dict[str, Transfers]:
        """What moving data took since the last call, where the platform's links take joules."""
        if self._link_joule_per_byte is None:
            return {}
        joules = float((self._runtime.take_transfers() * self._link_joule_per_byte).sum())
        return {"transfers": Transfers(start_s, end_s, joules)}

    def _write_transfers(self, opened: OpenWindow, last_epoch: int) -> None:
        if self._transfers is None:
            return
        moved = self._runtime.take_transfers()
        self._moved_bytes += int(moved.sum()) if opened.name == "epoch" else 0
        where = {"window": opened.name, "epoch": opened.epoch, "last_epoch": last_epoch}
        for source, target in zip(*moved.nonzero(), strict=True):
            row = {"source": int(source), "target": int(target), "bytes": int(moved[source, target])}
            self._transfers.append_row({**where, **row})

    def _columns(self, records: np.ndarray) -> dict[str, Any]:
        """Records by column, with the codelets' names."""
        names = pa.array([codelet.name for codelet in self._runtime.codelets], pa.string())
        codelet = pa.DictionaryArray.from_arrays(pa.array(records["codelet"]), names).cast(pa.string())
        columns = {name: np.ascontiguousarray(records[name]) for name in records.dtype.fields or {}}
        return {**columns, "codelet": codelet}

    def _write_decisions(self, window: str, epoch: int) -> None:
        if self._decisions is None:
            return
        records = self._runtime.take_decisions()
        where = {"window": [window] * len(records), "epoch": np.full(len(records), epoch, np.int32)}
        self._decisions.append({**self._columns(records), "chosen": records["chosen"] == 1, **where})

    def _write_tasks(self, opened: OpenWindow, tasks: Mapping[str, Any]) -> None:
        count = len(tasks["task"])
        if self._tasks is None or not count:
            return
        epoch = np.full(count, opened.epoch, np.int32)
        if len(opened.epoch_starts_s) > 1:
            epoch += np.searchsorted(opened.epoch_starts_s[1:], tasks["start_s"], side="right").astype(
                np.int32
            )
        self._tasks.append({**tasks, "window": [opened.name] * count, "epoch": epoch})

    def _write_breakdown(
        self, energy: WindowEnergy, tasks: Mapping[str, Any], start_s: float, end_s: float, last_epoch: int
    ) -> None:
        model = self._session.power_model
        if self._breakdown is None or model is None or not len(tasks["task"]):
            return
        found = break_down(model, tasks, start_s, end_s, energy.total_j)
        self._breakdown.append_row(
            {
                "window": energy.name,
                "epoch": energy.index,
                "last_epoch": last_epoch,
                **{f"{name}_j": joules for name, joules in found.parts_j.items()},
                "remainder_j": found.remainder_j,
                "total_j": found.total_j,
                "quality": found.quality,
            }
        )

    def _write_batches(self, opened: OpenWindow, tasks: Mapping[str, Any]) -> None:
        """Count the ranges of mini-batches, now that the tasks are known."""
        for part in opened.ranges:
            (begin, start_s), (end, end_s) = part.begin, part.end
            activity = self._session.activity(tasks, start_s, end_s, begin)
            energy = self._session.count("batches", part.epoch, begin, end, activity)
            self._write(energy, start_s, end_s, last_epoch=part.epoch, batches=(part.first, part.last))

    def _write(
        self,
        energy: WindowEnergy,
        start_s: float,
        end_s: float,
        *,
        last_epoch: int,
        batches: tuple[int, int] | None = None,
    ) -> None:
        for name, channel in energy.channels.items():
            self._windows.append_row(
                {
                    "window": energy.name,
                    "epoch": energy.index,
                    "last_epoch": last_epoch,
                    "first_batch": batches[0] if batches else None,
                    "last_batch": batches[1] if batches else None,
                    "channel": name,
                    "in_total": channel.in_total,
                    "seconds": energy.seconds,
                    "gross_j": channel.gross_j,
                    "idle_j": channel.idle_j,
                    "net_j": channel.net_j,
                    "bound_j": channel.bound_j,
                    "quality": channel.quality,
                    "complete": channel.complete,
                    "resolvable": energy.resolvable,
                    "start_s": start_s,
                    "end_s": end_s,
                    "start_t_mono_ns": energy.start_t_ns,
                    "end_t_mono_ns": energy.end_t_ns,
                }
            )


def open_session(
    run_dir: Path,
    sources: tuple[Any, ...],
    model: PowerModel,
    config: Mapping[str, Any],
    page: LivePage,
    *,
    simulated: bool,
) -> EnergySession:
    """A session, not yet open, over these counters, with the power model for what none of them covers.

    Live watts go to `page`.
    """
    return EnergySession(
        sources,
        model,
        activity_quality="simulated" if simulated else "estimated",
        stream=PowerStream(power_stream_path(run_dir)),
        rate_hz=config["rate_hz"],
        page=page,
    )
