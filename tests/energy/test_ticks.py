"""Reading at a timer's ticks in C: the same numbers, flags and reasons as the loop in Python gives."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from energy import EnergySession, Flag, PowerStream, RaplSource, read_stream
from energy import polling as polling_module
from energy import ticks as ticks_module
from energy.live import LivePage
from energy.polling import LiveWatts, PolledSource
from energy.process_sampler import ProcessSampler
from energy.source import RawFiles
from energy.thread_sampler import ThreadSampler
from energy.ticks import Loop, NativeTicks
from energy.timer import PeriodicTimer
from tests.energy.powercap import DRAM_RANGE_UJ, PACKAGE_RANGE_UJ, add_zone, laptop, set_uj
from tests.energy.sources import GPU, ClockSource

LOOPS: tuple[Loop, ...] = ("native", "python")
SECOND_NS = 10**9


@pytest.fixture
def page() -> Iterator[LivePage]:
    page = LivePage()
    yield page
    page.close()


def polled_by(loop: Loop, source: RaplSource, page: LivePage) -> PolledSource:
    live = LiveWatts(page, [channel.in_total for channel in source.channels])
    return PolledSource(source, 0, live, loop=loop)


TEXTS = st.one_of(
    st.integers(0, PACKAGE_RANGE_UJ + 2).map(str),
    st.integers(0, 10**12).map(str),
    st.sampled_from(["", "-1", "+1", "12a", "1 2", "0x10", "1_000", "1.5", "\x00", " 12 \t", "\v12\f", "²"]),
    st.sampled_from(["0" * 31 + "7", "0" * 32 + "7", "9" * 19, "9" * 40, str(2**63 - 1), str(2**63)]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12))
@example([("262143328850", "1"), ("5", "2"), ("", "3"), ("7", "65712999613"), ("8", "4"), ("900", "")])
def test_both_loops_give_the_same_counts_joules_flags_and_reasons(steps: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        add_zone(root, "intel-rapl:0", "package-0", 1)
        add_zone(root, "intel-rapl:0:0", "dram", 1, DRAM_RANGE_UJ)
        found = {}
        page = LivePage()
        with RaplSource(root) as one, RaplSource(root) as other:
            both = {"native": polled_by("native", one, page), "python": polled_by("python", other, page)}
            for package, dram in steps:
                (root / "intel-rapl:0" / "energy_uj").write_text(package)
                (root / "intel-rapl:0:0" / "energy_uj").write_text(dram)
                for polled in both.values():
                    polled.read()
            for loop, polled in both.items():
                rows = polled.settle()
                marks = [(mark.counts, mark.breaks, mark.valid, mark.flags) for mark in polled.marks.values()]
                found[loop] = ([(row[0], row[2], row[3], row[5]) for row in rows], marks, polled.troubles)
                assert [row[1] for row in rows] == sorted(row[1] for row in rows)
        page.close()
    assert found["native"] == found["python"]
    # What is no amount to Python's own int() is never a number here.
    for index, (_, counts, _, flags) in enumerate(found["native"][0]):
        text = steps[index // 2][index % 2]
        limit = (PACKAGE_RANGE_UJ, DRAM_RANGE_UJ)[index % 2]
        shown = text.encode()[:32].strip()
        is_amount = shown.isdigit() and int(shown) <= limit
        assert (counts, bool(flags & Flag.GAP and counts is None)) == (
            (int(shown), False) if is_amount else (None, True)
        )


@pytest.mark.parametrize("loop", LOOPS)
def test_a_descriptor_that_fails_midway_is_a_gap_of_its_counter_with_the_systems_own_words(
    loop: Loop, tmp_path: Path, page: LivePage
) -> None:
    tree = laptop(tmp_path)
    with RaplSource(tree) as source:
        polled = polled_by(loop, source, page)
        assert source.files is not None
        names = [channel.name for channel in source.channels]
        broken = names.index("rapl:package-0/dram")
        descriptor = source.files.descriptors[broken]
        kept = os.dup(descriptor)
        polled.read()
        folder = os.open(tree, os.O_RDONLY)
        os.dup2(folder, descriptor)
        os.close(folder)
        set_uj(tree, "intel-rapl:0", 1_500_000)
        polled.read()
        os.dup2(kept, descriptor)
        os.close(kept)
        set_uj(tree, "intel-rapl:0:2", 700_000)
        polled.read()
        rows = polled.settle()
        package = [row[2:] for row in rows if names[row[0]] == "rapl:package-0"]
        dram = [(row[2], row[3], row[5]) for row in rows if names[row[0]] == "rapl:package-0/dram"]
    assert [raw for raw, *_ in package] == [1_000_000, 1_500_000, 1_500_000]
    assert [joules for _, joules, *_ in package] == [None, 0.5, 0.0]
    assert dram == [(500_000, None, Flag.FIRST), (None, None, Flag.GAP), (700_000, None, Flag.GAP)]
    assert polled.troubles == {"rapl:package-0/dram": (1, "Is a directory")}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_counter_that_wraps_between_two_ticks_loses_no_joule(
    loop: Loop, tmp_path: Path, page: LivePage
) -> None:
    tree = laptop(tmp_path, package_uj=PACKAGE_RANGE_UJ - 1_499_999)
    with RaplSource(tree) as source:
        polled = polled_by(loop, source, page)
        polled.read()
        set_uj(tree, "intel-rapl:0", 500_000)
        polled.read()
        (row,) = [row for row in polled.settle()[6:] if row[0] == 0]
    assert (row[2], row[3], row[5]) == (500_000, pytest.approx(2.0), Flag.WRAPPED)


def test_uint64_is_read_as_perf_gives_it_and_an_event_without_a_cpu_gives_no_bytes() -> None:
    reader, writer = os.pipe()
    ticks = NativeTicks(RawFiles((reader,), "uint64"), 8)
    shown = [0, 5, 2**63 - 1, 2**63]
    for value in shown:
        os.write(writer, struct.pack("=Q", value))
        ticks.read()
    os.close(writer)
    ticks.read()
    times_ns, values = ticks.take()
    os.close(reader)
    assert values == [0, 5, 2**63 - 1, struct.pack("=Q", 2**63), b""]
    assert times_ns == sorted(times_ns)


def test_no_reading_is_dropped_where_more_are_asked_for_than_can_be_held(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("7\n")
    with open(tmp_path / "counter", "rb") as file:
        ticks = NativeTicks(RawFiles((file.fileno(),), "digits"), 2)
        ticks.read()
        ticks.read()
        with pytest.raises(OSError, match="No buffer space"):
            ticks.read()
        assert ticks.take()[1] == [7, 7]
        ticks.read()
        assert ticks.take()[1] == [7]
        assert ticks.take() == ([], [])


def test_ticks_that_passed_unread_are_counted() -> None:
    ticks = NativeTicks(RawFiles((), "digits"), 4)
    now_ns = time.monotonic_ns()
    timer = PeriodicTimer(now_ns - 10 * SECOND_NS, SECOND_NS)
    assert ticks.run(timer, 1)
    ticks.read()
    ticks.take()
    timer.close()
    assert ticks.ticks == [11], "an edge's reading is no tick"
    assert ticks.woken_ns[0] >= now_ns


def test_a_loop_that_is_stopped_ends_while_it_waits_and_a_timer_that_is_none_is_an_error() -> None:
    ticks = NativeTicks(RawFiles((), "digits"), 4)
    timer = PeriodicTimer(time.monotonic_ns() + 1000 * SECOND_NS, SECOND_NS)
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(ticks.run(timer, 1)))
    thread.start()
    ticks.stop()
    timer.fire()
    thread.join(30)
    assert told == [False]
    other = NativeTicks(RawFiles((), "digits"), 4)
    timer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        other.run(timer, 1)


@pytest.mark.parametrize("loop", LOOPS)
def test_readings_at_edges_come_between_the_ticks_in_their_order(
    loop: Loop, tmp_path: Path, page: LivePage
) -> None:
    stream = PowerStream(tmp_path / "power")
    sampler = ThreadSampler([RaplSource(laptop(tmp_path / "tree"))], 1000, stream, page, loop=loop)
    sampler.open()
    stream.declare({name: {} for name in sampler.channels})
    sampler.start()
    edges = []
    for _ in range(300):
        before_ns = time.monotonic_ns()
        snapshot = sampler.sample()
        assert all(before_ns <= mark.t_ns <= time.monotonic_ns() for mark in snapshot.marks.values()), (
            "an edge does not wait for the next settling"
        )
        edges.append({name: mark.t_ns for name, mark in snapshot.marks.items()})
    sampler.stop()
    stream.close()
    assert sampler.trouble is None
    assert sampler.report is not None
    frame = read_stream(tmp_path / "power")
    for name in sampler.channels:
        times_ns = frame["t_mono_ns"][frame["channel"] == name].to_list()
        assert times_ns == sorted(set(times_ns))
        assert {edge[name] for edge in edges} <= set(times_ns)
        assert len(times_ns) == 1 + len(edges) + sampler.report.samples, (
            "no reading is lost, none counted twice"
        )
    assert sampler.report.samples > 0
    assert sampler.report.loops == dict.fromkeys(sampler.channels, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_samplers_process_takes_the_loop_that_is_asked_for_and_says_so(
    loop: Loop, tmp_path: Path, page: LivePage
) -> None:
    sampler = ProcessSampler([RaplSource(laptop(tmp_path))], 200, None, page, loop=loop)
    sampler.open()
    assert set(sampler.loops.values()) == {loop}
    sampler.start()
    time.sleep(0.1)
    sampler.stop()
    assert sampler.report is not None
    assert set(sampler.report.loops.values()) == {loop}
    assert sampler.report.samples > 0


def test_the_record_says_what_read_each_counter(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "power")
    with EnergySession([RaplSource(laptop(tmp_path / "tree")), ClockSource(0, channel=GPU)], stream=stream):
        pass
    told = {
        name: channel["loop"] for name, channel in read_stream(tmp_path / "power").attrs["channels"].items()
    }
    assert told["rapl:package-0"] == "native"
    assert told[GPU.name] == "python"


def test_where_it_is_not_compiled_python_reads_and_says_so(
    tmp_path: Path, page: LivePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (polling_module, ticks_module):
        monkeypatch.setattr(module, "native_loop", lambda: None)
    sampler = ThreadSampler([RaplSource(laptop(tmp_path))], 10, None, page)
    sampler.open()
    assert set(sampler.loops.values()) == {"python"}
    sampler.stop()
    with pytest.raises(RuntimeError, match=r"run `python -m energy\.build`"):
        ThreadSampler([RaplSource(tmp_path)], 10, None, page, loop="native").open()


def test_a_source_that_is_more_than_files_is_read_by_python(tmp_path: Path, page: LivePage) -> None:
    tree = laptop(tmp_path)
    for source in (RaplSource(tree, pread=lambda *which: os.pread(*which)), ClockSource(0)):
        sampler = ThreadSampler([source], 10, None, page)
        sampler.open()
        assert set(sampler.loops.values()) == {"python"}
        sampler.stop()
        with pytest.raises(ValueError, match=f"{source.name} is more than that"):
            ThreadSampler([source], 10, None, page, loop="native").open()
