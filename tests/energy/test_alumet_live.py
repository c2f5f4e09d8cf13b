from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy import EnergySession, ReadError, Reading, SourceUnavailableError, channel_of_gpu
from energy.alumet_live import AlumetSource
from tests.energy.alumet_files import Row, Style, gpu, header, line, rapl

STAND_IN = Path(__file__).with_name("stand_in_agent.py")
POLL_S = 0.01
GPU_NAME = "alumet:gpu-0:C6"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an agent that behaves in some way first into PATH."""

    def put(behaviour: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "alumet-agent"
        program.write_text(
            f'#!/bin/sh\necho $$ > "{tmp_path}/pid"\nexec "{sys.executable}" "{STAND_IN}" "{behaviour}" "$@"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return put


def started(**options: object) -> AlumetSource:
    given: dict[str, object] = {
        "poll_interval_s": POLL_S,
        "flush_interval_s": POLL_S,
        "lateness_s": 5.0,
        **options,
    }
    return AlumetSource(**given)


def is_alive(pid: int) -> bool:
    """Whether a process runs, which a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def agent_pid(tmp_path: Path) -> int:
    return int((tmp_path / "pid").read_text())


def test_an_agent_is_started_read_and_ended(install: Callable[[str], None], tmp_path: Path) -> None:
    install("steady")
    with started(plugins=["rapl", "nvml"]) as source:
        names = [channel.name for channel in source.channels]
        assert names == [GPU_NAME, "alumet:package-0", "alumet:package-0/dram"]
        assert all(channel.in_total and channel.unit_j == 1e-9 for channel in source.channels)
        assert all(channel.period_s == pytest.approx(2 * POLL_S + 5) for channel in source.channels)
        first = {reading.channel: reading for reading in source.read()}
        time.sleep(0.3)
        asked_ns = time.monotonic_ns()
        second = {reading.channel: reading for reading in source.read()}
        pid = agent_pid(tmp_path)
        assert is_alive(pid)
    assert not is_alive(pid)
    for name, watts in ((GPU_NAME, 250.0), ("alumet:package-0", 100.0), ("alumet:package-0/dram", 10.0)):
        seconds = (second[name].t_ns - first[name].t_ns) * 1e-9
        joules = (second[name].raw - first[name].raw) * 1e-9
        assert seconds > 0
        assert second[name].t_ns <= asked_ns + 50_000_000
        # The agent rounds a GPU's row to a mJ, and the sum of rows spans exactly the time between their stamps.
        assert joules == pytest.approx(watts * seconds, rel=1e-3, abs=0.05)
    with pytest.raises(ReadError, match="not open"):
        source.read()


def test_a_window_counts_an_agents_joules(install: Callable[[str], None]) -> None:
    install("steady")
    with EnergySession([started()], rate_hz=50) as session:
        with session.window("work") as window:
            time.sleep(0.5)
        energy = window.energy
    package = energy.channels["alumet:package-0"]
    assert package.complete
    assert package.gross_j is not None
    assert package.bound_j is not None
    assert abs(package.gross_j - 100 * energy.seconds) <= package.bound_j
    assert energy.quality == "measured"
    assert not energy.resolvable, "a window of 0.5 s is less than three periods of 5 s"


def test_an_agent_that_is_not_there_is_unavailable_and_says_how_to_get_it() -> None:
    source = AlumetSource(command="no-such-agent")
    with pytest.raises(SourceUnavailableError, match=r"no program 'no-such-agent'.*alumet\.dev") as caught:
        source.open()
    assert caught.value.source == "alumet"
    assert source.channels == ()


def test_an_agent_that_refuses_is_unavailable_in_its_own_words(install: Callable[[str], None]) -> None:
    install("refuses")
    with pytest.raises(SourceUnavailableError, match="ended with status 1: Error: no RAPL here"):
        started().open()


def test_an_agent_that_writes_nothing_is_unavailable_and_ended(
    install: Callable[[str], None], tmp_path: Path
) -> None:
    install("mute")
    with pytest.raises(SourceUnavailableError, match="wrote no row of package in 1 s"):
        started(start_timeout_s=1).open()
    assert not is_alive(agent_pid(tmp_path))


def test_a_plugin_that_shows_nothing_is_missed(install: Callable[[str], None]) -> None:
    """The stand-in knows no GPU where it is asked for RAPL alone, as an agent on a machine without one."""
    install("steady")
    source = started(plugins=["rapl"], start_timeout_s=0.5)
    source._plugins = ("rapl", "nvml")  # what is asked for, beside what the agent was started with
    with pytest.raises(SourceUnavailableError, match="no row of gpu in"):
        source.open()


