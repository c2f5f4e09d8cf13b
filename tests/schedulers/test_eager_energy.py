"""eager_energy against schedules worked out by hand, and against eager's joules on a named node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from schedulers import EagerEnergy
from tests.dahl.children import ROOT
from tests.schedulers.records import empty_memory, kinds_of, system_of, workers_of
from tests.schedulers.schedules import Job, Node, simulate

NODE = Node("pair", ("big", "little", "little"), {"big": (2.0, 32.0), "little": (1.0, 5.0)})
A = {"big": (10e-3, 0.30), "little": (25e-3, 0.10)}
B = {"big": (4e-3, 0.12), "little": (20e-3, 0.09)}
JOBS = [*[Job(A)] * 6, Job(B, after=(0, 2)), Job(A, after=(6,))]


def test_a_worker_leaves_a_task_to_a_cheaper_one_while_waiting_for_that_is_cheap() -> None:
    """The machine idles at 10 + 2 + 1 + 1 = 14 W: 14 mJ for each ms until the end of a task. In mJ:

    A costs 300 + 14 * 10 = 440 on big and 100 + 14 * 25 = 450 on a little, B 120 + 56 = 176 and 90 + 280 = 370.
    Until big is free there are 14 more for each ms: a little takes an A while big has 0.72 ms or more before it
    (10 / 14), and a B from 13.9 ms on (194 / 14).

    0   at  0: big is free, the littles leave it to big                    big      0-10
    1   at  0: big has 10 ms before it: 580 there, 450 here                little   0-25
    2   at  0: as 1                                                        little   0-25
    3   at 10: everybody was busy until now                                big     10-20
    4   at 20: the same                                                    big     20-30
    5   at 25: the littles are free, big in 5 ms: 510 there, 450 here      little  25-50
    6   at 25, when 2 is done: big in 5 ms: 246 there, 370 on the little
        that is free: it stays idle although a task waits                  big     30-34
    7   at 34, when 6 is done: as 0; the little stays idle                 big     34-44
    """
    outcome = simulate(EagerEnergy(), NODE, JOBS)
    assert outcome.classes == ["big", "little", "little", "big", "big", "little", "big", "big"]
    assert outcome.placed[1] != outcome.placed[2]
    hand_ms = [(0, 10), (0, 25), (0, 25), (10, 20), (20, 30), (25, 50), (30, 34), (34, 44)]
    for (start, end), (start_ms, end_ms) in zip(outcome.milliseconds, hand_ms, strict=True):
        assert (start, end) == (pytest.approx(start_ms, abs=0.1), pytest.approx(end_ms, abs=0.1))


def test_the_same_graph_takes_eager_more_joules_and_longer() -> None:
    """eager gives B to the little that is free at 25 ms, until 45, so that 7 ends at 55 on big or at 70 on a little.

    By hand eager takes 300 + 200 + 600 + 100 + 90 mJ for 0 to 6, and 7 adds 300 or 100: 1590 + 14 * 55 = 2360 or
    1390 + 14 * 70 = 2370. eager_energy takes 4 * 300 + 3 * 100 + 120 + 14 * 50 = 2320.
    """
    ours, eager = simulate(EagerEnergy(), NODE, JOBS), simulate("eager", NODE, JOBS)
    assert eager.classes[6] == "little"
    ours_mj, eager_mj = (1e3 * done.energy_j + NODE.idle_w * max(done.end_ms) for done in (ours, eager))
    assert ours_mj == pytest.approx(2320, abs=2)
    assert eager_mj == pytest.approx({"big": 2360, "little": 2370}[eager.classes[7]], abs=2)


HOT = Node("hot", ("core", "core"), {"core": (1.0, 11.0), "card": (8.0, 508.0)}, gpus=("card",))
"""20 W with nothing running."""
SHORT = {"core": (2e-3, 0.02), "card": (1e-3, 0.50)}


def test_a_costly_card_stays_idle_while_tasks_wait() -> None:
    """A task costs 20 + 20 * 2 = 60 mJ on a core, and 40 more behind another one; 500 + 20 * 1 = 520 on the card."""
    outcome = simulate(EagerEnergy(), HOT, [Job(SHORT)] * 8)
    assert set(outcome.classes) == {"core"}
    assert "card" in simulate("eager", HOT, [Job(SHORT)] * 8).classes


@pytest.mark.parametrize(("wait_weight", "takes_ms"), [(0.0, 1e9), (1.0, 5.0), (2.0, 2.5)])
def test_the_costlier_worker_takes_a_task_when_waiting_costs_more(
    wait_weight: float, takes_ms: float
) -> None:
    """60 mJ more on worker 0, as long on both, 12 W with nothing running: even after 5 ms, at weight 2 after 2.5 ms."""
    workers = workers_of([0, 1], [[1e-3, 1e-3]], [[0.08, 0.02]])
    for available_ms in (0.0, 0.99 * takes_ms, 1.01 * takes_ms):
        workers["available_s"][0, 1] = 1e-3 * available_ms
        picked = EagerEnergy(wait_weight=wait_weight).pick(
            0, kinds_of([1]), workers, system_of(), empty_memory()
        )
        assert (picked == 0) == (available_ms > takes_ms and wait_weight > 0)


def test_the_time_that_a_slow_cheap_worker_takes_is_charged() -> None:
    """Worker 1 saves 50 mJ and takes 10 ms longer, which is 120 mJ of the machine's 12 W."""
    workers = workers_of([0, 1], [[1e-3, 11e-3]], [[0.06, 0.01]])
    picked = [EagerEnergy().pick(w, kinds_of([1]), workers, system_of(), empty_memory()) for w in (0, 1)]
    assert picked == [0, -1]


