import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy import CounterTrack, PowerStream, Reading, read_stream
from energy.attribution import (
    AttributionError,
    MeterRecords,
    attribute,
    busy_share,
    class_watts,
    merge_collinear,
    meter_records,
)
from tests.energy.sources import PACKAGE

IDLE_W = 12.0
KNOWN_W = {"conv2d": 9.0, "linear": 14.0, "relu": 4.5, "sgd": 6.0}
FIELDS = [("worker", "i4"), ("codelet", "U8"), ("start_s", "f8"), ("end_s", "f8")]


def random_tasks(seconds: float, workers: int, seed: int, codelets: list[str]) -> np.ndarray:
    """Each worker runs phases of one codelet after another, 5 to 60 ms long, with pauses."""
    draw = np.random.default_rng(seed)
    rows = []
    for worker in range(workers):
        at_s = 0.0
        while at_s < seconds:
            length_s = draw.uniform(0.005, 0.06)
            rows.append((worker, codelets[draw.integers(len(codelets))], at_s, at_s + length_s))
            at_s += length_s + draw.exponential(0.004)
    return np.array(rows, FIELDS)


def true_joules(tasks: np.ndarray, watts: dict[str, float], at_s: np.ndarray) -> np.ndarray:
    """Joules up to each time, summed task by task."""
    joules = IDLE_W * at_s
    for task in tasks:
        joules += watts[task["codelet"]] * np.clip(at_s - task["start_s"], 0, task["end_s"] - task["start_s"])
    return joules


def metered(tasks: np.ndarray, *, hz: float, jitter_s: float, unit_j: float, seed: int) -> MeterRecords:
    """A counter in steps of `unit_j`, whose value is up to `jitter_s` old when it is read."""
    draw = np.random.default_rng(seed)
    at_s = np.arange(0.0, tasks["end_s"].max(), 1 / hz)
    shown_s = np.maximum(0.0, at_s - draw.uniform(0, jitter_s, at_s.size))
    joules = np.floor(true_joules(tasks, KNOWN_W, shown_s) / unit_j) * unit_j
    return MeterRecords("rapl:package-0", at_s[:-1], at_s[1:], np.diff(joules))


@pytest.mark.parametrize("seed", range(4))
def test_known_watts_come_back_within_5_percent_through_1_ms_of_jitter_and_the_counters_steps(
    seed: int,
) -> None:
    tasks = random_tasks(20.0, 2, seed, list(KNOWN_W))
    meter = metered(tasks, hz=100, jitter_s=1e-3, unit_j=61e-6, seed=seed)
    found = attribute(meter, tasks, ["cpu", "cpu"], IDLE_W)
    for codelet, watts in KNOWN_W.items():
        assert found.watts_of(codelet, "cpu") == pytest.approx(watts, rel=0.05), codelet
    assert (found.rank, len(found.classes), found.quality) == (4, 4, "modelled")
    assert found.residual_share < 0.01
    assert found.condition < 10
    assert sum(power.joules for power in found.classes) == pytest.approx(
        found.total_j - IDLE_W * tasks["end_s"].max(), rel=0.02
    )


def test_the_bootstrap_interval_holds_the_known_watts_and_is_the_same_each_time() -> None:
    tasks = random_tasks(20.0, 2, 0, list(KNOWN_W))
    meter = metered(tasks, hz=100, jitter_s=1e-3, unit_j=61e-6, seed=0)
    first, again = (attribute(meter, tasks, ["cpu", "cpu"], IDLE_W, seed=7) for _ in range(2))
    assert first == again
    inside = [power.low_w <= KNOWN_W[power.classes[0][0]] <= power.high_w for power in first.classes]
    assert sum(inside) >= 3, "95 % of them"
    assert all(power.low_w < power.watts < power.high_w < 1.2 * power.low_w for power in first.classes)


def test_without_noise_the_watts_are_exact() -> None:
    tasks = random_tasks(3.0, 3, 5, list(KNOWN_W))
    at_s = np.arange(0.0, 3.0, 0.02)
    meter = MeterRecords("m", at_s[:-1], at_s[1:], np.diff(true_joules(tasks, KNOWN_W, at_s)))
    found = attribute(meter, tasks, ["cpu"] * 3, IDLE_W)
    assert {power.classes[0][0]: power.watts for power in found.classes} == pytest.approx(KNOWN_W, rel=1e-9)
    assert found.residual_rms_j == pytest.approx(0.0, abs=1e-9)


def test_two_codelets_that_never_run_apart_are_merged_and_said_to_be() -> None:
    tasks = random_tasks(10.0, 1, 1, ["conv2d", "linear"])
    paired = [tasks]
    for task in tasks[tasks["codelet"] == "conv2d"]:
        half_s = (task["start_s"] + task["end_s"]) / 2
        paired.append(
            np.array([(1, "relu", task["start_s"], half_s), (1, "sgd", half_s, task["end_s"])], FIELDS)
        )
    both = np.concatenate(paired)
    both["codelet"][np.isin(both["codelet"], ["relu"])] = "sgd"
    meter = metered(both, hz=20, jitter_s=0.0, unit_j=61e-6, seed=1)
    found = attribute(meter, both, ["cpu", "cpu"], IDLE_W)
    merged = [power for power in found.classes if power.merged]
    assert [power.classes for power in merged] == [(("conv2d", "cpu"), ("sgd", "cpu"))]
    assert merged[0].watts == pytest.approx((KNOWN_W["conv2d"] + KNOWN_W["sgd"]) / 2, rel=0.02)
    assert found.watts_of("linear", "cpu") == pytest.approx(KNOWN_W["linear"], rel=0.02)
    assert (found.rank, len(found.classes)) == (2, 2)


