"""A calibration's file becomes a platform, whose simulated time is a sum by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import host_platform, records
from experiments.in_training import with_in_training
from experiments.measured import MeasuredFileError, with_measurement
from experiments.node_fields import PlatformError
from experiments.platform import SimulatedNode
from tests.dahl.children import child_json
from tests.experiments.test_in_training import ROW
from tests.experiments.test_measured import CONV

ASSUMED = {"base_w": 15.0, "cpu": {"idle_w": 0.5, "busy_w": 9.0}}
CPU = replace(CONV, key="conv2d/16", seconds=1e-3, kernels="abc", workers=2)


def made(record: dict[str, Any], workers: int = 2) -> dict[str, Any]:
    return host_platform.host_platform(record, name="me", workers=workers, kernels="abc", assumed=ASSUMED)


def file(*rows: Any, machine: dict[str, Any] | None = None) -> dict[str, Any]:
    """A file with two kinds of task, and what training took."""
    record: dict[str, Any] = {"file_version": 1, "checks": [], "tasks": [], "machine": machine or {}}
    for task in (CPU, replace(CPU, key="relu/16", watts=12.0), replace(CPU, key="old/16", kernels="other")):
        record = with_measurement(record, task)
    for row in rows:
        record = with_in_training(record, row)
    return record


def test_lengths_are_those_of_training_where_known_and_else_of_the_task_alone() -> None:
    again = replace(ROW, scheduler="dmda", seconds={"conv2d/16": 5e-5}, counts={"conv2d/16": 30})
    node = made(file(ROW, again))
    core = node["cpu"]["core"]
    assert core["seconds"] == {"conv2d/16": pytest.approx(4.25e-5), "relu/16": 1e-3}
    assert core["count"] == 2
    assert node["noise"] == pytest.approx(0.1)
    SimulatedNode(**{key: value for key, value in node.items() if key not in ("_target_", "simulated")})


def test_what_simulated_starpu_takes_itself_is_taken_off_and_submitting_costs_workers_a_shared_processor() -> (
    None
):
    alone = made(file(ROW))["around_us"]["eager"]
    # A gap of 3 us: 1 is StarPU's own, 1 is after the task, 1 is left.
    assert alone == pytest.approx({"before": 1.0, "after": 1.0, "wake": 0.0, "submit": 2.0})
    shared = made(file(ROW, machine={"processors": 2}))["around_us"]["eager"]
    assert shared == pytest.approx({"before": 3.0, "after": 1.0, "wake": 0.0, "submit": 2.0})
    woken = replace(ROW, around={**ROW.around, "wake_s": 22e-6, "wakes": 5})
    assert made(file(woken))["around_us"]["eager"]["wake"] == pytest.approx(20.0)


def test_a_scheduler_that_was_not_measured_takes_the_mean_of_those_that_were() -> None:
    slow = replace(ROW, scheduler="dmda", around={**ROW.around, "gap_s": 5e-6}, tasks=30)
    node = made(file(ROW, slow))
    fields = {key: value for key, value in node.items() if key not in ("_target_", "simulated")}
    made_node = SimulatedNode(**fields)
    for name, before_s in {"eager": 1e-6, "dmda": 3e-6, "lws": 2.5e-6}.items():
        overheads = made_node.overheads(name)
        assert overheads is not None
        assert overheads.before_s == pytest.approx(before_s)
    assert SimulatedNode(**{**fields, "around_us": None}).overheads("eager") is None, (
        "StarPU's own microseconds, as before"
    )


def test_watts_are_the_counters_where_there_were_any_and_else_the_power_models() -> None:
    record = file()
    record["energy"] = {
        "channels": ["package"],
        "idle_w": {"package": {"watts": 30.0}, "psys": {"watts": 99.0}},
    }
    node = made(record)
    assert (node["base_w"], node["cpu"]["core"]["idle_w"]) == (30.0, 0.0)
    assert node["cpu"]["core"]["busy_w"] == pytest.approx((8.0 + 12.0) / 2)
    estimated = {**file(), "tasks": [asdict(replace(CPU, quality="estimated"))]}
    node = made(estimated)
    assert node["base_w"] == 15.0
    assert (node["cpu"]["core"]["idle_w"], node["cpu"]["core"]["busy_w"]) == (0.5, 9.0)


def test_nothing_measured_for_so_many_workers_is_an_error_that_says_what_to_run() -> None:
    with pytest.raises(
        MeasuredFileError, match=r"with 3 workers .* run python -m experiments\.calibrate .* workers=3"
    ):
        made(file(), workers=3)


def test_an_overhead_that_is_none_is_refused_by_its_name() -> None:
    node = made(file(ROW))
    fields = {key: value for key, value in node.items() if key not in ("_target_", "simulated")}
    with pytest.raises(
        PlatformError, match=r"around_us\.eager: before must be a number of 0 or more, got -1"
    ):
        SimulatedNode(**{**fields, "around_us": {"eager": {"before": -1}}})
    with pytest.raises(
        PlatformError, match=r"around_us\.any: unknown field after_us; there are: after, before"
    ):
        SimulatedNode(**{**fields, "around_us": {"any": {"after_us": 1}}})


def test_the_command_writes_a_platform_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_platform, "kernels_digest", lambda: "abc")
    records.write_json(tmp_path / "measured.json", file(ROW))
    asked = [
        "--file",
        str(tmp_path / "measured.json"),
        "--workers",
        "2",
        "--out",
        str(tmp_path / "mine.yaml"),
    ]
    assert host_platform.main(asked) == 0
    node = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert (node["name"], node["cpu"]["core"]["count"]) == ("mine", 2)
    assert host_platform.main([*asked[:2], "--workers", "3", *asked[4:]]) == 2


# Tasks in a row on one worker: each waits for the one before.
CHAIN = """
import json
import numpy as np
from dahl import starpu
from tests.dahl.starpu_kernels import AFFINE

