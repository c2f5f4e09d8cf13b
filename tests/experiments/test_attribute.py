"""The joules of a recorded run, shared out among its codelets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import records
from experiments.attribute import main

WATTS = {"conv2d": 9.0, "linear": 4.0, "relu": 6.0}
IDLE_W = 10.0
OFFSET_NS = 77_000_000_000


def recorded(folder: Path, *, counter: bool = True, idle: bool = True, hz: float = 50.0) -> Path:
    """Two workers take turns: phases of conv2d and linear, and relu always right behind linear."""
    draw = np.random.default_rng(0)
    rows = []
    for worker in range(2):
        at_s = 5.0
        while at_s < 25.0:
            length_s = float(draw.uniform(0.02, 0.1))
            if draw.random() < 0.5:
                rows.append((worker, "conv2d", at_s, at_s + length_s))
            else:
                for _ in range(60):
                    rows += [(worker, "linear", at_s, at_s + length_s / 120)]
                    rows += [(worker, "relu", at_s + length_s / 120, at_s + length_s / 60)]
                    at_s += length_s / 60
                at_s -= length_s
            at_s += length_s + 0.001
    tasks = pd.DataFrame(rows, columns=["worker", "codelet", "start_s", "end_s"])
    edges_s = np.arange(4.0, 26.0, 1 / hz)
    joules = IDLE_W * edges_s
    for _, codelet, start_s, end_s in rows:
        joules += WATTS[codelet] * np.clip(edges_s - start_s, 0, end_s - start_s)
    power = pd.DataFrame({"t_mono_ns": (edges_s * 1e9).round().astype(np.int64) + OFFSET_NS})
    power["channel"], power["joules"] = "rapl:package-0", np.concatenate([[np.nan], np.diff(joules)])
    quality = "measured" if counter else "estimated"
    window = {"window": "run", "channel": "rapl:package-0", "in_total": True, "quality": quality}
    window |= {"start_s": 5.0, "end_s": 25.0, "start_t_mono_ns": 5_000_000_000 + OFFSET_NS}
    folder.mkdir()
    tasks.to_parquet(folder / "tasks.parquet")
    power.to_parquet(folder / "power.parquet")
    pd.DataFrame([window]).to_parquet(folder / "windows.parquet")
    baseline = {"paused": {"rapl:package-0": {"watts": IDLE_W, "error_w": 0.0, "bound_w": 0.0}}}
    environment = {
        "starpu": {"workers": ["CPU 0", "CPU 1"]},
        "energy": {"idle_baseline": baseline if idle else None},
    }
    records.write_json(folder / records.ENVIRONMENT_NAME, environment)
    return folder


def test_a_runs_joules_come_back_by_codelet_and_those_that_never_run_apart_share_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = recorded(tmp_path / "run")
    assert main([str(run_dir)]) == 0
    (meter,) = json.loads((run_dir / "attribution.json").read_text())["meters"]
    by_codelets = {tuple(name for name, _ in power["classes"]): power for power in meter["classes"]}
    assert set(by_codelets) == {("conv2d",), ("linear", "relu")}
    assert by_codelets["conv2d",]["watts"] == pytest.approx(9.0, rel=0.01)
    assert by_codelets["linear", "relu"]["watts"] == pytest.approx((4.0 + 6.0) / 2, rel=0.02)
    assert (meter["quality"], meter["rank"], meter["channel"]) == ("modelled", 2, "rapl:package-0")
    shared_j = sum(power["busy_share_j"] for power in meter["classes"])
    assert shared_j == pytest.approx(sum(power["joules"] for power in meter["classes"]), rel=0.01)
    # Seconds at once with conv2d count as much, so that the simple share gives linear and relu too much.
    assert by_codelets["linear", "relu"]["busy_share_j"] > 1.1 * by_codelets["linear", "relu"]["joules"]
    assert "linear, relu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lacks", "message"),
    [
        ("counter", "read no counter: its joules are the power model's"),
        ("idle", "has no idle baseline: run it with energy.idle_baseline_s=10"),
        ("tasks", "has no tasks.parquet; run it with trace=true"),
    ],
)
def test_a_run_that_cannot_be_attributed_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lacks: str, message: str
) -> None:
    run_dir = recorded(tmp_path / "run", counter=lacks != "counter", idle=lacks != "idle")
    if lacks == "tasks":
        (run_dir / "tasks.parquet").unlink()
    assert main([str(run_dir)]) == 1
    assert message in capsys.readouterr().err
    assert not (run_dir / "attribution.json").exists()
