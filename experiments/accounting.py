"""The joules of a trial's windows, and the tables that they, the tasks and the epochs go to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dahl import starpu
from energy import EnergySession, LivePage, PowerModel, PowerStream, Window, WindowEnergy
from experiments.events import EventWriter
from experiments.tables import TableStream, power_stream_path

TASKS = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("task", pa.int64()),
        ("codelet", pa.string()),
        ("tile", pa.int64()),
        ("worker", pa.int32()),
        ("submit_s", pa.float64()),
        ("ready_s", pa.float64()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("predicted_s", pa.float64()),
        ("predicted_j", pa.float64()),
    ]
)
"""Seconds on StarPU's clock (`windows` ties it to the others); joules net of idle; NaN: not predicted."""

DECISIONS = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("decision", pa.int64()),
        ("task", pa.int64()),
        ("codelet", pa.string()),
        ("asker", pa.int32()),
        ("worker", pa.int32()),
        ("chosen", pa.bool_()),
        ("now_s", pa.float64()),
        ("length_s", pa.float64()),
        ("energy_j", pa.float64()),
        ("transfer_s", pa.float64()),
        ("available_s", pa.float64()),
        ("score", pa.float64()),
    ]
)
"""A row per candidate of each decision. `asker`: the idle worker of a pull policy, -1 for placement. Where no candidate
is chosen the asker was left idle, and `task` is the oldest one that it left."""

WINDOWS = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("channel", pa.string()),
        ("in_total", pa.bool_()),
        ("seconds", pa.float64()),
        ("gross_j", pa.float64()),
        ("idle_j", pa.float64()),
        ("net_j", pa.float64()),
        ("bound_j", pa.float64()),
        ("quality", pa.string()),
        ("complete", pa.bool_()),
        ("resolvable", pa.bool_()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("start_t_mono_ns", pa.int64()),
        ("end_t_mono_ns", pa.int64()),
    ]
)
"""A row per window and channel. `start_s`, `end_s`: StarPU's clock; `_t_mono_ns`: `time.monotonic_ns`."""

EPOCH_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("epoch", pa.int32()),
    ("images", pa.int64()),
    ("seconds", pa.float64()),
    ("loss", pa.float64()),
    ("test_loss", pa.float64()),
    ("accuracy", pa.float64()),
    ("gross_j", pa.float64()),
    ("net_j", pa.float64()),
    ("bound_j", pa.float64()),
    ("quality", pa.string()),
    ("resolvable", pa.bool_()),
]
"""Joules are totals over the channels in the total; each channel's own follow as `<channel>_gross_j`..."""


_STALE_S = 5.0
"""Live watts that are older are not shown."""


@dataclass
class OpenWindow:
    """A window that is being counted; `energy` is there once its block is left."""

    window: Window
    start_s: float
    energy: WindowEnergy | None = None


class Meter:
    """Counts the joules of one window after another, and writes their tasks and joules down."""

    def __init__(
        self,
        run_dir: Path,
        runtime: starpu.Runtime,
        session: EnergySession,
        events: EventWriter,
        *,
        write_tasks: bool,
        write_decisions: bool,
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._events = events
        self._windows = TableStream(run_dir, "windows", WINDOWS)
        self._tasks = TableStream(run_dir, "tasks", TASKS) if write_tasks else None
        self._decisions = TableStream(run_dir, "decisions", DECISIONS) if write_decisions else None
        self.channels = (*session.channels, *session.model_channels)

    @contextmanager
    def window(self, name: str, epoch: int = 0) -> Iterator[OpenWindow]:
        """Count the block, which must leave no task behind; `epoch` is 0 outside of epochs.

        A block that raises is not counted: its joules would be those of something else.
        """
        start_s = self._runtime.now_s()
        counted = OpenWindow(self._session.open_window(name, epoch), start_s)
        yield counted
        counted.window.stop()
        end_s = self._runtime.now_s()
        tasks = self._take_tasks()
        counted.energy = counted.window.close(tasks, start_s, end_s)
        self._write(counted.energy, tasks, start_s, end_s)
        self._write_decisions(name, epoch)
        energy = counted.energy
        self._events.emit("window", window=name, epoch=epoch, seconds=energy.seconds, gross_j=energy.total_j)
        self._tell_trouble(energy)

    def _tell_trouble(self, energy: WindowEnergy) -> None:
        """Say at once that a window has no joules, and why; training goes on."""
        if self._session.trouble is not None and any(not part.complete for part in energy.channels.values()):
            self._events.emit(
                "notice", message=f"incomplete joules of {energy.name}: {self._session.trouble}"
            )

    def live_w(self) -> float | None:
        """Watts over about the last second, over the counters in the total; None where there are none."""
        live = self._session.live()
        in_total = [name for name, channel in self._session.channels.items() if channel.in_total]
        if not in_total or any(name not in live or live[name].age_s > _STALE_S for name in in_total):
            return None
        return sum(live[name].watts for name in in_total)

    def close(self) -> None:
        """End the tables."""
        self._windows.close()
        for table in (self._tasks, self._decisions):
            if table is not None:
                table.close()

    def _take_tasks(self) -> dict[str, Any]:
        """The tasks that ended since the last call, by column, with the codelets' names."""
        records = self._runtime.take_trace()
        return {**self._columns(records), "tile": np.ascontiguousarray(records["tag"])}

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

    def _write(self, energy: WindowEnergy, tasks: Mapping[str, Any], start_s: float, end_s: float) -> None:
        if self._tasks is not None and len(tasks["task"]):
            count = len(tasks["task"])
            where = {"window": [energy.name] * count, "epoch": np.full(count, energy.index, np.int32)}
            self._tasks.append({**tasks, **where})
        for name, channel in energy.channels.items():
            self._windows.append_row(
                {
                    "window": energy.name,
                    "epoch": energy.index,
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


def epoch_schema(channels: tuple[str, ...]) -> pa.Schema:
    """The columns of `epochs`, with those of each channel."""
    own = [
        (f"{channel}_{kind}_j", pa.float64()) for channel in channels for kind in ("gross", "net", "bound")
    ]
    return pa.schema(EPOCH_COLUMNS + own)


def energy_columns(energy: WindowEnergy) -> dict[str, Any]:
    """What a window's joules add to its epoch's row; None for what is not known."""
    row: dict[str, Any] = {
        "gross_j": energy.total_j,
        "net_j": energy.total_net_j,
        "bound_j": energy.total_bound_j,
        "quality": energy.quality,
        "resolvable": energy.resolvable,
    }
    for name, channel in energy.channels.items():
        row[f"{name}_gross_j"] = channel.gross_j
        row[f"{name}_net_j"] = channel.net_j
        row[f"{name}_bound_j"] = channel.bound_j
    return row


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
