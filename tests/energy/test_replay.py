from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy import (
    Channel,
    CounterTrack,
    EnergySession,
    Flag,
    PowerStream,
    ReadError,
    Reading,
    SourceUnavailableError,
    Step,
    to_parquet,
)
from energy.replay import ReplaySource
from tests.energy.sources import CORE, DRAM, PACKAGE, HandSource

MODEL = {"component": "base", "in_total": True, "quality": "estimated"}
START_NS = 777 * 10**9
STEP_NS = 10**8


def described(*channels: Channel) -> dict[str, dict[str, Any]]:
    """What a session writes into the header of its stream."""
    return {
        channel.name: {**{k: v for k, v in asdict(channel).items() if k != "name"}, "quality": "measured"}
        for channel in channels
    }


def record(path: Path, raws: dict[Channel, list[int | None]], *, model: bool = False) -> Path:
    """A stream with a record of each channel every 0.1 s, as counters follow it; None is a failed reading."""
    stream = PowerStream(path)
    header = described(*raws)
    if model:
        header["model:base"] = MODEL
    stream.declare(header)
    for channel, counts in raws.items():
        track = CounterTrack(channel)
        for index, raw in enumerate(counts):
            t_ns = START_NS + index * STEP_NS
            step = track.miss(t_ns) if raw is None else track.add(Reading(channel.name, t_ns, raw))
            stream.append([(channel.name, step)])
    if model:
        stream.append([("model:base", Step(START_NS, None, 1.5, 15.0, Flag.BY_MODEL))])
    stream.close()
    return path


class Clock:
    def __init__(self) -> None:
        self.now_ns = 5_000

    def __call__(self) -> int:
        return self.now_ns

    def after_s(self, seconds: float) -> None:
        self.now_ns = 5_000 + round(seconds * 1e9)


def opened(path: Path, clock: Clock) -> ReplaySource:
    source = ReplaySource(path=path, monotonic_ns=clock)
    source.open()
    return source


def raws(source: ReplaySource) -> list[int]:
    return [reading.raw for reading in source.read()]


def test_counters_are_shown_at_the_times_of_the_recording(tmp_path: Path) -> None:
    clock = Clock()
    source = opened(record(tmp_path / "power.stream", {PACKAGE: [5, 60, 700], DRAM: [1, 2, 3]}), clock)
    assert source.read() == [
        Reading("replay:rapl:package-0", 5_000, 5),
        Reading("replay:rapl:package-0/dram", 5_000, 1),
    ]
    clock.after_s(0.0999)
    assert raws(source) == [5, 1]
    clock.after_s(0.1)
    assert raws(source) == [60, 2]
    clock.after_s(0.25)
    assert source.read()[0] == Reading("replay:rapl:package-0", 5_000 + 2 * STEP_NS, 700)


def test_channels_are_those_of_the_recording_under_a_name_of_their_own(tmp_path: Path) -> None:
    path = record(tmp_path / "power.stream", {PACKAGE: [1, 2], CORE: [3, 4]}, model=True)
    source = opened(path, Clock())
    package, core = source.channels
    assert (package.name, package.component, package.in_total) == ("replay:rapl:package-0", "package", True)
    assert (package.unit_j, package.wrap) == (PACKAGE.unit_j, PACKAGE.wrap)
    assert package.period_s == pytest.approx(PACKAGE.period_s + 0.1)
    assert (core.component, core.in_total) == ("core", False)
    assert "measured then" in package.device
    assert source.left_out == (
        ("replay:model:base", "it is the power model's: there is no counter to replay"),
    )


def test_a_replay_is_never_called_measured(tmp_path: Path) -> None:
    path = record(tmp_path / "power.stream", {PACKAGE: [index * 1000 for index in range(200)]})
    with EnergySession([ReplaySource(path=path)], rate_hz=50) as session:
        with session.window("work") as window:
            pass
        assert window.energy.quality == "modelled"
        assert window.energy.channels["replay:rapl:package-0"].quality == "modelled"


@pytest.mark.parametrize("name", ["folder with a stream", "folder with Parquet", "stream", "Parquet"])
def test_a_run_is_found_by_its_folder_or_its_file(tmp_path: Path, name: str) -> None:
    stream = record(tmp_path / "power.stream", {PACKAGE: [5, 60]})
    path = stream
    if name.endswith("Parquet"):
        path = tmp_path / "power.parquet"
        to_parquet(stream, path)
        stream.unlink()
    assert raws(opened(tmp_path if name.startswith("folder") else path, Clock())) == [5]


def test_a_gap_of_the_recording_is_a_gap_of_the_replay(tmp_path: Path) -> None:
    clock = Clock()
    path = record(tmp_path / "power.stream", {PACKAGE: [5, None, 700, 800], DRAM: [1, 2, 3, 4]})
    source = opened(path, clock)
    source.read()
    clock.after_s(0.15)
    with pytest.raises(ReadError, match="it was not read in the recording") as caught:
        source.read()
    assert [reading.raw for reading in caught.value.readings] == [2]
    clock.after_s(0.25)
    with pytest.raises(ReadError, match="the recording has a gap since the last reading"):
        source.read()
    assert raws(source) == [700, 3]


