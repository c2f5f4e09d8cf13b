from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import doctor
from experiments import environment as machine
from experiments.validation import CHECKOUT


def test_it_says_what_there_is_within_ten_seconds(environment: dict[str, str], tmp_path: Path) -> None:
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "experiments.doctor", "--json", str(tmp_path / "report.json")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started_s < 10
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"starpu", "energy", "sampler", "datasets", "machine", "software", "disk"}
    assert report["machine"]["processors"] >= 1
    assert report["software"]["numpy"] in done.stdout


def test_it_never_fails_where_nothing_is_there(environment: dict[str, str], tmp_path: Path) -> None:
    """A copy of this package alone, without StarPU, data, energy, git or any command.

    The interpreter is the one under the virtual environment: there the project is installed.
    """
    shutil.copytree(
        CHECKOUT / "experiments", tmp_path / "experiments", ignore=shutil.ignore_patterns("__pycache__")
    )
    done = subprocess.run(
        [getattr(sys, "_base_executable", sys.executable), "-m", "experiments.doctor"],
        env={**environment, "PATH": "", "PYTHONPATH": str(tmp_path), "STARPU_PREFIXES": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for absent in ("native         absent: ModuleNotFoundError", "-> make setup"):
        assert absent in done.stdout


def test_a_report_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json", "/proc/report.json"]) == 2
    assert capsys.readouterr().err.startswith("error: /proc/report.json cannot be written (")


def test_a_probe_that_dies_hangs_or_babbles_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(code: str, limit_s: float) -> dict[str, object]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return doctor._answer(process, time.monotonic() + limit_s)

    assert answer("import os; os.abort()", 20) == {"error": "killed by SIGABRT: no output"}
    assert answer("import time; time.sleep(60)", 0.2) == {"error": "no answer within 8 s"}
    assert answer("import sys; sys.exit('no library')", 20) == {"error": "exit status 1: no library"}
    assert answer("print('noise'); print('{\"version\": \"1.4\"}')", 20) == {"version": "1.4"}


def test_the_governor_and_the_driver_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    for cpu, name in (("cpu0", "performance"), ("cpu1", "powersave"), ("cpu2", "performance")):
        folder = tmp_path / cpu / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(name + "\n")
    assert machine.governor(tmp_path) == "performance, powersave"
    assert machine.governor(tmp_path / "nothing") is None
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    assert machine.nvidia_driver(version) == "550.54.15"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (builder@U16)\n"
    )
    assert machine.nvidia_driver(version) == "570.86.15"


def test_a_commit_is_dirty_once_a_file_is_new(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    assert machine.commit(tmp_path) == {"commit": None, "dirty": None}
    git("init")
    git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "--allow-empty", "-m", "x")
    found = machine.commit(tmp_path)
    assert len(found["commit"]) == 40
    assert found["dirty"] is False
    (tmp_path / "policy.py").touch()
    assert machine.commit(tmp_path)["dirty"] is True
