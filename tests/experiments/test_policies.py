"""Policies from files of one's own, and what is said of files that hold none."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dahl.datasets import Synthetic
from energy import Selection
from experiments.policies import PolicyFileError, load_scheduler
from experiments.validation import CHECKOUT, CONFIGS
from experiments.workload import Workload

GOOD = """
from dataclasses import dataclass
from typing import ClassVar, final

from schedulers import PlacementPolicy, PullPolicy


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mine(PlacementPolicy):
    slowdown: float = 1.5

    def __post_init__(self):
        if not self.slowdown >= 1:
            raise ValueError(f"slowdown must be at least 1, got {self.slowdown}")

    def place(self, task, workers, system, memory):
        best = -1
        for w in range(len(workers)):
            if workers[w].can_run and (best < 0 or workers[w].energy_j < workers[best].energy_j):
                best = w
        return best
"""
numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module under a name of its own; returns that name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> str:
        name = f"own_policy_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_a_policy_of_ones_own_is_made_with_its_fields(module: Any) -> None:
    name = module(GOOD)
    policy = load_scheduler({"_target_": f"{name}.Mine", "slowdown": 2, "compiled": False, "explain": True})
    assert (type(policy).__name__, policy.slowdown) == ("Mine", 2)
    assert load_scheduler({"_target_": f"{name}.Mine"}).slowdown == 1.5


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("return best", "return best +"), r"own_policy_\d+.py, line 22: invalid syntax"),
        (
            changed("slowdown: float", "slowdown: floot"),
            r"NameError: name 'floot' is not defined \(.*, line 11\)",
        ),
        (
            changed("from typing", "import nowhere_to_be_found\nfrom typing"),
            r"No module named 'nowhere_to_be_found'",
        ),
        (
            changed("class Mine", "class Yours"),
            r"Mine: has no such class; policies in own_policy_\d+: Yours$",
        ),
        (changed("(PlacementPolicy)", ""), r"is no subclass of PlacementPolicy or PullPolicy; .*: none$"),
        (
            changed("def place", "def plaice"),
            r"Mine lacks the method place\(self, task, workers, system, memory\)",
        ),
        (
            changed("task, workers, system, memory", "task, workers"),
            r"Mine.place\(self, task, workers\) must be place\(self, task, workers, system, memory\)",
        ),
        (
            changed("    slowdown", '    HOOKS: ClassVar = ("task_ended",)\n    slowdown'),
            r"Mine lacks the method task_ended\(self, task, worker, length_s, system, memory\)",
        ),
        (
            changed("    slowdown", '    HOOKS: ClassVar = ("ended",)\n    slowdown'),
            r"HOOKS takes .*, got ended",
        ),
        (
            changed("    slowdown", "    PLANS: ClassVar = True\n    slowdown"),
            r"Mine lacks the method plan\(self",
        ),
        (
            changed("    slowdown", '    NEEDS: ClassVar = ("energy_j", "joules")\n    slowdown'),
            r"Mine.NEEDS takes length_s, energy_j, idle_w, busy_w, got joules$",
        ),
        (
            changed("    slowdown", "    CHECKS: ClassVar = True\n    slowdown"),
            r"Mine lacks the method check_machine\(self, workers, system\)",
        ),
        (
            changed("@dataclass(frozen=True, slots=True, kw_only=True)", ""),
            r"Mine lacks its decorator: @dataclass",
        ),
        (changed("float = 1.5", "str = 'fast'"), r"slowdown must be declared as float, int or bool, not as"),
        (changed("float = 1.5", "float = None"), r"Mine: slowdown must be a number, got None"),
        (changed("float = 1.5", "float"), r"Mine needs slowdown: \+scheduler.slowdown=\.\.\."),
        (
            changed("if not self.slowdown >= 1", "if self.slowness"),
            r"Mine cannot be made: AttributeError: .*line 14",
        ),
    ],
)
def test_a_file_that_holds_no_policy_is_one_line_that_says_why(text: str, message: str, module: Any) -> None:
    with pytest.raises(PolicyFileError, match=message) as caught:
        load_scheduler({"_target_": f"{module(text)}.Mine"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slowdown": "fast"}, "Mine: slowdown must be a number, got 'fast'"),
        ({"slowdown": True}, "Mine: slowdown must be a number, got True"),
        ({"slowdown": None}, "Mine: slowdown must be a number, got None"),
        ({"speedup": 1.0}, "Mine has no field speedup; it has: slowdown"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused(values: dict[str, Any], message: str, module: Any) -> None:
    with pytest.raises(PolicyFileError) as caught:
        load_scheduler({"_target_": f"{module(GOOD)}.Mine", **values})
    assert str(caught.value) == message


def test_a_value_out_of_range_is_refused_in_the_policys_words(module: Any) -> None:
    with pytest.raises(ValueError, match=r"^slowdown must be at least 1, got 0.5$"):
        load_scheduler({"_target_": f"{module(GOOD)}.Mine", "slowdown": 0.5})


def test_a_module_that_is_not_there_says_where_it_has_to_be() -> None:
    with pytest.raises(
        PolicyFileError, match=r"no module nobody_wrote_me; put the folder of its file on PYTHONPATH"
    ):
        load_scheduler({"_target_": "nobody_wrote_me.Mine"})
    with pytest.raises(PolicyFileError, match=r"_target_=Mine: must be MODULE.CLASS"):
        load_scheduler({"_target_": "Mine"})


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with a folder of one's own on PYTHONPATH, on a small simulation."""
    small = ("platform=cpu8_gpu2", "dataset=synthetic", "dataset.train_size=200", "dataset.test_size=100")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.run",
            *arguments,
            *small,
            "epochs=1",
            f"output={folder / 'runs'}",
        ],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def summary(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "runs").glob("*/*/summary.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def test_the_command_runs_a_policy_of_ones_own_by_its_class(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    done = run(tmp_path, "scheduler=own", "scheduler._target_=mine.Mine", "+scheduler.slowdown=1.25")
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary(tmp_path)["scheduler"] == "Mine"
    assert summary(tmp_path)["joules_per_epoch"] > 0
    assert done.stdout.startswith("Mine · basic_cnn · synthetic · cpu8_gpu2\n")


def test_the_command_takes_a_configuration_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "mine.yaml").write_text("_target_: mine.Mine\nslowdown: 1.25\ncompiled: true\n")
    done = run(tmp_path, "--config-dir", str(tmp_path), "scheduler=mine", "scheduler.slowdown=1.75")
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary(tmp_path)["scheduler"] == "mine"