def test_data_that_have_to_come_first_are_waited_for() -> None:
    """Worker 0 saves 50 mJ; its data take 5 ms, which is 60 mJ. A transfer that nobody measured counts nothing."""
    workers = workers_of([0, 1], [[1e-3, 1e-3]], [[0.01, 0.06]])
    for transfer_s, takes in ((5e-3, 1), (4e-3, 0), (float("nan"), 0)):
        workers["transfer_s"][0, 0] = transfer_s
        picked = [EagerEnergy().pick(w, kinds_of([1]), workers, system_of(), empty_memory()) for w in (0, 1)]
        assert picked[takes] == 0
        assert picked[1 - takes] == -1


def test_on_equal_workers_it_is_eager_in_the_order_of_arrival() -> None:
    ready = kinds_of([1, 1, 1])
    ready["sequence"] = [7, 3, 5]
    workers = workers_of([0, 0], [[1.0], [5.0], [0.1]])
    workers["available_s"][:, 0] = 2.0
    assert EagerEnergy().pick(1, ready, workers, system_of(), empty_memory()) == 1


def epoch(scheduler: str, output: Path) -> tuple[float, pd.DataFrame]:
    """Joules of an epoch of lenet on weak_cores_hot_gpu, and its tasks."""
    asked = [
        "platform=weak_cores_hot_gpu",
        "model=lenet",
        "dataset=synthetic",
        "dataset.train_size=320",
        "epochs=1",
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.run",
            f"scheduler={scheduler}",
            f"output={output}",
            f"name={scheduler}",
            *asked,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (output / scheduler).iterdir()
    tasks = pd.read_parquet(folder / "tasks.parquet")
    summary = json.loads((folder / "summary.json").read_text())
    return summary["joules_per_epoch"], tasks[tasks["window"] == "epoch"]


def test_it_saves_two_thirds_of_eagers_joules_on_weak_cores_hot_gpu(tmp_path: Path) -> None:
    """lenet's convolutions take 1.04 and 11.9 ms and 1.35 and 15.5 mJ on a core, 6 and 17 us and 2.1 and 5.7 mJ on the
    GPU. The machine idles at 30 + 31 * 0.2 + 40 = 76.2 W, which makes that 81 and 922 mJ on a core and 2.5 and 7 mJ on
    the GPU: the cores leave all of them, up to a wait of a millisecond. eager gives most of them to whoever is free.
    """
    ours_j, ours = epoch("eager_energy", tmp_path)
    eager_j, eager = epoch("eager", tmp_path)
    assert ours_j < eager_j / 3
    convolutions = [tasks[tasks["codelet"] == "conv2d"]["worker"] for tasks in (ours, eager)]
    assert set(convolutions[0]) == {0}
    assert (convolutions[1] != 0).any()