def test_an_agent_that_dies_is_a_gap_with_its_last_words(install: Callable[[str], None]) -> None:
    install("dies")
    with started() as source:
        source.read()
        failures: list[ReadError] = []

        def fails() -> bool:
            try:
                source.read()
            except ReadError as error:
                failures.append(error)
            return bool(failures)

        assert wait_until(fails)
        assert set(failures[0].failed) == {channel.name for channel in source.channels}
        assert failures[0].readings == []
        assert "ended with status 101: thread 'main' panicked: out of luck" in str(failures[0])
        with pytest.raises(ReadError, match="status 101"):
            source.read()


def test_an_agent_that_falls_silent_is_a_gap_and_not_the_last_value_again(
    install: Callable[[str], None],
) -> None:
    install("falls silent")
    with started(lateness_s=1) as source:
        texts: list[str] = []

        def fails() -> bool:
            try:
                source.read()
            except ReadError as error:
                texts.append(str(error))
            return bool(texts)

        assert wait_until(fails)
        assert "its last row is" in texts[0]
        assert "old, more than 1.02 s" in texts[0]


def test_an_agent_that_ignores_signals_is_killed(
    install: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("stubborn")
    endings = ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.1), (signal.SIGKILL, 10.0))
    monkeypatch.setattr("energy.alumet_agent._ENDINGS", endings)
    with started() as source:
        source.read()
        pid = agent_pid(tmp_path)
    assert not is_alive(pid)


def test_an_agent_does_not_outlive_an_owner_that_is_killed(
    install: Callable[[str], None], tmp_path: Path
) -> None:
    install("steady")
    program = f"""
import time
from energy.alumet_live import AlumetSource
source = AlumetSource(poll_interval_s={POLL_S}, flush_interval_s={POLL_S}, lateness_s=5.0)
source.open()
print("open", source._agent.output.parent, flush=True)
time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    word, _, folder = owner.stdout.readline().strip().partition(" ")
    assert word == "open"
    pid = agent_pid(tmp_path)
    assert is_alive(pid)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert wait_until(lambda: not is_alive(pid))
    assert wait_until(lambda: not Path(folder).exists())


class Followed:
    """A CSV that a test writes as an agent would, with rows of now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.style = Style()
        self.stepped_ns = 0
        path.write_text(header() + "\n")

    def wall_ns(self) -> int:
        return time.time_ns() + self.stepped_ns

    def append(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rows(self, *rows: Row) -> None:
        self.append("".join(f"{line(row, self.style)}\n" for row in rows))

    def package(self, joules: float | str, ago_s: float = 0.0) -> None:
        self.rows(rapl(self.wall_ns() - round(ago_s * 1e9), joules, "cpu_package 0", "package"))


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path / "live.csv")


@pytest.fixture
def source(followed: Followed) -> Iterator[AlumetSource]:
    """Follows the CSV, which has one package and its dram."""
    followed.package(1000)
    followed.rows(rapl(followed.wall_ns(), 7, "dram 0", "dram"))
    with started(follow=followed.path, wall_ns=followed.wall_ns, lateness_s=5) as source:
        yield source


def package_counts(readings: list[Reading]) -> int:
    return next(reading.raw for reading in readings if reading.channel == "alumet:package-0")


def test_deltas_become_one_exact_sum(source: AlumetSource, followed: Followed) -> None:
    before = package_counts(source.read())
    for text in ("0.1", "0.2", "0.38421630859375", "1e-9", "14"):
        followed.package(text)
    assert package_counts(source.read()) - before == 14_684_216_309


def test_a_line_counts_once_it_has_its_end(source: AlumetSource, followed: Followed) -> None:
    before = package_counts(source.read())
    whole = line(rapl(followed.wall_ns(), 5, "cpu_package 0", "package"))
    for part in (whole[:9], whole[9:60], whole[60:]):
        followed.append(part)
        assert package_counts(source.read()) == before
    followed.append("\n")
    assert package_counts(source.read()) - before == 5 * 10**9


