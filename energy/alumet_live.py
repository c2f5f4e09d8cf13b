"""Live joules from Alumet's agent: one that is started here, or the CSV of one that runs already."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import final

from energy.alumet_agent import Agent, GrowingCsv
from energy.alumet_csv import AlumetError, Layout, Row, base_metric, parse_time_ns, parse_value, row_of
from energy.counters import PLAUSIBLE_POWER_W
from energy.source import Channel, Quality, ReadError, Reading, Source, SourceUnavailableError

PLUGINS = {"rapl": "package", "nvml": "gpu"}
"""The agent's plugins that can be asked for, and the component that each must show."""

_UNIT_J = 1e-9
_COUNTS_PER_J = 10**9
_SLACK_S = 1.0
_FUTURE_NS = 50_000_000
_STEP_NS = 50_000_000
_LOOKS = 3
_JITTER_NS = 1_000_000
_DRIFT_PER_S = 0.001  # clocks are slewed by at most half of it


@final
@dataclass
class _Counter:
    """One channel's joules since the source was opened, and the time of its last row."""

    row: Row
    joules: Fraction = Fraction(0)
    t_unix_ns: int | None = None
    t_ns: int = 0
    """The same on the monotonic clock, as the clocks stood when the row was taken."""
    last_text: str = ""
    problem: str | None = None
    """Why the joules since the last reading are not known."""

    def add(self, t_unix_ns: int, t_ns: int, text: str, value: float) -> None:
        """Take a row: the joules since the row before it. Those of the first row were before all readings."""
        before_ns, self.t_unix_ns, self.t_ns = self.t_unix_ns, t_unix_ns, t_ns
        before_text, self.last_text = self.last_text, text
        if before_ns is None:
            return
        elapsed_s = (t_unix_ns - before_ns) * 1e-9
        if elapsed_s < 0:
            self.problem = f"its time went back by {-elapsed_s:.3g} s"
        elif elapsed_s == 0 and text == before_text and value > 0:
            self.problem = "a row came twice"
        elif value * self.row.scale > PLAUSIBLE_POWER_W * (elapsed_s + _SLACK_S):
            self.problem = f"{value * self.row.scale:.6g} J in {elapsed_s:.3g} s: its counter began anew"
        elif self.row.component == "gpu" and value != int(value):
            self.problem = 'its joules are power times time, not a counter: set mode = "full" for nvml'
        else:
            self.joules += Fraction(text) * Fraction(str(self.row.scale))


