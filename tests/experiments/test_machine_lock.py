"""The lock that keeps two measured runs from running side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.machine_lock import MachineBusyError, measuring

HOLD = """
import sys
from pathlib import Path
from experiments.machine_lock import measuring
with measuring(Path("elsewhere")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock's file, for this test and what it starts."""
    path = tmp_path / "lock"
    monkeypatch.setenv("DAHL_LOCK", str(path))
    return path


@pytest.fixture
def other(lock: Path) -> Iterator[int]:
    """Another process that holds it: its number."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child.pid


def test_a_second_process_is_told_who_measures_and_where(other: int, tmp_path: Path) -> None:
    told = rf"process {other} \(records: elsewhere\).*allow_concurrent=true"
    with pytest.raises(MachineBusyError, match=told), measuring(tmp_path):
        pass


def test_it_can_be_asked_to_measure_beside_another(other: int, tmp_path: Path) -> None:
    with measuring(tmp_path, allow_concurrent=True):
        pass


def test_the_lock_is_free_when_its_holder_was_killed(other: int, lock: Path, tmp_path: Path) -> None:
    os.kill(other, 9)
    os.waitid(os.P_PID, other, os.WEXITED | os.WNOWAIT)
    with measuring(tmp_path):
        assert json.loads(lock.read_text()) == {"pid": os.getpid(), "folder": str(tmp_path)}
    assert lock.read_text() == ""


def test_a_link_in_its_place_is_refused_and_what_it_points_to_stays(lock: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("words")
    lock.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"), measuring(tmp_path):
        pass
    assert precious.read_text() == "words"