@settings(max_examples=15)
@given(
    st.lists(st.decimals(0, 300, places=15), min_size=1, max_size=20),
    st.lists(st.integers(1, 80), min_size=1, max_size=40),
)
def test_any_joules_written_in_any_pieces_are_summed_exactly(
    tmp_path_factory: pytest.TempPathFactory, joules: list[Decimal], pieces: list[int]
) -> None:
    followed = Followed(tmp_path_factory.mktemp("live") / "live.csv")
    followed.package(1)
    with started(follow=followed.path, lateness_s=60) as source:
        (first,) = source.read()
        t_ns = followed.wall_ns()
        rows = [rapl(t_ns + n, f"{value:f}", "cpu_package 0", "package") for n, value in enumerate(joules)]
        rest = "".join(f"{line(row)}\n" for row in rows)
        counts = [first.raw]
        for size in pieces:
            followed.append(rest[:size])
            rest = rest[size:]
            counts.append(package_counts(source.read()))
        followed.append(rest)
        counts.append(package_counts(source.read()))
    assert counts == sorted(counts)
    assert counts[-1] - counts[0] == int(sum(joules) * 10**9)


def test_a_reading_has_the_time_of_its_row(source: AlumetSource, followed: Followed) -> None:
    followed.package(3, ago_s=-0.0)
    source.read()
    time.sleep(0.05)
    earliest_ns = time.monotonic_ns()
    followed.package(3)
    latest_ns = time.monotonic_ns()
    time.sleep(0.05)
    first, again = (source.read() for _ in range(2))
    at_ns = next(reading.t_ns for reading in first if reading.channel == "alumet:package-0")
    assert earliest_ns - 1_000_000 <= at_ns <= latest_ns + 1_000_000
    assert again == first, "without a new row the counter stands where it stood, when it stood there"


def test_other_rows_and_the_agents_sums_change_nothing(source: AlumetSource, followed: Followed) -> None:
    before = source.read()
    followed.rows(
        rapl(followed.wall_ns(), 50, "local_machine ", "package_total"),
        ("kernel_cpu_time", "ms", "2025-10-09T08:53:20Z", "9", "cpu_core 1", ""),
    )
    followed.append("kernel_cpu_time_ms;broken\n")
    assert source.read() == before


BAD_ROWS: dict[str, tuple[Callable[[Followed], None], str]] = {
    "negative": (lambda file: file.package("-5"), "a row says '-5' J"),
    "not a number": (lambda file: file.package("NaN"), "a row says 'NaN' J"),
    "huge": (lambda file: file.package("1e12"), "its counter began anew"),
    "time that goes back": (lambda file: file.package(5, ago_s=3), "its time went back by"),
    "from the future": (lambda file: file.package(5, ago_s=-30), "in the future"),
    "wrong number of fields": (
        lambda file: file.append("rapl_consumed_energy_J;2025\n"),
        "wrong number of fields",
    ),
    "no domain": (lambda file: file.rows(rapl(file.wall_ns(), 5, "cpu_package 0", "")), "domain ''"),
    "no CSV": (lambda file: file.path.write_text("something else"), "was cut short or replaced"),
    "gone": (lambda file: file.path.unlink(), "was cut short or replaced"),
}


