"""What the benchmarks share."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from benchmarks import measuring


def test_a_spread_has_the_middle_value_and_the_ends() -> None:
    spread = measuring.Spread.of([5.0, 1.0, 9.0, 2.0])
    assert (spread.median, spread.lowest, spread.highest) == (3.5, 1.0, 9.0)
    assert spread.text(1) == "3.5 (1.0 - 9.0)"
    with pytest.raises(ValueError, match="at least one value"):
        measuring.Spread.of([])


def test_cases_alternate_and_every_second_round_runs_backwards() -> None:
    order: list[str] = []

    def case(name: str, value: float) -> measuring.Case:
        def run() -> dict[str, float]:
            order.append(name)
            return {"x": value * len(order)}

        return run

    found = measuring.alternate({"a": case("a", 1), "b": case("b", 10)}, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found["a"]["x"].values == (1, 4, 5)
    assert found["b"]["x"].values == (20, 30, 60)
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        measuring.alternate({}, rounds=0)


def test_cores_kept_busy_by_others_are_counted_from_proc_stat(tmp_path: Path) -> None:
    stat, tick = tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu  {100 * tick} 0 0 5 5 0 0 0 0 0\ncpu0 1 1\n")
    machine = measuring.Machine(stat)
    start = time.monotonic()
    time.sleep(0.2)
    stat.write_text(f"cpu  {101 * tick} 0 {tick} 5 5 0 0 0 0 0\ncpu0 1 1\n")
    measured, seconds = machine.others_cores(), time.monotonic() - start
    assert measured == pytest.approx(2.0 / seconds, rel=0.2)


def test_a_record_is_whole_json_that_names_no_host_and_no_path(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    measuring.record(path, "x", measuring.Machine(), figure=measuring.Spread.of([1.0, 2.0, 4.0]))
    text = path.read_text()
    assert json.loads(text)["figure"] == {
        "median": 2.0,
        "lowest": 1.0,
        "highest": 4.0,
        "values": [1.0, 2.0, 4.0],
    }
    assert not re.search(rf"\b{re.escape(os.uname().nodename)}\b", text)
    assert str(Path.cwd()) not in text
    assert list(tmp_path.iterdir()) == [path]