@final
@dataclass
class _Clocks:
    """Maps the agent's wall clock to the monotonic one, and notices when the wall clock is stepped."""

    wall_ns: Callable[[], int]
    offset_ns: int | None = None
    checked_ns: int = 0
    trusted_from_ns: int = 0
    """Rows of an earlier wall time were stamped before the last step."""

    def check(self) -> str | None:
        """Look at both clocks; the size of a step since the last look, in words."""
        now_ns, wall_ns = self._pair()
        before_ns, self.offset_ns = self.offset_ns, wall_ns - now_ns
        elapsed_ns, self.checked_ns = now_ns - self.checked_ns, now_ns
        if before_ns is None:
            return None
        step_ns = self.offset_ns - before_ns
        if abs(step_ns) <= _STEP_NS + _DRIFT_PER_S * elapsed_ns:
            return None
        self.trusted_from_ns = wall_ns
        return f"the wall clock was stepped by {step_ns * 1e-9:+.3f} s"

    def _pair(self) -> tuple[int, int]:
        """Both clocks at one moment: of a few looks the one that was interrupted least."""
        best_ns, pair = None, (0, 0)
        for _ in range(_LOOKS):
            before_ns, wall_ns, after_ns = time.monotonic_ns(), self.wall_ns(), time.monotonic_ns()
            if best_ns is None or after_ns - before_ns < best_ns:
                best_ns, pair = after_ns - before_ns, ((before_ns + after_ns) // 2, wall_ns)
        return pair

    def t_ns(self, t_unix_ns: int) -> int:
        """The monotonic time of a row, by the clocks as they were last looked at."""
        assert self.offset_ns is not None
        return t_unix_ns - self.offset_ns


@final
class AlumetSource(Source):
    """Reads the RAPL and NVML energy that Alumet's agent writes, while it writes it.

    Without `follow` it starts `command` with `plugins` and ends it on `close`; with it, it follows the CSV
    of an agent that runs already. Channels are `alumet:package-0`, `alumet:package-0/dram`,
    `alumet:gpu-<PCI address>`; cores, uncore and psys are not in the total, the agent's own sums are no channels.

    A reading is the sum of all rows so far, exact to a nJ, at the last row's own time. So it is older than the
    moment of reading, by at most `period_s` = `poll_interval_s` + `flush_interval_s` + `lateness_s`: a window
    reaches from the last row before its start to the last row before its end, and the channel's period makes
    that part of its error bound. A channel whose last row is older is not read: a gap. With `follow`, the
    intervals are those that the other agent was given.
    """

    name = "alumet"
    quality: Quality = "measured"

    def __init__(
        self,
        *,
        command: str = "alumet-agent",
        follow: str | Path | None = None,
        plugins: Sequence[str] = ("rapl",),
        poll_interval_s: float = 0.1,
        flush_interval_s: float = 0.1,
        lateness_s: float = 0.5,
        start_timeout_s: float = 15.0,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        times_s = {
            "poll_interval_s": poll_interval_s,
            "flush_interval_s": flush_interval_s,
            "lateness_s": lateness_s,
            "start_timeout_s": start_timeout_s,
        }
        for option, seconds in times_s.items():
            if not 0 < seconds < float("inf"):
                raise ValueError(f"alumet's {option} must be more than 0 s, got {seconds}")
        if not plugins or not set(plugins) <= set(PLUGINS):
            raise ValueError(f"alumet's plugins must be of {', '.join(PLUGINS)}, got {list(plugins)}")
        self._follow = None if follow is None else Path(follow)
        self._plugins = tuple(plugins)
        self._period_s = poll_interval_s + flush_interval_s + lateness_s
        self._settle_s = poll_interval_s + flush_interval_s
        self._start_timeout_s = start_timeout_s
        self._agent = (
            None if follow is not None else Agent(command, plugins, poll_interval_s, flush_interval_s)
        )
        self._wall_ns = wall_ns
        self._reset()

    def _reset(self) -> None:
        self._csv: GrowingCsv | None = None
        self._clocks = _Clocks(self._wall_ns)
        self._rows: dict[tuple[str, ...], Row | None] = {}
        self._counters: dict[str, _Counter] = {}
        self._channels: tuple[Channel, ...] = ()
        self._given_ns: dict[str, int] = {}

    @property
    def channels(self) -> tuple[Channel, ...]:
        return self._channels

    def open(self) -> None:
        self.close()
        try:
            if self._agent is not None:
                self._agent.start()
            path = self._agent.output if self._agent is not None else self._follow
            assert path is not None
            self._csv = GrowingCsv(path, recent=self._follow is not None)
            self._clocks.check()
            self._wait_for_channels()
        except AlumetError as error:
            self.close()
            raise self._unavailable(str(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        csv, agent = self._csv, self._agent
        self._reset()
        if csv is not None:
            csv.close()
        if agent is not None:
            agent.stop()

    def read(self) -> list[Reading]:
        if not self._channels:
            raise ReadError("alumet", {"all channels": "the source is not open"})
        why = self._take()
        if why is not None:
            raise ReadError("alumet", {channel.name: why for channel in self._channels})
        now_ns = time.monotonic_ns()
        readings: list[Reading] = []
        failed = {}
        for channel in self._channels:
            counter = self._counters[channel.name]
            problem = self._problem(channel.name, counter, now_ns)
            if problem is not None:
                failed[channel.name] = problem
                continue
            # Two looks at the clocks differ by what came between them.
            t_ns = self._given_ns[channel.name] = max(counter.t_ns, self._given_ns.get(channel.name, 0))
            readings.append(Reading(channel.name, t_ns, int(counter.joules * _COUNTS_PER_J)))
        failed |= self._unannounced()
        if failed:
            raise ReadError("alumet", failed, readings)
        return readings

    def _problem(self, name: str, counter: _Counter, now_ns: int) -> str | None:
        """Why a channel's counter cannot be given as it stands; told once where it is over then."""
        problem, counter.problem = counter.problem, None
        if problem is not None:
            return problem
        assert counter.t_unix_ns is not None
        t_ns = counter.t_ns
        if counter.t_unix_ns < self._clocks.trusted_from_ns:
            return "the wall clock was stepped, and no row came since"
        if t_ns > now_ns + _FUTURE_NS:
            return f"its last row is {(t_ns - now_ns) * 1e-9:.3g} s in the future"
        if now_ns - t_ns > self._period_s * 1e9:
            return f"its last row is {(now_ns - t_ns) * 1e-9:.3g} s old, more than {self._period_s:g} s"
        if t_ns < self._given_ns.get(name, t_ns) - _JITTER_NS:
            self._given_ns.pop(name)
            return "its time went back, by the change of a clock"
        return None

    def _unannounced(self) -> dict[str, str]:
        """Channels that were not there when the source was opened; told once."""
        known = {channel.name for channel in self._channels}
        return {
            name: "it appeared after the start and is not counted"
            for name in [name for name in self._counters if name not in known]
            if self._counters.pop(name).row.in_total
        }

    def _take(self) -> str | None:
        """Add up the rows that are there by now; why none of the channels can be read."""
        assert self._csv is not None
        if self._agent is not None and (ended := self._agent.ended()) is not None:
            return ended
        stepped = self._clocks.check()
        try:
            lines = self._csv.lines()
        except AlumetError as error:
            return str(error)
        why = stepped
        for line in lines:
            assert self._csv.layout is not None
            try:
                self._add(self._csv.layout, line)
            except ValueError as error:
                why = str(error)
        return why

    def _add(self, layout: Layout, line: str) -> None:
        """Take one line; `ValueError` where it may have held joules of any channel."""
        fields = layout.fields(line)
        if fields is None:
            if any(base_metric(word) for word in line.replace('"', "").split(layout.delimiter)):
                raise ValueError(f"a line with the wrong number of fields: {line[:120]!r}")
            return
        identity = tuple(fields[name] for name in layout.identity)
        if identity not in self._rows:
            self._rows[identity] = row_of(dict(zip(layout.identity, identity, strict=True)))
        row = self._rows[identity]
        if row is None or row.is_power:
            return
        counter = self._counters.setdefault(row.name, _Counter(row))
        t_unix_ns, value = parse_time_ns(fields["timestamp"]), parse_value(fields["value"])
        if t_unix_ns is None or value is None:
            counter.problem = f"a row says {fields['value']!r} J at {fields['timestamp']!r}"
        else:
            counter.add(t_unix_ns, self._clocks.t_ns(t_unix_ns), fields["value"], value)

    def _wait_for_channels(self) -> None:
        """Wait until every plugin has shown its component, and a little longer for the rest."""
        deadline_s = time.monotonic() + self._start_timeout_s
        settled_s = None
        while settled_s is None or time.monotonic() < settled_s:
            why = self._take()
            if why is not None:
                raise self._unavailable(why)
            shown = {
                counter.row.component for counter in self._counters.values() if counter.t_unix_ns is not None
            }
            missing = self._missing(shown)
            if settled_s is None and not missing:
                settled_s = time.monotonic() + self._settle_s
            if settled_s is None and time.monotonic() > deadline_s:
                where = self._follow or "the agent"
                raise self._unavailable(
                    f"{where} wrote no row of {' and no row of '.join(missing)} in {self._start_timeout_s:g} s"
                )
            time.sleep(min(0.02, self._settle_s))
        self._announce()

    def _missing(self, shown: set[str]) -> list[str]:
        if self._follow is not None:
            return [] if shown & set(PLUGINS.values()) else ["joules"]
        return [component for plugin in self._plugins if (component := PLUGINS[plugin]) not in shown]

    def _announce(self) -> None:
        now_ns = time.monotonic_ns()
        known = [counter for counter in self._counters.values() if counter.t_unix_ns is not None]
        newest_ns = max(counter.t_ns for counter in known)
        if now_ns - newest_ns > self._period_s * 1e9:
            raise self._unavailable(
                f"the last row is {(now_ns - newest_ns) * 1e-9:.3g} s old: no agent writes any more"
            )
        self._channels = tuple(
            Channel(
                name=counter.row.name,
                component=counter.row.component,
                in_total=counter.row.in_total,
                unit_j=_UNIT_J,
                wrap=None,
                period_s=self._period_s,
                device=counter.row.device,
            )
            for counter in sorted(known, key=lambda counter: counter.row.name)
        )
        for counter in known:
            counter.problem = None

    def _unavailable(self, why: str) -> SourceUnavailableError:
        if self._follow is not None:
            remedy = (
                f"run `alumet-agent --plugins rapl,csv --output-file {self._follow} run`, and set "
                "energy.settings.alumet.poll_interval_s and flush_interval_s to that agent's"
            )
        else:
            remedy = "see that `alumet-agent --plugins " + ",".join(self._plugins) + ",csv run` works"
        return SourceUnavailableError("alumet", why, remedy)