@pytest.mark.parametrize(("spoil", "why"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_counted_is_a_gap(
    source: AlumetSource, followed: Followed, spoil: Callable[[Followed], None], why: str
) -> None:
    source.read()
    spoil(followed)
    with pytest.raises(ReadError) as caught:
        source.read()
    assert why in str(caught.value)
    assert "alumet:package-0" in caught.value.failed
    assert all(reading.channel != "alumet:package-0" for reading in caught.value.readings)


def test_a_repeated_row_is_a_gap_and_not_added(source: AlumetSource, followed: Followed) -> None:
    row = rapl(followed.wall_ns(), 5, "cpu_package 0", "package")
    before = package_counts(source.read())
    followed.rows(row, row)
    with pytest.raises(ReadError, match="a row came twice"):
        source.read()
    assert package_counts(source.read()) - before == 5 * 10**9


def test_a_domain_that_vanishes_is_a_gap_of_its_channel_alone(followed: Followed) -> None:
    followed.package(1)
    followed.rows(rapl(followed.wall_ns(), 7, "dram 0", "dram"))
    with started(follow=followed.path, lateness_s=1) as source:
        deadline = time.monotonic() + 1.3
        while time.monotonic() < deadline:
            followed.package(1)
            time.sleep(0.02)
        with pytest.raises(ReadError) as caught:
            source.read()
        assert list(caught.value.failed) == ["alumet:package-0/dram"]
        assert [reading.channel for reading in caught.value.readings] == ["alumet:package-0"]


@pytest.mark.parametrize("step_s", [-60, 60])
def test_a_step_of_the_wall_clock_is_a_gap_until_a_row_of_the_new_time(
    source: AlumetSource, followed: Followed, step_s: int
) -> None:
    source.read()
    followed.package(2)
    followed.stepped_ns = step_s * 10**9
    with pytest.raises(ReadError, match=rf"wall clock was stepped by [+-]{abs(step_s)}\.0"):
        source.read()
    with pytest.raises(ReadError):
        source.read()
    followed.rows(rapl(followed.wall_ns(), 7, "dram 0", "dram"))
    followed.package(2)
    if step_s < 0:  # the row itself is before the last one
        with pytest.raises(ReadError, match="its time went back"):
            source.read()
    followed.rows(rapl(followed.wall_ns(), 7, "dram 0", "dram"))
    followed.package(2)
    after = time.monotonic_ns()
    assert all(abs(reading.t_ns - after) < 10**9 for reading in source.read())


def test_a_counter_that_appears_later_is_told_of_once(source: AlumetSource, followed: Followed) -> None:
    before = source.read()
    followed.rows(gpu(followed.wall_ns(), 500))
    with pytest.raises(ReadError, match="appeared after the start and is not counted") as caught:
        source.read()
    assert caught.value.readings == before
    assert source.read() == before


def test_a_gpus_energy_that_the_agent_adds_up_itself_is_refused(followed: Followed) -> None:
    followed.rows(gpu(followed.wall_ns(), 1000))
    with started(follow=followed.path) as source:
        source.read()
        followed.rows(gpu(followed.wall_ns(), 1000.25))
        with pytest.raises(ReadError, match='set mode = "full"'):
            source.read()


def test_a_gpu_is_found_by_its_pci_address(followed: Followed) -> None:
    followed.rows(gpu(followed.wall_ns(), 1000, "00000000:C6:00.0"), gpu(followed.wall_ns(), 1000, "odd"))
    with started(follow=followed.path) as source:
        found = channel_of_gpu(source.channels, "0000:c6:00.0")
        assert found is not None
        assert found.name == "alumet:gpu-00000000:C6:00.0"
        assert {channel.name for channel in source.channels} == {found.name, "alumet:gpu-odd"}


def test_an_agent_that_starts_its_file_anew_goes_on_after_a_gap(
    source: AlumetSource, followed: Followed
) -> None:
    before = package_counts(source.read())
    followed.path.write_text("")
    with pytest.raises(ReadError, match="cut short or replaced"):
        source.read()
    followed.append(header(Style(delimiter=",", domain="column")) + "\n")
    followed.style = Style(delimiter=",", domain="column")
    followed.package(4)
    assert package_counts(source.read()) - before == 4 * 10**9


def test_a_file_that_nobody_writes_any_more_is_unavailable(followed: Followed) -> None:
    followed.package(1, ago_s=100)
    followed.package(1, ago_s=99)
    with pytest.raises(SourceUnavailableError, match="no agent writes any more"):
        started(follow=followed.path).open()


def test_a_file_that_is_not_there_or_not_alumets_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match=r"none\.csv wrote no row of joules in 0\.2 s"):
        started(follow=tmp_path / "none.csv", start_timeout_s=0.2).open()
    (tmp_path / "other.csv").write_text("a;b\n1;2\n")
    with pytest.raises(SourceUnavailableError, match=r"other\.csv is no CSV of Alumet"):
        started(follow=tmp_path / "other.csv").open()


def test_a_long_file_is_followed_from_its_end(followed: Followed) -> None:
    old = line(rapl(followed.wall_ns() - 10**12, 5, "cpu_package 3", "package")) + "\n"
    followed.append(old * 5_000)
    followed.package(1)
    with started(follow=followed.path) as source:
        assert {channel.name for channel in source.channels} >= {"alumet:package-0"}
        csv = source._csv
        assert csv is not None
        assert csv.layout is not None
        assert len(source._rows) <= 2


@pytest.mark.parametrize("option", ["poll_interval_s", "flush_interval_s", "lateness_s", "start_timeout_s"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_is_none_is_an_error(option: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"alumet's {option} must be more than 0 s"):
        started(**{option: seconds})


def test_an_unknown_plugin_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"of rapl, nvml, got \['rapl', 'energy'\]"):
        AlumetSource(plugins=["rapl", "energy"])
