import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy import (
    ActivityError,
    PowerModel,
    Transfers,
    WorkerPower,
    activity_energy,
    break_down,
    power_model_for,
    power_trace,
)

CPU = WorkerPower(idle_w=1.0, polling_w=4.0, busy_w=10.0)
GPU = WorkerPower(
    idle_w=20.0, polling_w=25.0, busy_w=200.0, busy_w_by_codelet={"conv2d": 300.0}, channel="gpu"
)
NODE = PowerModel(base_w=50.0, workers=(GPU, CPU, CPU), stays_awake_s=math.inf)


def trace(*tasks: tuple[int, float, float, str]) -> np.ndarray:
    fields = [("worker", "i4"), ("start_s", "f8"), ("end_s", "f8"), ("codelet", "U16")]
    return np.array(list(tasks), dtype=fields)


def gross_j(
    model: PowerModel, tasks: np.ndarray | Mapping[str, Any], start_s: float, end_s: float
) -> dict[str, float]:
    return {name: energy.gross_j for name, energy in activity_energy(model, tasks, start_s, end_s).items()}


def test_a_machine_where_nothing_runs_draws_base_and_idle_and_one_cpu_worker_that_polls() -> None:
    energy = activity_energy(NODE, trace(), 100.0, 110.0)
    assert {name: e.gross_j for name, e in energy.items()} == {"base": 500.0, "gpu": 200.0, "cpu": 50.0}
    assert {name: e.idle_j for name, e in energy.items()} == {"base": 500.0, "gpu": 200.0, "cpu": 20.0}
    assert {name: e.net_j for name, e in energy.items()} == {"base": 0.0, "gpu": 0.0, "cpu": 30.0}


def test_busy_idle_and_polling_time_each_cost_their_own_watts() -> None:
    # Worker 0 (GPU) runs from 1 to 3, worker 1 from 2 to 5; of ten seconds nobody runs in 0-1 and 5-10.
    tasks = trace((0, 1.0, 3.0, "linear"), (1, 2.0, 5.0, "relu"))
    assert gross_j(NODE, tasks, 0.0, 10.0) == pytest.approx(
        {
            "base": 50 * 10,
            "gpu": 200 * 2 + 20 * 8,
            "cpu": (10 * 3 + 4 * 6 + 1 * 1) + 1 * 10,
        }
    )


def test_a_codelet_with_watts_of_its_own_costs_these() -> None:
    tasks = trace((0, 0.0, 2.0, "conv2d"), (0, 2.0, 5.0, "linear"), (1, 0.0, 5.0, "conv2d"))
    assert gross_j(NODE, tasks, 0.0, 5.0) == pytest.approx(
        {"base": 250, "gpu": 300 * 2 + 200 * 3, "cpu": 10 * 5 + 5}
    )


def test_codelets_may_be_numbers() -> None:
    worker = WorkerPower(idle_w=0.0, polling_w=0.0, busy_w=1.0, busy_w_by_codelet={7: 5.0})
    tasks = {"worker": [0, 0], "start_s": [0.0, 1.0], "end_s": [1.0, 2.0], "codelet": [7, 8]}
    assert gross_j(PowerModel(base_w=0.0, workers=(worker,)), tasks, 0.0, 2.0)["cpu"] == 6.0


def test_watts_for_a_codelet_by_name_against_a_trace_of_numbers_are_refused() -> None:
    tasks = {"worker": [0], "start_s": [0.0], "end_s": [1.0], "codelet": [7]}
    with pytest.raises(ActivityError, match="conv2d"):
        activity_energy(NODE, tasks, 0.0, 1.0)


def test_a_task_counts_with_the_part_inside_the_window() -> None:
    tasks = trace((1, 0.0, 10.0, "relu"), (2, 9.0, 20.0, "relu"), (0, 30.0, 40.0, "relu"))
    assert gross_j(NODE, tasks, 8.0, 12.0)["cpu"] == pytest.approx(10 * 2 + 1 * 2 + 10 * 3 + 1 * 1)
    assert gross_j(NODE, tasks, 8.0, 12.0)["gpu"] == 20 * 4


def test_without_the_polling_worker_all_sleep() -> None:
    model = PowerModel(base_w=0.0, workers=(CPU, CPU), stays_awake_s=0.0)
    assert gross_j(model, trace(), 0.0, 3.0)["cpu"] == 6.0


