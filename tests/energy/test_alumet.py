from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy.alumet import AlumetError, ClockPair, import_recording
from energy.alumet_csv import parse_time_ns
from tests.energy.alumet_files import (
    STYLES,
    T0_S,
    TICK_J,
    Row,
    Style,
    gpu,
    header,
    line,
    other,
    rapl,
    text,
    time_text,
    two_sockets,
    write,
)

TICKS = 5
TOTAL_J = (TICKS - 1) * TICK_J
T0_NS = T0_S * 10**9


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_every_variant_of_the_format_gives_the_same_joules(tmp_path: Path, style: Style) -> None:
    recording = import_recording(write(tmp_path / "a.csv", two_sockets(TICKS, style), style))
    assert recording.total_j == pytest.approx(TOTAL_J, abs=1e-9)
    assert (recording.rows_lost, recording.rows_repeated, recording.backward_steps) == (0, 0, 0)
    assert recording.torn_bytes == 0
    assert recording.quality == "measured"
    joules = {name: channel.joules for name, channel in recording.channels.items() if channel.in_total}
    assert joules == pytest.approx(
        {
            "alumet:gpu-00000000:C6:00.0": 398.0,
            "alumet:package-0": 120.0,
            "alumet:package-0/dram": 16.0,
            "alumet:package-1": 130.0,
            "alumet:package-1/dram": 17.0,
        }
    )


def test_sums_by_domain_and_domains_that_overlap_are_never_added(tmp_path: Path) -> None:
    recording = import_recording(write(tmp_path / "a.csv", two_sockets(TICKS)))
    beside = {
        name: (channel.component, channel.joules)
        for name, channel in recording.channels.items()
        if not channel.in_total
    }
    assert beside == {
        "alumet:package-0/core": ("core", 100.0),
        "alumet:package-0/uncore": ("uncore", 4.0),
        "alumet:psys": ("psys", 360.0),
    }
    assert not any("total" in name for name in recording.channels)


@pytest.mark.parametrize(
    "style", [STYLES["0.9.2, late"], STYLES["0.9.5, own column"]], ids=["late", "column"]
)
def test_a_file_cut_anywhere_has_the_joules_of_its_whole_lines(tmp_path: Path, style: Style) -> None:
    data = text(two_sockets(3, style), style).encode()
    path = tmp_path / "cut.csv"
    for size in (*range(0, len(data) - 120, 37), *range(len(data) - 120, len(data))):
        path.write_bytes(data[:size])
        whole = data[: data[:size].rfind(b"\n") + 1]
        (tmp_path / "whole.csv").write_bytes(whole)
        cut, clean = import_recording(path), import_recording(tmp_path / "whole.csv")
        assert (cut.total_j, cut.rows_read, cut.rows_lost) == (clean.total_j, clean.rows_read, 0)
        assert cut.torn_bytes == size - len(whole)
        assert clean.torn_bytes == 0


def test_a_last_line_without_an_end_is_not_read_however_whole_it_looks(tmp_path: Path) -> None:
    """`domain=package` may be the start of `domain=package_total`."""
    whole = text([rapl(T0_NS, 3, "cpu_package 0", "package")])
    torn = line(rapl(T0_NS + 1, 5, "cpu_package 0", "package"))
    (tmp_path / "a.csv").write_text(whole + torn)
    recording = import_recording(tmp_path / "a.csv")
    assert (recording.total_j, recording.torn_bytes) == (3.0, len(torn))


@pytest.mark.parametrize("content", ["", header() + "\n", "metric;time", text([other(T0_NS)])])
def test_a_recording_without_a_row_of_joules_has_none_rather_than_zero(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    recording = import_recording(tmp_path / "a.csv")
    assert (recording.total_j, recording.channels, recording.seconds) == (None, {}, None)
    assert not recording.complete
    assert recording.power_frame().empty


@pytest.mark.parametrize("content", ["PAR1\x00\x01", "time,watts\n1,2\n", "metric;value\nx;1\n", "\n\n"])
def test_a_file_that_is_not_alumets_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "notes.csv").write_text(content)
    with pytest.raises(AlumetError, match=r"notes\.csv is no CSV of Alumet"):
        import_recording(tmp_path / "notes.csv")


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(AlumetError, match=r"none\.csv cannot be read: No such file"):
        import_recording(tmp_path / "none.csv")


