"""kill -9 of a real trial and of its sampler: whole records, no joule that was not read, none twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from energy import Flag
from experiments.tables import read_table
from experiments.validation import CHECKOUT
from tests.energy.powercap import laptop
from tests.experiments.conftest import is_alive, wait_for

TRIAL_ON_TREE = Path(__file__).with_name("trial_on_tree.py")
SMALL = (
    "scheduler=lws",
    "dataset=synthetic",
    "dataset.train_size=2000",
    "dataset.test_size=100",
    "energy=rapl",
    "energy.idle_baseline_s=0",
    "energy.rate_hz=100",
)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A powercap tree whose package draws 50 W and whose memory draws 5 W until the test is over."""
    root = laptop(tmp_path / "powercap")
    over = threading.Event()

    def draw() -> None:
        zones = {"intel-rapl:0": 50, "intel-rapl:0:2": 5}
        files = {os.open(root / zone / "energy_uj", os.O_WRONLY): watts for zone, watts in zones.items()}
        while not over.wait(0.001):
            for descriptor, watts in files.items():
                # Of one length, so that a reader never sees an empty or a cut file.
                os.pwrite(descriptor, b"%020d\n" % (time.monotonic_ns() // 1000 * watts % 10**10), 0)
        for descriptor in files:
            os.close(descriptor)

    thread = threading.Thread(target=draw)
    thread.start()
    yield root
    over.set()
    thread.join()


class Started:
    """`experiments.run` on a tree, its trial and its sampler."""

    def __init__(self, tree: Path, folder: Path, environment: dict[str, str], epochs: int) -> None:
        command = (sys.executable, str(TRIAL_ON_TREE), str(tree))
        program = (
            f"import sys; from experiments import run; run.TRIAL_COMMAND = {command!r}; sys.exit(run.main())"
        )
        self.output = folder / "runs"
        # Every epoch in a window of its own.
        arguments = [*SMALL, "energy.min_window_s=0", f"epochs={epochs}", f"output={self.output}"]
        self.run = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=environment,
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def folder(self) -> Path:
        (found,) = self.output.glob("*/*")
        return found

    def rows(self, name: str) -> int:
        assert self.run.poll() is None, self.run.communicate()
        if not list(self.output.glob(f"*/*/{name}.*")):
            return 0
        table, _ = read_table(self.folder(), name)
        return 0 if table is None else table.num_rows

    def trial(self) -> int:
        return children(self.run.pid, str(TRIAL_ON_TREE))[0]

    def sampler(self) -> int:
        return children(self.trial(), "energy.sampling_process")[0]

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder() / "summary.json").read_text())
        return found


def children(pid: int, what: str) -> list[int]:
    """The children of a process whose command line names something."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in found if what in Path(f"/proc/{child}/cmdline").read_text()]


def check_power(folder: Path) -> pd.DataFrame:
    """Every record of the package says what its counter moved by; together each joule once."""
    power = pq.read_table(folder / "power.parquet").to_pandas()
    package = power[power["channel"] == "rapl:package-0"].reset_index(drop=True)
    assert package["t_mono_ns"].is_monotonic_increasing
    moved_j = package["raw"].diff().mod(262143328851) * 1e-6
    known = package["joules"].notna()
    assert package["joules"][known].tolist() == pytest.approx(moved_j[known].tolist(), abs=1e-9)
    assert list(package.index[~known & (package["raw"].notna())]) == [
        index for index, flags in enumerate(package["flags"]) if flags in (Flag.FIRST, Flag.GAP)
    ]
    return package


def test_a_trial_goes_on_without_its_sampler_and_says_which_window_it_cost(
    tree: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    started = Started(tree, tmp_path, environment, epochs=6)
    wait_for(lambda: started.rows("epochs") >= 2, limit_s=40)
    time.sleep(random.Random(4).uniform(0.0, 0.1))
    os.kill(started.sampler(), signal.SIGKILL)
    said, _ = started.run.communicate(timeout=120)
    assert started.run.returncode == 0, said
    summary = started.summary()
    assert (summary["status"], summary["epochs"]) == ("finished", 6)
    assert summary["energy_trouble"] == "the sampler has died (killed by signal 9)"
    windows = pq.read_table(started.folder() / "windows.parquet").to_pandas()
    package = windows[(windows["channel"] == "rapl:package-0") & (windows["window"] != "run")]
    assert (~package["complete"]).sum() == 1
    assert package["gross_j"].isna().tolist() == (~package["complete"]).tolist()
    (lost,) = package[~package["complete"]]["window"]
    epochs = pq.read_table(started.folder() / "epochs.parquet").to_pandas()
    assert epochs["gross_j"].isna().sum() == (1 if lost == "epoch" else 0)
    assert (summary["joules_per_epoch"] is None) == (lost == "epoch")
    power = check_power(started.folder())
    assert power["joules"].sum() >= package["gross_j"].sum() - 1e-6


@pytest.mark.slow
def test_a_trial_that_is_killed_leaves_what_its_sampler_read(
    tree: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    started = Started(tree, tmp_path, environment, epochs=1000)
    wait_for(lambda: started.rows("epochs") >= 2, limit_s=40)
    sampler = started.sampler()
    time.sleep(random.Random(5).uniform(0.0, 0.1))
    os.kill(started.trial(), signal.SIGKILL)
    said, _ = started.run.communicate(timeout=120)
    assert started.run.returncode == 1, said
    wait_for(lambda: not is_alive(sampler))
    summary = started.summary()
    assert summary["status"] == "failed"
    assert "killed by SIGKILL" in summary["error"]
    assert summary["epochs"] >= 2
    windows = pq.read_table(started.folder() / "windows.parquet").to_pandas()
    assert windows["complete"].all(), "the window that was open has no row"
    power = check_power(started.folder())
    package = windows[(windows["channel"] == "rapl:package-0") & (windows["window"] != "run")]
    assert power["joules"].sum() >= package["gross_j"].sum() - 1e-6
