"""The notebooks run on the example runs that are committed, read only, and hold no output."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import load_runs

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def digests() -> dict[str, str]:
    return {
        str(path.relative_to(FOLDER)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.rglob("*")
        if path.is_file() and ".ipynb_checkpoints" not in path.parts
    }


def test_there_is_a_notebook_on_traces_one_on_comparing_and_one_on_simulating() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["compare_schedulers", "power_traces", "simulate_a_node"]


def test_they_run_from_top_to_bottom_and_change_nothing() -> None:
    pytest.importorskip("nbmake", reason="nbmake, of the extra `dev`, is not installed")
    before = digests()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        "--nbmake-timeout=120",
        "-p",
        "no:cacheprovider",
        "-q",
    ]
    # The warnings of Jupyter's own packages are theirs.
    plain = ["--override-ini=filterwarnings=default", "--override-ini=timeout=0", "--override-ini=addopts="]
    done = subprocess.run(
        [*command, *plain, *map(str, NOTEBOOKS)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{len(NOTEBOOKS)} passed" in done.stdout
    assert digests() == before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_committed(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_the_example_is_small_and_whole() -> None:
    runs = load_runs(FOLDER / "example")
    assert runs.problems.empty
    assert set(runs.summary["status"]) == {"finished"}
    assert set(runs.summary["experiment"]) == {"compare", "node", "power"}
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 700_000
    assert not any(run.environment["dirty"] for run in runs), "made from a commit"