def test_the_last_awake_worker_sleeps_after_a_while() -> None:
    # Nobody runs in 0-1, 3-4 and 6-10: of those six seconds it polls for 0.5 + 0.5 + 0.5.
    model = PowerModel(base_w=0.0, workers=(CPU, CPU), stays_awake_s=0.5)
    tasks = trace((0, 1.0, 3.0, "relu"), (1, 4.0, 6.0, "relu"))
    assert gross_j(model, tasks, 0.0, 10.0)["cpu"] == pytest.approx(2 * 10 * 2 + 16 * 1 + 1.5 * 3)


def test_a_negative_time_awake_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stays_awake_s must be at least 0, got -1"):
        PowerModel(base_w=0.0, workers=(CPU,), stays_awake_s=-1.0)


def test_where_there_is_no_cpu_worker_worker_0_polls() -> None:
    model = PowerModel(base_w=0.0, workers=(GPU, GPU), stays_awake_s=math.inf)
    assert gross_j(model, trace(), 0.0, 2.0)["gpu"] == (25 + 20) * 2


def test_an_empty_window_costs_nothing() -> None:
    assert gross_j(NODE, trace((1, 0.0, 1.0, "relu")), 0.5, 0.5) == {"base": 0.0, "gpu": 0.0, "cpu": 0.0}
    assert power_trace(NODE, trace(), 0.5, 0.5, 0.1).joules() == {"base": 0.0, "gpu": 0.0, "cpu": 0.0}


def test_tasks_that_overlap_on_one_worker_are_an_error() -> None:
    tasks = trace((2, 5.0, 6.0, "relu"), (1, 0.0, 2.0, "relu"), (1, 1.5, 3.0, "relu"))
    with pytest.raises(ActivityError, match=r"worker 1 runs two tasks at once: one until 2\.0 s"):
        activity_energy(NODE, tasks, 0.0, 10.0)


def test_tasks_of_different_workers_may_overlap_and_one_may_start_when_the_last_ends() -> None:
    tasks = trace((1, 0.0, 2.0, "relu"), (2, 0.0, 2.0, "relu"), (1, 2.0, 3.0, "relu"))
    assert gross_j(NODE, tasks, 0.0, 3.0)["cpu"] == pytest.approx(10 * 3 + 10 * 2 + 1)


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ((0, 2.0, 1.0, "relu"), "task 1 runs from 2.0 s to 1.0 s"),
        ((0, math.nan, 1.0, "relu"), "task 1 runs from nan s"),
        ((0, 0.0, math.inf, "relu"), "task 1 runs from 0.0 s to inf s"),
        ((3, 0.0, 1.0, "relu"), "task 1 ran on worker 3, the power model has 3"),
        ((-1, 0.0, 1.0, "relu"), "task 1 ran on worker -1"),
    ],
)
def test_a_task_that_cannot_have_run_is_an_error_that_names_it(
    task: tuple[int, float, float, str], told: str
) -> None:
    with pytest.raises(ActivityError, match=told):
        activity_energy(NODE, trace((1, 0.0, 1.0, "relu"), task), 0.0, 10.0)