def test_one_codelet_on_two_worker_classes_has_two_watts() -> None:
    tasks = random_tasks(10.0, 2, 3, ["conv2d"])
    joules = np.arange(0.0, 10.0, 0.02) * IDLE_W
    at_s = np.arange(0.0, 10.0, 0.02)
    for task in tasks:
        own_w = (5.0, 50.0)[task["worker"]]
        joules = joules + own_w * np.clip(at_s - task["start_s"], 0, task["end_s"] - task["start_s"])
    meter = MeterRecords("m", at_s[:-1], at_s[1:], np.diff(joules))
    found = attribute(meter, tasks, ["cpu", "cuda"], IDLE_W)
    assert found.watts_of("conv2d", "cpu") == pytest.approx(5.0)
    assert found.watts_of("conv2d", "cuda") == pytest.approx(50.0)
    assert math.isnan(found.watts_of("relu", "cpu"))
    assert class_watts([found, found])[("conv2d", "cuda")] == pytest.approx(100.0)


def test_watts_are_never_below_zero() -> None:
    tasks = random_tasks(5.0, 2, 2, ["conv2d", "relu"])
    at_s = np.arange(0.0, 5.0, 0.02)
    draw = np.random.default_rng(0)
    meter = MeterRecords("m", at_s[:-1], at_s[1:], 0.02 * IDLE_W + draw.normal(0, 0.01, at_s.size - 1))
    assert all(power.watts >= 0 for power in attribute(meter, tasks, ["cpu", "cpu"], IDLE_W).classes)


def test_intervals_with_a_missing_reading_are_left_out() -> None:
    tasks = random_tasks(5.0, 2, 2, list(KNOWN_W))
    whole = metered(tasks, hz=50, jitter_s=0.0, unit_j=1e-9, seed=0)
    lost = whole.joules.copy()
    lost[::7] = np.nan
    found = attribute(MeterRecords("m", whole.start_s, whole.end_s, lost), tasks, ["cpu"] * 2, IDLE_W)
    assert found.intervals == np.isfinite(lost).sum()
    assert found.watts_of("linear", "cpu") == pytest.approx(KNOWN_W["linear"], rel=1e-4)


def test_fewer_intervals_than_classes_are_refused() -> None:
    tasks = random_tasks(0.5, 2, 2, list(KNOWN_W))
    meter = MeterRecords("m", np.array([0.0]), np.array([0.5]), np.array([1.0]))
    with pytest.raises(AttributionError, match="1 intervals are known, 4 classes"):
        attribute(meter, tasks, ["cpu"] * 2, IDLE_W)


def test_the_busy_share_gives_each_class_its_part_of_the_seconds() -> None:
    tasks = np.array([(0, "conv2d", 0.0, 3.0), (1, "relu", 0.0, 1.0), (0, "relu", 5.0, 6.0)], FIELDS)
    meter = MeterRecords(
        "m", np.array([0.0, 4.0, 6.0]), np.array([4.0, 6.0, 7.0]), np.array([88.0, 34.0, 20.0])
    )
    share = busy_share(meter, tasks, ["cpu", "cpu"], IDLE_W)
    # 88 - 48 J over 3 + 1 busy seconds; 34 - 24 J for the second relu; the last interval's 8 J are nobody's.
    assert share == pytest.approx({("conv2d", "cpu"): 30.0, ("relu", "cpu"): 10.0 + 10.0})


@settings(max_examples=40)
@given(
    columns=st.integers(1, 5), copies=st.lists(st.integers(0, 4), max_size=4), seed=st.integers(0, 2**32 - 1)
)
def test_copies_of_columns_join_the_column_that_they_copy(columns: int, copies: list[int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    own = draw.uniform(0, 1, (200, columns)) * draw.integers(0, 2, (200, columns)) + 1e-6
    sources = [copy % columns for copy in copies]
    scaled = [own[:, source] * draw.uniform(0.1, 10) for source in sources]
    groups, rank = merge_collinear(np.column_stack([own, *scaled]))
    expected = {source: [source] for source in range(columns)}
    for at, source in enumerate(sources):
        expected[source].append(columns + at)
    assert sorted(groups) == sorted(sorted(group) for group in expected.values())
    assert rank == columns


def test_a_power_stream_becomes_intervals_on_the_clock_of_the_tasks(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "power.stream")
    stream.declare({PACKAGE.name: {}, "other": {}})
    track = CounterTrack(PACKAGE)
    for at, raw in enumerate([0, 2_000_000, 5_000_000]):
        stream.append(
            [(PACKAGE.name, track.add(Reading(PACKAGE.name, 10_000_000_000 + at * 500_000_000, raw)))]
        )
    stream.append([(PACKAGE.name, track.miss(11_500_000_000))])
    stream.close()
    meter = meter_records(read_stream(tmp_path / "power.stream"), PACKAGE.name, 9_000_000_000)
    assert meter.start_s.tolist() == [1.0, 1.5, 2.0]
    assert meter.end_s.tolist() == [1.5, 2.0, 2.5]
    assert meter.joules[:2].tolist() == pytest.approx([2.0, 3.0])
    assert np.isnan(meter.joules[2])