BAD_ROWS: dict[str, Row] = {
    "negative": rapl(T0_NS + 10**9, "-3", "cpu_package 0", "package"),
    "not a number": rapl(T0_NS + 10**9, "NaN", "cpu_package 0", "package"),
    "infinite": rapl(T0_NS + 10**9, "inf", "cpu_package 0", "package"),
    "a word": rapl(T0_NS + 10**9, "many", "cpu_package 0", "package"),
    "empty": rapl(T0_NS + 10**9, "", "cpu_package 0", "package"),
    "underscores": rapl(T0_NS + 10**9, "1_0", "cpu_package 0", "package"),
    "no domain": rapl(T0_NS + 10**9, "3", "cpu_package 0", ""),
    "unknown domain": rapl(T0_NS + 10**9, "3", "cpu_package 0", "hbm"),
    "domain of another resource": rapl(T0_NS + 10**9, "3", "dram 0", "package"),
    "no time": ("rapl_consumed_energy", "J", "yesterday", "3", "cpu_package 0", "package"),
    "month 13": ("rapl_consumed_energy", "J", "2025-13-09T08:53:20Z", "3", "cpu_package 0", "package"),
    "unknown unit": ("rapl_consumed_energy", "kWh", time_text(T0_NS), "3", "cpu_package 0", "package"),
    "no GPU": ("nvml_energy_consumption", "mJ", time_text(T0_NS), "3", "local_machine ", ""),
    "a driver that was loaded anew": gpu(T0_NS + 10**9, 2**64 - 123_456),
    "a counter that was set anew": rapl(T0_NS + 10**9, "262143.328850", "cpu_package 0", "package"),
    "too many fields": rapl(T0_NS + 10**9, "3;4", "cpu_package 0", "package"),
}


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_read_is_lost_and_the_total_is_not_known(tmp_path: Path, bad: Row) -> None:
    good = [rapl(T0_NS + tick * 10**9, 2, "cpu_package 0", "package") for tick in range(3)]
    graphics = [gpu(T0_NS + tick * 10**9, 1000) for tick in range(3)]
    rows = [good[0], graphics[0], bad, good[1], graphics[1], good[2], graphics[2]]
    recording = import_recording(write(tmp_path / "a.csv", rows))
    assert (recording.rows_lost, sum(recording.lost.values())) == (1, 1)
    assert recording.total_j is None
    assert recording.read_j == 9.0
    assert recording.rows_read == 7


def test_a_broken_row_of_another_metric_costs_nothing(tmp_path: Path) -> None:
    content = text([rapl(T0_NS, 2, "cpu_package 0", "package")]) + "kernel_cpu_time_ms;a;b\nodd;;;;;;;;;;;\n"
    (tmp_path / "a.csv").write_text(content)
    recording = import_recording(tmp_path / "a.csv")
    assert (recording.total_j, recording.rows_lost, recording.rows_read) == (2.0, 0, 3)


@pytest.mark.parametrize(
    "broken", ['"kernel_cpu_time_ms;x', 'kernel;"x;y;z', 'rapl_consumed_energy_J;"x', '";;']
)
def test_a_quote_without_its_end_does_not_swallow_joules_unnoticed(tmp_path: Path, broken: str) -> None:
    rows = [rapl(T0_NS + tick * 10**9, 2, "cpu_package 0", "package") for tick in range(6)]
    lines = text(rows).splitlines()
    (tmp_path / "a.csv").write_text("\n".join([*lines[:3], broken, *lines[3:]]) + "\n")
    recording = import_recording(tmp_path / "a.csv")
    assert recording.total_j is None
    assert recording.rows_lost == 4 + broken.startswith("rapl")
    assert recording.read_j == 4.0