@pytest.mark.parametrize(("start_s", "end_s"), [(2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_a_window_that_is_none_is_refused(start_s: float, end_s: float) -> None:
    with pytest.raises(ValueError, match="start_s <= end_s"):
        activity_energy(NODE, trace(), start_s, end_s)


@pytest.mark.parametrize(
    ("watts", "told"),
    [
        ({"idle_w": math.nan}, "idle_w must be a finite number of watts, got nan"),
        ({"idle_w": -1.0}, "idle_w must be at least 0.0 watts"),
        ({"busy_w": 0.5}, r"busy_w must be at least idle_w \(1.0\) watts, got 0.5"),
        ({"busy_w": math.inf}, "busy_w must be a finite"),
        ({"polling_w": 0.5}, "polling_w must be at least idle_w"),
        ({"busy_w_by_codelet": {"relu": math.nan}}, "busy_w_by_codelet.'relu'. must be a finite"),
        ({"channel": "base"}, "channel 'base'"),
    ],
)
def test_watts_that_cannot_be_are_refused_by_name(watts: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        WorkerPower(**({"idle_w": 1.0, "polling_w": 4.0, "busy_w": 10.0} | watts))


def test_a_model_without_workers_or_with_nan_watts_is_refused() -> None:
    with pytest.raises(ValueError, match="workers is empty"):
        PowerModel(base_w=1.0, workers=())
    with pytest.raises(ValueError, match="base_w must be a finite"):
        PowerModel(base_w=math.nan, workers=(CPU,))


def test_the_trace_has_the_exact_mean_of_each_bin_and_a_shorter_last_one() -> None:
    model = PowerModel(base_w=5.0, workers=(CPU,), stays_awake_s=0.0)
    found = power_trace(model, trace((0, 0.5, 1.25, "relu")), 0.0, 2.5, 1.0)
    assert found.edges_s.tolist() == [0.0, 1.0, 2.0, 2.5]
    assert found.watts["base"].tolist() == [5.0, 5.0, 5.0]
    assert found.watts["cpu"] == pytest.approx([1 + 9 * 0.5, 1 + 9 * 0.25, 1.0])


def test_a_trace_without_a_period_is_refused() -> None:
    with pytest.raises(ValueError, match="period_s must be more than 0, got 0"):
        power_trace(NODE, trace(), 0.0, 1.0, 0)


@st.composite
def activities(draw: st.DrawFn) -> np.ndarray:
    """Tasks one after another on each of three workers, in any order."""
    tasks = []
    for worker in range(3):
        now_s = 0.0
        for pause_s, length_s in draw(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=12)):
            start_s = now_s + pause_s
            now_s = start_s + length_s
            tasks.append((worker, start_s, now_s, draw(st.sampled_from(["conv2d", "linear"]))))
    return trace(*draw(st.permutations(tasks)))


def by_the_second_hand(tasks: np.ndarray, start_s: float, end_s: float) -> dict[str, float]:
    """Joules of `NODE` added up between every two moments at which anything changes, one at a time."""
    moments = sorted({start_s, end_s, *np.clip([*tasks["start_s"], *tasks["end_s"]], start_s, end_s)})
    joules = {"base": 50.0 * (end_s - start_s), "gpu": 0.0, "cpu": 0.0}
    for begin_s, finish_s in itertools.pairwise(moments):
        middle_s = (begin_s + finish_s) / 2
        runs = {
            int(task["worker"]): str(task["codelet"])
            for task in tasks
            if task["start_s"] <= middle_s < task["end_s"]
        }
        watts = {0: 20.0, 1: 1.0, 2: 1.0}
        for worker, codelet in runs.items():
            watts[worker] = 10.0 if worker else {"conv2d": 300.0, "linear": 200.0}[codelet]
        if not runs:
            watts[1] = 4.0
        joules["gpu"] += watts[0] * (finish_s - begin_s)
        joules["cpu"] += (watts[1] + watts[2]) * (finish_s - begin_s)
    return joules


windows = st.tuples(st.floats(0, 30), st.floats(0.01, 20)).map(lambda w: (w[0], w[0] + w[1]))


@given(tasks=activities(), window=windows)
def test_joules_are_those_of_adding_up_moment_by_moment(
    tasks: np.ndarray, window: tuple[float, float]
) -> None:
    assert gross_j(NODE, tasks, *window) == pytest.approx(by_the_second_hand(tasks, *window))


@given(tasks=activities(), window=windows, period_s=st.floats(0.01, 5))
def test_the_integral_of_the_trace_is_the_joules(
    tasks: np.ndarray, window: tuple[float, float], period_s: float
) -> None:
    found = power_trace(NODE, tasks, *window, period_s)
    assert found.joules() == pytest.approx(gross_j(NODE, tasks, *window))


@given(tasks=activities(), window=windows, share=st.floats(0, 1))
def test_two_windows_side_by_side_add_up_to_the_whole(
    tasks: np.ndarray, window: tuple[float, float], share: float
) -> None:
    start_s, end_s = window
    middle_s = min(end_s, start_s + share * (end_s - start_s))
    first, second = gross_j(NODE, tasks, start_s, middle_s), gross_j(NODE, tasks, middle_s, end_s)
    assert {name: first[name] + second[name] for name in first} == pytest.approx(
        gross_j(NODE, tasks, start_s, end_s)
    )


@given(tasks=activities(), window=windows)
def test_net_is_never_below_zero_and_gross_is_idle_and_net(
    tasks: np.ndarray, window: tuple[float, float]
) -> None:
    for energy in activity_energy(NODE, tasks, *window).values():
        assert energy.net_j >= 0
        assert energy.gross_j == pytest.approx(energy.idle_j + energy.net_j)


def test_a_configuration_makes_one_worker_power_per_architecture() -> None:
    watts = {
        "base_w": 50.0,
        "stays_awake_s": math.inf,
        "cpu": {"idle_w": 1.0, "polling_w": 4.0, "busy_w": 10.0},
        "cuda": {"idle_w": 20.0, "polling_w": 25.0, "busy_w": 200.0, "busy_w_by_codelet": {"conv2d": 300.0}},
    }
    assert power_model_for(watts, ["cuda", "cpu", "cpu"]) == NODE


@pytest.mark.parametrize(
    ("watts", "archs", "told"),
    [
        ({"cpu": {"idle_w": 1, "polling_w": 4, "busy_w": 10}}, ["cpu"], "no base_w"),
        ({"base_w": 1.0, "cpu": {"idle_w": 1, "busy_w": 10}}, ["cpu"], "lacks cpu.polling_w"),
        ({"base_w": 1.0, "cpu": {}}, ["cuda"], "lacks cuda.busy_w, cuda.idle_w, cuda.polling_w"),
        (
            {"base_w": 1.0, "cpu": {"idle_w": 1, "polling_w": 4, "busy_w": 9, "watts": 3}},
            ["cpu"],
            "cpu.watts",
        ),
        ({"base_w": 1.0}, ["tpu"], "'tpu'"),
    ],
)
def test_a_configuration_that_lacks_something_is_refused_by_name(
    watts: dict[str, Any], archs: list[str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        power_model_for(watts, archs)


PARKING = WorkerPower(parked_w=0.5, idle_w=2.0, polling_w=2.0, busy_w=10.0)


def test_a_worker_parks_after_a_while_without_a_task() -> None:
    # Busy from 4 to 6 of ten seconds; before and after it idles 1 s at 2 W, then parks at 0.5 W.
    model = PowerModel(base_w=0.0, workers=(PARKING,), stays_awake_s=0.0, park_after_s=1.0)
    tasks = trace((0, 4.0, 6.0, "relu"))
    assert gross_j(model, tasks, 0.0, 10.0)["cpu"] == pytest.approx(10 * 2 + 2 * 2 * 1 + 0.5 * 6)
    assert activity_energy(model, tasks, 0.0, 10.0)["cpu"].idle_j == pytest.approx(0.5 * 10)


def test_a_worker_that_parks_at_once_never_draws_its_idle_watts() -> None:
    model = PowerModel(base_w=0.0, workers=(PARKING,), stays_awake_s=0.0)
    assert gross_j(model, trace((0, 4.0, 6.0, "relu")), 0.0, 10.0)["cpu"] == pytest.approx(10 * 2 + 0.5 * 8)


def test_joules_of_parked_workers_and_links_are_all_in_the_breakdown() -> None:
    model = PowerModel(
        base_w=3.0, workers=(PARKING, GPU), stays_awake_s=0.0, park_after_s=0.5, has_links=True
    )
    tasks = {
        "worker": [0, 1],
        "ready_s": [0.0, 1.0],
        "start_s": [1.0, 2.0],
        "end_s": [3.0, 4.0],
        "codelet": np.array(["relu", "conv2d"]),
        "transfers": Transfers(0.0, 8.0, 4.0),
    }
    total_j = sum(gross_j(model, tasks, 0.0, 8.0).values())
    found = break_down(model, tasks, 0.0, 8.0, total_j)
    assert found.remainder_j == pytest.approx(0.0, abs=1e-9)
    assert found.compute_j == pytest.approx(10 * 2 + 300 * 2)
    assert found.transfers_j == pytest.approx(4.0 + 20 * 1)


def test_transfers_are_a_channel_of_their_own_spread_over_their_window() -> None:
    model = PowerModel(base_w=0.0, workers=(CPU,), stays_awake_s=0.0, has_links=True)
    tasks = {
        "worker": [],
        "start_s": [],
        "end_s": [],
        "codelet": np.array([], dtype="U8"),
        "transfers": Transfers(10.0, 20.0, 30.0),
    }
    energy = activity_energy(model, tasks, 10.0, 20.0)["link"]
    assert (energy.gross_j, energy.idle_j, energy.net_j) == (30.0, 0.0, 30.0)
    assert gross_j(model, tasks, 18.0, 25.0)["link"] == pytest.approx(6.0)
    steps = power_trace(model, tasks, 10.0, 20.0, 2.5)
    assert steps.watts["link"] == pytest.approx([3.0] * 4)


def test_without_links_that_cost_there_is_no_such_channel() -> None:
    assert "link" not in activity_energy(NODE, trace(), 0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"parked_w": 3.0}, "idle_w must be at least parked_w"), ({"channel": "link"}, "the machine's own")],
)
def test_a_worker_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkerPower(**{"idle_w": 2.0, "polling_w": 2.0, "busy_w": 10.0} | changes)
