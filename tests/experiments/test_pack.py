"""An archive of runs: the same bytes every time, whole by its own manifest, and enough to draw the figures again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from experiments import pack, records
from experiments.validation import CHECKOUT
from tests.experiments.synthetic_runs import write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "two_schedulers"
    for scheduler in ("eager", "lws"):
        write_run(folder, scheduler)
    return folder


def extracted(archive: Path, folder: Path) -> Path:
    """The one folder that an archive holds."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Path) -> str:
    assert pack.main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said.removeprefix("error: ").strip()


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_the_same_runs_make_the_same_bytes(runs: Path, tmp_path: Path, ending: str) -> None:
    archives = [tmp_path / f"{name}{ending}" for name in ("first", "second")]
    assert pack.main([str(runs), str(archives[0])]) == 0
    for path in runs.rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert pack.main([str(runs), str(archives[1])]) == 0
    assert archives[0].read_bytes() == archives[1].read_bytes()
    (runs / "note.txt").write_text("one file more")
    assert pack.main([str(runs), str(archives[1])]) == 0
    assert archives[0].read_bytes() != archives[1].read_bytes()


@pytest.mark.parametrize("ending", [".tgz", ".zip"])
def test_its_manifest_is_one_that_sha256sum_checks(runs: Path, tmp_path: Path, ending: str) -> None:
    archive = tmp_path / f"out{ending}"
    assert pack.main([str(runs), str(archive)]) == 0
    root = extracted(archive, tmp_path / "unpacked")
    assert root.name == "two_schedulers"
    check = ["sha256sum", "--check", "--quiet", "--strict", "MANIFEST.sha256"]
    assert subprocess.run(check, cwd=root, check=False).returncode == 0
    listed = {line.split("  ", 1)[1] for line in (root / "MANIFEST.sha256").read_text().splitlines()}
    assert listed == {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - {
        "MANIFEST.sha256"
    }
    (root / "requirements.lock").write_text("numpy\n")
    assert subprocess.run(check, cwd=root, check=False, capture_output=True).returncode == 1


def test_it_holds_records_configurations_and_what_the_runs_ran_on(runs: Path) -> None:
    first, _ = sorted(runs.iterdir())
    found = records.read_json(first / records.ENVIRONMENT_NAME)
    found |= {
        "starpu": {"version": "1.4.10", "variant": "native"},
        "libraries": {"numpy": "2.4.6"},
        "dirty": False,
    }
    records.write_json(first / records.ENVIRONMENT_NAME, found)
    files = pack.contents(runs)
    for path in (path for path in runs.rglob("*") if path.is_file()):
        assert files[f"records/{path.relative_to(runs).as_posix()}"] == path.read_bytes()
    for name in ("requirements.lock", "configs/run.yaml", "experiments/report.py", "LICENSE", "CITATION.cff"):
        assert files[name] == (CHECKOUT / name).read_bytes()
    versions = json.loads(files["versions.json"])
    assert versions["runs"]["starpu"] == {"1.4.10": 1, "unknown": 1}
    assert versions["runs"]["commit"] == {"c0ffee": 2}
    assert b"2 runs of `dahl`, 2 finished." in files["README.md"]
    assert not any(name.endswith((".so", ".pyc")) for name in files)


def test_half_written_files_stay_out(runs: Path) -> None:
    (next(runs.iterdir()) / ".summary.json.7.tmp").write_text("{")
    assert not any(name.endswith(".tmp") for name in pack.contents(runs))


def test_replaying_it_elsewhere_draws_the_figures(runs: Path, tmp_path: Path) -> None:
    """Without this checkout, its StarPU and its compiled modules: they are not on the path."""
    archive = tmp_path / "out.tar.gz"
    assert pack.main([str(runs), str(archive)]) == 0
    root = extracted(archive, tmp_path / "unpacked")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "replay.py", "--resamples", "99"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (root / "figures" / "report.html").stat().st_size > 10_000
    assert any((root / "figures" / "figures").glob("*.png"))
    shown = "import experiments; print(experiments.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", shown], cwd=root, env=environment, capture_output=True, check=True
    )
    assert Path(where.stdout.decode().strip()).is_relative_to(root), (
        "the checkout's own modules were imported"
    )


def test_the_archive_is_named_for_the_folder(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pack.main([str(runs)]) == 0
    assert (tmp_path / "two_schedulers.tar.gz").exists()


def test_what_cannot_be_packed_is_one_clear_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(capsys, tmp_path / "none").endswith(
        "no such folder; give one of runs, such as runs/schedulers_on_host"
    )
    assert refusal(capsys, empty).endswith(
        "no run's summary.json in there; `output=` and `name=` of a run say where"
    )
    assert refusal(capsys, runs, tmp_path / "out.rar").endswith("the name must end in .tar.gz, .tgz, .zip")
    assert refusal(capsys, runs, runs / "out.zip").endswith(
        "lies in the folder that is packed; name another place"
    )
    link = runs / "link"
    link.symlink_to(tmp_path)
    assert refusal(capsys, runs).endswith("a link cannot be packed; put what it points to in its place")
    link.unlink()
    torn = write_run(runs, "lws") / "summary.json"
    torn.write_text("{")
    assert f"{torn}: cannot be read" in refusal(capsys, runs)
    torn.unlink()
    write_run(runs, "ws", status="running")
    assert "still runs, or was killed with its supervisor" in refusal(capsys, runs, tmp_path / "out.zip")
    assert not list(tmp_path.glob("out.*"))


def test_the_citation_has_what_its_format_asks_for() -> None:
    """Required keys of the Citation File Format 1.2.0, and the project's own name for its licence and version."""
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert all(cited[key] for key in ("message", "title", "authors"))
    project = (CHECKOUT / "pyproject.toml").read_text()
    assert f'version = "{cited["version"]}"' in project
    assert f'license = "{cited["license"]}"' in project