def test_a_quoted_field_of_several_lines_costs_nothing(tmp_path: Path) -> None:
    rows = text([rapl(T0_NS, 2, "cpu_package 0", "package")])
    rows += 'process_name;2025-10-09T08:53:20Z;1;local_machine;;process;7;"name=a\nb;c=""d"""\n'
    rows += line(rapl(T0_NS + 10**9, 3, "cpu_package 0", "package"), Style(quoted=True)) + "\n"
    (tmp_path / "a.csv").write_text(rows)
    recording = import_recording(tmp_path / "a.csv")
    assert (recording.total_j, recording.rows_lost) == (5.0, 0)


def test_a_repeated_row_counts_once_and_is_told_of(tmp_path: Path) -> None:
    rows = [row for row in two_sockets(TICKS) for _ in range(2)]
    recording = import_recording(write(tmp_path / "a.csv", rows))
    assert recording.total_j == pytest.approx(TOTAL_J)
    assert recording.rows_repeated == (TICKS - 1) * 8


def test_two_dies_of_one_package_at_one_time_are_two_rows_that_add_up(tmp_path: Path) -> None:
    rows = [
        rapl(T0_NS + tick * 10**9, joules, "cpu_package 0", "package")
        for tick in range(3)
        for joules in (2.0, 3.5)
    ]
    recording = import_recording(write(tmp_path / "a.csv", rows))
    assert (recording.total_j, recording.rows_repeated) == (16.5, 0)


def test_time_that_goes_back_is_told_of_and_gives_no_watts(tmp_path: Path) -> None:
    at_s = [10, 11, 5, 6]
    rows = [rapl(T0_NS + at * 10**9, 7, "cpu_package 0", "package") for at in at_s]
    recording = import_recording(write(tmp_path / "a.csv", rows))
    assert (recording.backward_steps, recording.total_j) == (1, 28.0)
    watts = np.concatenate([frame["watts"] for frame in recording.powers()])
    np.testing.assert_array_equal(watts, [np.nan, 7.0, np.nan, 7.0])
    assert recording.seconds == pytest.approx(6.0)


def test_a_gpus_energy_that_the_agent_summed_up_itself_is_told_from_a_counters(tmp_path: Path) -> None:
    rows = [gpu(T0_NS + tick * 10**9, 1000.25, "0:1") for tick in range(3)]
    rows += [gpu(T0_NS + tick * 10**9, 1000, "0:2") for tick in range(3)]
    recording = import_recording(write(tmp_path / "a.csv", rows))
    assert (recording.total_j, recording.quality) == (pytest.approx(6.00075), "measured")
    integrated = {name: channel.integrated for name, channel in recording.channels.items()}
    assert integrated == {"alumet:gpu-0:1": True, "alumet:gpu-0:2": False}


def test_an_energy_metric_that_is_not_read_is_named(tmp_path: Path) -> None:
    rows = [rapl(T0_NS, 2, "cpu_package 0", "package"), other(T0_NS, "amd_gpu_energy_consumption", "mJ")]
    recording = import_recording(write(tmp_path / "a.csv", rows))
    assert recording.not_counted == ("amd_gpu_energy_consumption_mJ",)


def test_the_power_trace_holds_each_row_with_its_mean_watts(tmp_path: Path) -> None:
    rows = [
        rapl(T0_NS, 5, "cpu_package 0", "package"),
        rapl(T0_NS + 5 * 10**8, 10, "cpu_package 0", "package"),
        ("nvml_instant_power", "mW", time_text(T0_NS + 6 * 10**8), "250000", "gpu 0:1", ""),
    ]
    frame = import_recording(write(tmp_path / "a.csv", rows)).power_frame()
    assert list(frame.columns) == ["t_unix_ns", "channel", "joules", "watts"]
    assert frame["t_unix_ns"].tolist() == [T0_NS, T0_NS + 5 * 10**8, T0_NS + 6 * 10**8]
    assert frame["channel"].tolist() == ["alumet:package-0", "alumet:package-0", "alumet:gpu-0:1/instant"]
    np.testing.assert_array_equal(frame["joules"], [5, 10, np.nan])
    np.testing.assert_array_equal(frame["watts"], [np.nan, 20, 250])