@pytest.mark.parametrize(
    ("text", "arguments", "cause"),
    [
        (changed("return best", "return best +"), (), "mine.py, line 22: invalid syntax"),
        (
            changed("def place", "def plaice"),
            (),
            "Mine lacks the method place(self, task, workers, system, memory)",
        ),
        (GOOD, ("+scheduler.slowdown=fast",), "Mine: slowdown must be a number, got 'fast'"),
        (GOOD, ("+scheduler.slowdown=0.5",), "slowdown must be at least 1, got 0.5"),
    ],
    ids=["syntax", "method", "type", "range"],
)
def test_a_bad_policy_file_ends_the_command_with_one_line_before_the_first_task(
    text: str, arguments: tuple[str, ...], cause: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(text)
    done = run(tmp_path, "scheduler=own", "scheduler._target_=mine.Mine", *arguments)
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert len(said) == 1, done.stdout
    assert said[0].endswith(cause)
    assert "Traceback" not in done.stdout + done.stderr
    assert summary(tmp_path)["status"] == "failed"
    assert not list((tmp_path / "runs").glob("*/*/tasks.*"))


def test_a_field_without_its_plus_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    done = run(tmp_path, "scheduler=own", "scheduler._target_=mine.Mine", "scheduler.slowdown=2")
    assert done.returncode == 2
    assert done.stderr == (
        "error: unknown key 'scheduler.slowdown'; "
        "a field of your own policy is added with a plus: +scheduler.slowdown=...\n"
    )


def test_own_needs_its_target(tmp_path: Path) -> None:
    done = run(tmp_path, "scheduler=own")
    assert done.returncode == 2
    assert done.stderr == "error: scheduler._target_ must be given: scheduler._target_=...\n"


REFUSES = """
    CHECKS: ClassVar = True

    def check_machine(self, workers, system):
        raise ValueError(f"{len(workers)} workers of {system.base_w:g} W are too many")
"""


@pytest.mark.parametrize(
    ("scheduler", "cause"),
    [
        (
            ("scheduler=power_cap", "scheduler.cap_w=69.5"),
            "cap_w=69.5 is below the 70 W that the machine draws with nothing running: "
            "give more, or cap_w=0 and a cap_share",
        ),
        (("scheduler=own", "scheduler._target_=mine.Mine"), "8 workers of 40 W are too many"),
        (("scheduler=own", "scheduler._target_=mine.Mine", "scheduler.compiled=false"), "are too many"),
    ],
    ids=["cap", "own", "interpreted"],
)
def test_a_machine_on_which_a_policy_cannot_work_ends_the_command_before_the_first_task(
    scheduler: tuple[str, ...], cause: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(GOOD + REFUSES)
    done = run(tmp_path, *scheduler)
    assert done.returncode == 1
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("failed: "))
    assert said.endswith(cause)
    assert not list((tmp_path / "runs").glob("*/*/tasks.*"))


@pytest.mark.parametrize(
    ("name", "asked_for"), [("erase", False), ("power_cap", True), ("eager", False), ("dmda", True)]
)
def test_lengths_are_measured_only_for_a_scheduler_that_needs_them(name: str, asked_for: bool) -> None:
    scheduler = load_scheduler(OmegaConf.load(CONFIGS / "scheduler" / f"{name}.yaml"))
    workload = Workload({}, Synthetic().load(), None, scheduler, None, Selection((), ()))
    assert workload.needs_costs == asked_for
