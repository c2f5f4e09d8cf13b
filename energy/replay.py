"""Replays a recorded run's counters: the same values, as far apart as they were, with gaps where there were gaps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from energy.counters import BREAKS
from energy.source import Channel, Quality, ReadError, Reading, Source, SourceUnavailableError
from energy.stream import StreamError, read_stream

if TYPE_CHECKING:
    import pandas as pd

FILES = ("power.parquet", "power.stream")
"""What a run's folder keeps its power in: once it has ended, and before."""

_TOGETHER_NS = 1_000_000_000
_REMEDY = "name a run's folder, or its power.parquet or power.stream, by energy.settings.replay.path"


@final
@dataclass(frozen=True)
class _Track:
    """One channel's records in order of time; `raw` is -1 where nothing was read."""

    channel: Channel
    t_ns: np.ndarray
    raw: np.ndarray
    breaks: np.ndarray
    """How many records so far say that joules are not known."""
    spacing_ns: int
    """The longest time between two readings without a break between them."""

    @property
    def first_ns(self) -> int:
        return int(self.t_ns[np.argmax(self.raw >= 0)])


@final
class ReplaySource(Source):
    """Shows at each moment since `open` what a recorded run's counters showed then.

    `path` is a run's folder, or its `power.parquet` or `power.stream`. Channels are those of its counters,
    `replay:rapl:package-0`, with the recorded unit, wrap, component and total; their period is longer by the
    recording's longest step. A reading has the time of the record, moved to this run.
    Where the recording has a gap, and after its end, a channel cannot be read.

    Its quality is `modelled`, whatever stood behind the recording: none of this run's joules was measured.
    Channels of the power model have no counter and are left out.
    """

    name = "replay"
    quality: Quality = "modelled"

    def __init__(
        self, *, path: str | Path | None = None, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._path = None if path is None else Path(path)
        self._monotonic_ns = monotonic_ns
        self._tracks: list[_Track] = []
        self._given: dict[str, int] = {}
        self._offset_ns = 0

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(track.channel for track in self._tracks)

    def open(self) -> None:
        self.close()
        if self._path is None:
            raise SourceUnavailableError("replay", "no recording is named", _REMEDY)
        frame = _load(self._path)
        described = frame.attrs["channels"]
        counters = {name: about for name, about in described.items() if "unit_j" in about}
        self.left_out = tuple(
            (f"replay:{name}", "it is the power model's: there is no counter to replay")
            for name in described
            if name not in counters
        )
        tracks = [
            _track(name, about, frame[frame["channel"] == name], self._path)
            for name, about in counters.items()
        ]
        self._tracks = [track for track in tracks if (track.raw >= 0).any()]
        if not self._tracks:
            raise SourceUnavailableError("replay", f"{self._path} holds no reading of a counter", _REMEDY)
        firsts_ns = [track.first_ns for track in self._tracks]
        # The first sample reads one channel after the other: begin when all of them have been read.
        start_ns = max(t_ns for t_ns in firsts_ns if t_ns <= min(firsts_ns) + _TOGETHER_NS)
        self._offset_ns = self._monotonic_ns() - start_ns
        self._given = {}

    def close(self) -> None:
        self._tracks = []

    def read(self) -> list[Reading]:
        if not self._tracks:
            raise ReadError("replay", {"all channels": "the source is not open"})
        now_ns = self._monotonic_ns() - self._offset_ns
        readings = []
        failed = {}
        for track in self._tracks:
            try:
                readings.append(self._reading(track, now_ns))
            except LookupError as error:
                failed[track.channel.name] = str(error.args[0])
        if failed:
            raise ReadError("replay", failed, readings)
        return readings

    def _reading(self, track: _Track, now_ns: int) -> Reading:
        """The channel at a time of the recording's clock; LookupError where it is not known."""
        name = track.channel.name
        index = int(np.searchsorted(track.t_ns, now_ns, side="right")) - 1
        if index < 0:
            raise LookupError("the recording has not read it yet")
        since_end_ns = now_ns - int(track.t_ns[-1])
        if since_end_ns > track.spacing_ns:
            raise LookupError(f"the recording has ended {since_end_ns * 1e-9:.3g} s ago")
        before = self._given.get(name, index)
        self._given[name] = index
        if track.raw[index] < 0:
            raise LookupError("it was not read in the recording")
        if track.breaks[index] > track.breaks[before]:
            raise LookupError("the recording has a gap since the last reading")
        return Reading(name, int(track.t_ns[index]) + self._offset_ns, int(track.raw[index]))


def _load(path: Path) -> pd.DataFrame:
    """The records of a run's folder or file."""
    import pandas as pd

    file = path
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).exists()]
        if not found:
            raise SourceUnavailableError("replay", f"{path} has neither {' nor '.join(FILES)}", _REMEDY)
        file = found[0]
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else read_stream(file)
    except OSError as error:
        why = f"{file} cannot be read: {error.strerror or error}"
        raise SourceUnavailableError("replay", why, _REMEDY) from error
    except (StreamError, ValueError) as error:
        raise SourceUnavailableError("replay", f"{file} is no recording: {error}", _REMEDY) from error
    if "channels" not in frame.attrs or not {"t_mono_ns", "channel", "raw", "flags"} <= set(frame.columns):
        raise SourceUnavailableError("replay", f"{file} is no recording of power", _REMEDY)
    return frame


def _track(name: str, about: Mapping[str, Any], records: pd.DataFrame, path: Path) -> _Track:
    records = records.sort_values("t_mono_ns", kind="stable")
    t_ns = records["t_mono_ns"].to_numpy(np.int64)
    raw = records["raw"].fillna(-1).to_numpy(np.int64)
    broken = (raw < 0) | ((records["flags"].to_numpy(np.int64) & int(BREAKS)) != 0)
    breaks = np.cumsum(broken)
    steps_ns = np.diff(t_ns)[np.diff(breaks) == 0]
    spacing_ns = int(steps_ns.max(initial=0))
    recorded_s = float(about["period_s"])
    channel = Channel(
        name=f"replay:{name}",
        component=about["component"],
        in_total=about["in_total"],
        unit_j=about["unit_j"],
        wrap=about["wrap"],
        period_s=recorded_s + spacing_ns * 1e-9,
        device=f"{path}, {about.get('quality', 'unknown')} then: {about.get('device', '')}".rstrip(": "),
        scope=about.get("scope", ""),
    )
    return _Track(channel, t_ns, raw, breaks, max(spacing_ns, round(recorded_s * 1e9)))