def main(runtime):
    work = runtime.codelet("work", AFFINE, model="costs")
    handle = runtime.register(np.zeros(4, np.float32))
    args = AFFINE.pack([(4,)], {"factor": 1, "shift": 1})
    start = runtime.now_s()
    for _ in range(10):
        runtime.submit(work, [handle], args, costs=starpu.Costs([LENGTH], [1e-3]))
    runtime.wait_all()
    seconds, tasks = runtime.now_s() - start, runtime.take_trace()
    gaps = tasks["start_s"][1:] - tasks["end_s"][:-1]
    print(json.dumps([seconds, (tasks["end_s"] - tasks["start_s"]).tolist(), gaps.tolist()]))

NODE = starpu.Platform(name="one", cpu_classes=("core",))
starpu.Runtime(platform=NODE, scheduler="eager", overheads=starpu.Overheads(**OVERHEADS)).run(main)
"""


def chain(length_s: float, **overheads: float) -> tuple[float, list[float], list[float]]:
    code = CHAIN.replace("LENGTH", repr(length_s)).replace("OVERHEADS", json.dumps(overheads))
    seconds, tasks_s, gaps_s = child_json(code)
    return seconds, tasks_s, gaps_s


def test_ten_tasks_in_a_row_take_their_lengths_and_what_is_before_and_after_each() -> None:
    """2 ms each, 10 us before, 5 us after and the 1 us that StarPU takes in any simulation."""
    seconds, tasks_s, gaps_s = chain(2e-3, before_s=10e-6, after_s=5e-6)
    assert tasks_s == pytest.approx([2e-3] * 10, abs=1e-9), "a task is as long as it was said to be"
    assert gaps_s == pytest.approx([16e-6] * 9, abs=1e-9)
    assert seconds == pytest.approx(10 * 2e-3 + 9 * 16e-6 + 15e-6, abs=5e-6)


def test_a_worker_that_slept_takes_longer_to_start_and_submitting_takes_the_submitting_thread() -> None:
    """3 ms to submit each of ten tasks of 2 ms: the worker sleeps 1 ms before each, and takes 0.1 ms to wake up."""
    seconds, tasks_s, gaps_s = chain(2e-3, submit_s=3e-3, wake_s=1e-4)
    assert tasks_s == pytest.approx([2e-3] * 10, abs=1e-9)
    assert gaps_s == pytest.approx([1e-3] * 9, abs=2e-6)
    assert seconds == pytest.approx(10 * 3e-3 + 1e-4 + 2e-3, abs=5e-6)


@pytest.mark.parametrize(
    "overheads", [{"before_s": -1e-6}, {"wake_s": float("nan")}, {"submit_s": float("inf")}]
)
def test_an_overhead_is_a_number_of_seconds(overheads: dict[str, float]) -> None:
    from dahl.starpu import Overheads

    with pytest.raises(ValueError, match="must be 0 or more"):
        Overheads(**overheads)
