"""Imports a recording of Alumet: the joules of a CSV that its agent wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from energy.alumet_blocks import Block, BlockReader
from energy.alumet_csv import AlumetError, Row
from energy.counters import PLAUSIBLE_POWER_W
from energy.source import Quality

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AlumetChannel", "AlumetError", "AlumetRecording", "ClockPair", "import_recording"]

_SLACK_S = 1.0
"""Rows may be this much closer than the readings behind them."""
_FIRST_S = 3600.0
"""The longest time that a channel's first row may stand for, which no row says."""


@final
@dataclass(frozen=True, slots=True)
class ClockPair:
    """One moment on both clocks: `time.monotonic_ns()` and `time.time_ns()`."""

    t_mono_ns: int
    t_unix_ns: int


@final
@dataclass(frozen=True, slots=True)
class AlumetChannel:
    """What a recording holds of one channel."""

    name: str
    component: str
    in_total: bool
    joules: float
    rows: int
    integrated: bool
    """Whether the agent summed up a GPU's power (`mode = "minimal"`) instead of reading its counter."""
    device: str


@final
@dataclass(frozen=True)
class AlumetRecording:
    """The joules of a recording: package and dram of each socket, and each GPU, once."""

    path: Path
    channels: dict[str, AlumetChannel]
    """By name. Not in the total: cores, uncore and psys, which packages cover or which cover packages."""
    rows_read: int
    """All of the file's whole lines after the header."""
    rows_lost: int
    """Rows with joules or watts that could not be read, or cannot be (a counter that began anew)."""
    lost: dict[str, int]
    """Why, and how many."""
    rows_repeated: int
    """Rows that repeat the channel, time and value of the row before; counted once."""
    backward_steps: int
    """How often a channel's time went back: a stepped clock, or files put one after the other."""
    torn_bytes: int
    """Of a last line without an end; it is not read, for nobody knows how it would have gone on."""
    not_counted: tuple[str, ...]
    """Metrics of energy that are in the file and are not read."""
    start_t_unix_ns: int | None
    end_t_unix_ns: int | None
    clocks: tuple[ClockPair, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether there are joules and none of them are known to be missing."""
        return self.rows_lost == 0 and any(channel.in_total for channel in self.channels.values())

    @property
    def read_j(self) -> float:
        """The joules in the total that were read, whatever is missing."""
        return float(sum(channel.joules for channel in self.channels.values() if channel.in_total))

    @property
    def total_j(self) -> float | None:
        """Package, dram and GPU joules; None where rows are lost or there are none (see `read_j`)."""
        return self.read_j if self.complete else None

    @property
    def quality(self) -> Quality | None:
        """`measured`, as all that is read here; None without a total."""
        return "measured" if any(channel.in_total for channel in self.channels.values()) else None

    @property
    def seconds(self) -> float | None:
        """From the first row of joules to the last; the first row's own span is before that."""
        if self.start_t_unix_ns is None or self.end_t_unix_ns is None:
            return None
        return (self.end_t_unix_ns - self.start_t_unix_ns) * 1e-9

    def t_mono_ns(self, t_unix_ns: int) -> int:
        """A time of the recording on the monotonic clock: by one pair of clocks, or between several.

        `ValueError` without any.
        """
        if not self.clocks:
            raise ValueError(
                f"{self.path} was imported without a pair of clocks: pass clocks=[ClockPair(...)]"
            )
        known = sorted(self.clocks, key=lambda pair: pair.t_unix_ns)
        first, last = known[0], known[-1]
        since_ns = t_unix_ns - first.t_unix_ns
        if last.t_unix_ns == first.t_unix_ns:
            return first.t_mono_ns + since_ns
        # Integers: a double holds no nanoseconds of today.
        span_ns, slope_ns = last.t_unix_ns - first.t_unix_ns, last.t_mono_ns - first.t_mono_ns
        return first.t_mono_ns + since_ns * slope_ns // span_ns

    def powers(self) -> Iterator[pd.DataFrame]:
        """The power trace, read from the file anew, block by block.

        Columns: `t_unix_ns` (int64), `channel` (str), `joules` since the channel's row before and `watts`
        (float64, NaN where not known). A GPU's power at one moment is `<channel>/instant`, without joules.
        """
        import pandas as pd

        tallies: dict[str, _Tally] = {}
        for block in BlockReader(self.path):
            if block.row.is_power:
                joules, watts = np.full(len(block.values), np.nan), block.values * block.row.scale
                name = f"{block.row.name}/instant"
            else:
                name = block.row.name
                joules, watts = tallies.setdefault(name, _Tally(block.row)).add(block)
            columns = {"t_unix_ns": block.t_unix_ns, "channel": name, "joules": joules, "watts": watts}
            yield pd.DataFrame(columns)

    def power_frame(self) -> pd.DataFrame:
        """`powers` in one frame, ordered by time."""
        import pandas as pd

        frames = list(self.powers())
        if not frames:
            return pd.DataFrame({"t_unix_ns": [], "channel": [], "joules": [], "watts": []})
        return pd.concat(frames, ignore_index=True).sort_values("t_unix_ns", kind="stable", ignore_index=True)


def import_recording(path: Path | str, clocks: Sequence[ClockPair] = ()) -> AlumetRecording:
    """The joules of a CSV that Alumet's agent wrote, of any version from 0.9.0 to 0.9.5.

    Reads the file once, in blocks, while the agent may still be writing to it. `clocks` ties its times to
    the monotonic clock. Raises `AlumetError` for a file that is not Alumet's or cannot be read.
    """
    reader = BlockReader(Path(path))
    tallies: dict[str, _Tally] = {}
    for block in reader:
        if not block.row.is_power:
            tallies.setdefault(block.row.name, _Tally(block.row)).add(block)
    for tally in tallies.values():
        reader.lost.add(
            f"more than {PLAUSIBLE_POWER_W / 1000:g} kW: a counter that began anew", tally.implausible
        )
    starts = [tally.start_ns for tally in tallies.values()]
    ends = [tally.end_ns for tally in tallies.values()]
    return AlumetRecording(
        path=reader.path,
        channels={name: tallies[name].channel() for name in sorted(tallies)},
        rows_read=reader.rows_read,
        rows_lost=reader.lost.rows,
        lost=dict(reader.lost.reasons),
        rows_repeated=sum(tally.repeated for tally in tallies.values()),
        backward_steps=sum(tally.backward for tally in tallies.values()),
        torn_bytes=reader.torn_bytes,
        not_counted=tuple(sorted(reader.not_counted)),
        start_t_unix_ns=min(starts, default=None),
        end_t_unix_ns=max(ends, default=None),
        clocks=tuple(clocks),
    )


@final
class _Tally:
    """Adds up one channel's rows, which come block by block."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._joules = 0.0
        self._rows = 0
        self._whole = True
        self._last: tuple[int, float] | None = None
        self.repeated = self.backward = self.implausible = 0
        self.start_ns = self.end_ns = 0

    def add(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Count a block; its joules and watts by row, NaN where they are not known."""
        times_ns, values = block.t_unix_ns, block.values
        first = self._last is None
        last_ns, last_value = self._last or (int(times_ns[0]), np.nan)
        self._last = int(times_ns[-1]), float(values[-1])
        steps_ns = np.diff(times_ns, prepend=last_ns)
        repeated = (steps_ns == 0) & (np.diff(values, prepend=last_value) == 0) & (values > 0)
        joules = values * block.row.scale
        spans_s = np.maximum(steps_ns, 0) * 1e-9 + _SLACK_S
        if first:
            spans_s[0] = _FIRST_S
        implausible = joules > PLAUSIBLE_POWER_W * spans_s
        counted = ~(repeated | implausible)
        self.repeated += int(repeated.sum())
        self.backward += int((steps_ns < 0).sum())
        self.implausible += int(implausible.sum())
        self._whole = self._whole and bool((values == np.floor(values)).all())
        self._joules += float(joules[counted].sum())
        self._rows += len(values)
        self.start_ns = int(times_ns.min()) if first else min(self.start_ns, int(times_ns.min()))
        self.end_ns = max(self.end_ns, int(times_ns.max()))
        joules = np.where(counted, joules, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            watts = np.where(steps_ns > 0, joules / (steps_ns * 1e-9), np.nan)
        return joules, watts

    def channel(self) -> AlumetChannel:
        """What was counted. NVML counts whole mJ: a fraction is power times time, summed up by the agent."""
        row = self._row
        integrated = row.component == "gpu" and not self._whole
        return AlumetChannel(
            row.name, row.component, row.in_total, self._joules, self._rows, integrated, row.device
        )
