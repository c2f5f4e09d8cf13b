"""What moving data takes, from the platform's links to the tables of a run."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.experiments.test_end_to_end import run


def test_joules_of_links_are_in_the_total_and_in_the_power_trace(tmp_path: Path) -> None:
    link = "+platform.gpu.hot.link.joule_per_gbyte=50"
    done = run(tmp_path, "scheduler=eager", "platform=weak_cores_hot_gpu", link)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.glob("*/*")
    windows = pq.read_table(folder / "windows.parquet").to_pandas()
    epochs = windows[windows["window"] == "epoch"]
    by_channel = epochs.groupby("channel")["gross_j"].sum()
    assert set(by_channel.index) == {"model:base", "model:cpu", "model:gpu", "model:link"}
    assert by_channel["model:link"] > 0
    assert (epochs[epochs["channel"] == "model:link"]["quality"] == "simulated").all()
    rows = pq.read_table(folder / "epochs.parquet").to_pandas()
    assert rows["gross_j"].sum() == pytest.approx(by_channel.sum())
    power = pq.read_table(folder / "power.parquet").to_pandas()
    traced = power.groupby("channel")["joules"].sum()
    whole = windows[windows["window"] != "run"].groupby("channel")["gross_j"].sum()
    assert traced["model:link"] == pytest.approx(whole["model:link"])