def test_pairs_of_clocks_put_a_recording_on_the_monotonic_clock(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", two_sockets(2))
    one = import_recording(path, [ClockPair(5_000, T0_NS)])
    assert one.t_mono_ns(T0_NS - 1_000) == 4_000
    slow = import_recording(path, [ClockPair(5_000, T0_NS), ClockPair(5_000 + 999_000, T0_NS + 1_000_000)])
    assert slow.t_mono_ns(T0_NS + 500_000) == 504_500
    with pytest.raises(ValueError, match="without a pair of clocks"):
        import_recording(path).t_mono_ns(T0_NS)


@settings(max_examples=50)
@given(st.integers(0, 4_000_000_000 * 10**9), st.integers(0, 9))
def test_a_time_is_read_to_its_last_digit(t_ns: int, digits: int) -> None:
    known_ns = t_ns // 10 ** (9 - digits) * 10 ** (9 - digits)
    assert parse_time_ns(time_text(t_ns, digits)) == known_ns


def test_a_time_of_another_zone_is_read() -> None:
    assert parse_time_ns("2025-10-09T10:53:20.5+02:00") == T0_NS + 5 * 10**8
    assert parse_time_ns("2025-10-09T08:53:20.0000000001Z") is None


def test_blocks_of_any_size_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = two_sockets(60, period_ns=10**7)
    path = write(tmp_path / "a.csv", [*rows, BAD_ROWS["a word"]])
    expected = import_recording(path)
    for size in (700, 5_717, 20_000):
        monkeypatch.setattr("energy.alumet_blocks.BLOCK_BYTES", size)
        found = import_recording(path)
        assert found.read_j == pytest.approx(expected.read_j)
        assert (found.rows_read, found.rows_lost, found.rows_repeated) == (len(rows) + 1, 1, 0)
        assert found.power_frame()["watts"].sum() == pytest.approx(expected.power_frame()["watts"].sum())


def test_attributes_with_thousands_of_values_do_not_get_in_the_way(tmp_path: Path) -> None:
    names = ["metric", "timestamp", "value", "resource_kind", "resource_id", "consumer_kind", "consumer_id"]
    names += ["a", "b", "c", "d", "domain", "e", "__late_attributes"]
    lines = [";".join(names)]
    for number in range(2_000):
        at = time_text(T0_NS + number * 10**6)
        own = ";".join(f"{name}{number}" for name in "abcd")
        lines.append(f"memory_usage_B;{at};1;local_machine;;process;{number};{own};;{number};x={number}")
        lines.append(f"rapl_consumed_energy_J;{at};0.5;cpu_package;0;local_machine;;{own};package;{number};")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    recording = import_recording(tmp_path / "a.csv")
    assert (recording.total_j, recording.rows_lost, recording.rows_read) == (1000.0, 0, 4_000)


finite = st.floats(0, 500, allow_nan=False)


@settings(max_examples=25)
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=30), st.sampled_from(list(STYLES.values())))
def test_any_joules_come_back(
    tmp_path_factory: pytest.TempPathFactory, joules: list[tuple[float, float]], style: Style
) -> None:
    rows = []
    for tick, (package_j, dram_j) in enumerate(joules):
        t_ns = T0_NS + tick * 10**9
        rows += [
            rapl(t_ns, package_j, "cpu_package 0", "package"),
            rapl(t_ns, dram_j, "dram 0", "dram"),
            rapl(t_ns, package_j, "local_machine ", "package_total"),
        ]
    path = tmp_path_factory.mktemp("recording") / "a.csv"
    recording = import_recording(write(path, rows, style))
    assert recording.total_j == pytest.approx(sum(map(sum, joules)), rel=1e-12, abs=1e-12)