@pytest.mark.parametrize("missed", [[5, None, 700], [5, 3, 700]], ids=["failed reading", "reset"])
def test_a_gap_between_two_looks_is_not_passed_over(tmp_path: Path, missed: list[int | None]) -> None:
    clock = Clock()
    counter = Channel("nvml:gpu-0", "gpu", True, 1e-3, None, 0.1)
    source = opened(record(tmp_path / "power.stream", {counter: missed}), clock)
    assert raws(source) == [5]
    clock.after_s(0.2)
    with pytest.raises(ReadError, match="has a gap"):
        source.read()
    assert raws(source) == [700]


def test_after_its_end_there_is_nothing_rather_than_the_last_value(tmp_path: Path) -> None:
    clock = Clock()
    source = opened(record(tmp_path / "power.stream", {PACKAGE: [5, 60, 700]}), clock)
    clock.after_s(0.3)
    assert raws(source) == [700]
    clock.after_s(0.31)
    with pytest.raises(ReadError, match=r"the recording has ended 0\.11 s ago") as caught:
        source.read()
    assert caught.value.readings == []
    clock.after_s(1000)
    with pytest.raises(ReadError, match="has ended"):
        source.read()


def test_a_channel_that_was_read_later_is_a_gap_until_then(tmp_path: Path) -> None:
    clock = Clock()
    late: list[int | None] = [None] * 15
    path = record(tmp_path / "power.stream", {PACKAGE: list(range(20)), DRAM: [*late, *range(5)]})
    source = opened(path, clock)
    with pytest.raises(ReadError, match="not read in the recording") as caught:
        source.read()
    assert list(caught.value.failed) == ["replay:rapl:package-0/dram"]


def test_each_opening_starts_the_recording_again(tmp_path: Path) -> None:
    clock = Clock()
    source = opened(record(tmp_path / "power.stream", {PACKAGE: [5, 60, 700]}), clock)
    clock.after_s(0.2)
    assert raws(source) == [700]
    source.close()
    with pytest.raises(ReadError, match="not open"):
        source.read()
    source.open()
    assert raws(source) == [5]


def test_what_is_no_recording_is_unavailable_and_says_what_is(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").write_text("something else")
    (tmp_path / "notes.parquet").write_text("something else")
    pd.DataFrame({"epoch": [1]}).to_parquet(tmp_path / "epochs.parquet")
    cases = {
        None: "no recording is named",
        "none": "none cannot be read: No such file",
        "none.parquet": r"none\.parquet cannot be read",
        "empty": r"empty has neither power\.parquet nor power\.stream",
        "notes": "notes is no recording",
        "notes.parquet": r"notes\.parquet is no recording",
        "epochs.parquet": r"epochs\.parquet is no recording of power",
    }
    for name, why in cases.items():
        source = ReplaySource(path=None if name is None else tmp_path / name)
        with pytest.raises(SourceUnavailableError, match=why) as caught:
            source.open()
        assert "energy.settings.replay.path" in caught.value.remedy


def test_a_recording_of_the_power_model_alone_is_unavailable(tmp_path: Path) -> None:
    path = record(tmp_path / "power.stream", {}, model=True)
    with pytest.raises(SourceUnavailableError, match="holds no reading of a counter"):
        ReplaySource(path=path).open()


@settings(max_examples=20)
@given(
    st.lists(st.one_of(st.none(), st.integers(0, 10**6)), min_size=1, max_size=30),
    st.lists(st.floats(0, 4), min_size=1, max_size=30),
)
def test_a_replay_shows_no_joule_that_the_recording_does_not_know(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int | None], looks_s: list[float]
) -> None:
    """Between two looks without a gap the counter moves as it did, and only where no record says unknown."""
    counter = Channel("nvml:gpu-0", "gpu", True, 1e-3, None, 0.1)
    path = tmp_path_factory.mktemp("replay") / "power.stream"
    record(path, {counter: counts})
    clock = Clock()
    source = ReplaySource(path=path, monotonic_ns=clock)
    if all(count is None for count in counts):
        with pytest.raises(SourceUnavailableError):
            source.open()
        return
    source.open()
    first = next(index for index, count in enumerate(counts) if count is not None)
    before: int | None = None
    for look_s in sorted(looks_s):
        clock.after_s(look_s)
        try:
            (reading,) = source.read()
        except ReadError:
            before = None
            continue
        index = (reading.t_ns - 5_000) // STEP_NS + first
        assert reading.raw == counts[index]
        if before is not None:
            passed = counts[before : index + 1]
            assert None not in passed
            assert passed == sorted(passed, key=lambda count: count or 0), "it never went down"
        before = index


def test_a_recorded_session_replays_its_power(tmp_path: Path) -> None:
    """A count of 1 uJ every 10 us is 0.1 W."""
    source = HandSource("rapl", {PACKAGE: lambda t_ns: t_ns // 10_000 % 262_143_328_851})
    with EnergySession([source], stream=PowerStream(tmp_path / "power.stream"), rate_hz=200):
        time.sleep(0.4)
    with EnergySession([ReplaySource(path=tmp_path)], rate_hz=200) as session:
        with session.window("work") as window:
            time.sleep(0.15)
        channel = window.energy.channels["replay:rapl:package-0"]
    assert channel.complete
    assert channel.gross_j is not None
    assert channel.bound_j is not None
    assert abs(channel.gross_j - 0.1 * window.energy.seconds) <= channel.bound_j
