"""`python -m experiments.pack DIR [OUT]`: one archive of runs, and of what it takes to draw their figures again.

It holds the records, the project's source with its configurations, the locked versions of libraries, which StarPU and
which commits the runs had, and `replay.py`, which draws the figures from the records. The same records and the same
source make the same bytes: names are sorted, times and owners are left out.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import environment, records
from experiments.validation import CHECKOUT

PACKAGES = ("compiling", "configs", "dahl", "energy", "experiments", "schedulers")
FILES = ("CITATION.cff", "LICENSE", "pyproject.toml", "requirements.lock")
"""What of the checkout is packed: enough to read and to draw the records."""
SUFFIXES = (".tar.gz", ".tgz", ".zip")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_MODE = 0o644

_REPLAY = '''"""Draw the figures of records/ again, into figures/: `python replay.py`; --help tells the options."""

import subprocess
import sys
from pathlib import Path

root = Path(__file__).resolve().parent
command = [sys.executable, "-m", "experiments.report", "records", "--out", "figures", *sys.argv[1:]]
sys.exit(subprocess.run(command, cwd=root, check=False).returncode)
'''

_README = """# {name}

{runs} of `dahl`, {statuses}.

- `records/`: a folder for each run, as the runs left them; docs/records.md of the project describes the files.
- `versions.json`: the StarPU, Python, libraries, CPUs and commits of the runs, and the commit of the source in here.
- `MANIFEST.sha256`: the digest of every other file; `sha256sum --check --quiet MANIFEST.sha256` compares them.
- `replay.py`: draws the figures from the records into `figures/`, on any machine, without StarPU.

```
python3 -m venv venv
venv/bin/pip install --requirement requirements.lock
venv/bin/python replay.py
```

`CITATION.cff` says how to cite the project, LICENSE (Apache-2.0) what may be done with its source.
"""


class PackError(Exception):
    """A folder cannot be packed; the message says why and what to do."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the archive by its name, the manifest last. Raises PackError."""
    runs = _runs(folder)
    files = {f"records/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in _files(folder)}
    files |= {path.relative_to(CHECKOUT).as_posix(): path.read_bytes() for path in _source()}
    statuses = Counter(str(summary.get("status")) for summary in runs.values())
    files["README.md"] = _README.format(
        name=folder.name,
        runs="1 run" if len(runs) == 1 else f"{len(runs)} runs",
        statuses=", ".join(f"{count} {status}" for status, count in sorted(statuses.items())),
    ).encode()
    files["replay.py"] = _REPLAY.encode()
    files["versions.json"] = (json.dumps(_versions(runs), indent=2, sort_keys=True) + "\n").encode()
    files = dict(sorted(files.items()))
    digests = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    return {**files, "MANIFEST.sha256": digests.encode()}


def _runs(folder: Path) -> dict[Path, dict[str, Any]]:
    """The summary of each run under a folder."""
    if not folder.is_dir():
        raise PackError(f"{folder}: no such folder; give one of runs, such as runs/schedulers_on_host")
    found = {path.parent: _summary(path) for path in sorted(folder.rglob(records.SUMMARY_NAME))}
    if not found:
        raise PackError(
            f"{folder}: no run's {records.SUMMARY_NAME} in there; `output=` and `name=` of a run say where"
        )
    for run_dir, summary in found.items():
        if summary.get("status") == "running":
            raise PackError(
                f"{run_dir}: still runs, or was killed with its supervisor; wait for it, or move it away"
            )
    return found


def _summary(path: Path) -> dict[str, Any]:
    try:
        return records.read_json(path)
    except ValueError as error:
        raise PackError(f"{path}: cannot be read ({error}); move the run away") from error


def _files(folder: Path) -> Iterator[Path]:
    """The records; what a killed process left half written is none."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise PackError(f"{path}: a link cannot be packed; put what it points to in its place")
        if path.is_file() and not (path.name.startswith(".") and path.name.endswith(".tmp")):
            yield path


def _source() -> list[Path]:
    """The packed part of the checkout: what git has of it, or without git what is there."""
    missing = [name for name in (*PACKAGES, *FILES) if not (CHECKOUT / name).exists()]
    if missing:
        raise PackError(f"{CHECKOUT}: {', '.join(missing)} is missing; run this from a whole checkout")
    listed = subprocess.run(
        [
            "git",
            "-C",
            str(CHECKOUT),
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            *PACKAGES,
            *FILES,
        ],
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        return [
            path
            for name in listed.stdout.decode().split("\0")
            if name and (path := CHECKOUT / name).is_file()
        ]
    found = [path for name in PACKAGES for path in (CHECKOUT / name).rglob("*")]
    built = ("__pycache__", ".so", ".stamp")
    kept = [path for path in found if path.is_file() and not any(part.endswith(built) for part in path.parts)]
    return [*kept, *(CHECKOUT / name for name in FILES)]


def _versions(runs: Mapping[Path, Any]) -> dict[str, Any]:
    """What the runs ran on: each value that was seen, with the number of runs that had it."""
    seen: dict[str, Counter[str]] = {}
    for run_dir in runs:
        path = run_dir / records.ENVIRONMENT_NAME
        found = records.read_json(path) if path.exists() else {}
        starpu = found.get("starpu") or {}
        facts = {key: found.get(key) for key in ("commit", "dirty", "python", "cpu", "processors", "kernel")}
        facts |= {"starpu": starpu.get("version"), "starpu_variant": starpu.get("variant")}
        facts |= {"torch": (found.get("torch") or {}).get("version"), **(found.get("libraries") or {})}
        for name, value in facts.items():
            seen.setdefault(name, Counter())["unknown" if value is None else str(value)] += 1
    return {
        "runs": {name: dict(sorted(values.items())) for name, values in seen.items()},
        "source": environment.commit(CHECKOUT),
    }


def write_archive(files: Mapping[str, bytes], root: str, out: Path) -> None:
    """Write the files under one folder `root`, whole; the same files give the same bytes."""
    named = {f"{root}/{name}": data for name, data in files.items()}
    records.write_whole(out, _zip(named) if out.name.endswith(".zip") else _tar_gz(named))


def _tar_gz(files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), _MODE
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), mtime=0)


def _zip(files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr, entry.compress_type = _MODE << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return raw.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.pack", description=__doc__)
    parser.add_argument(
        "runs", type=Path, metavar="DIR", help="a folder of runs, such as runs/schedulers_on_host"
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="default DIR's name with .tar.gz; or .zip"
    )
    asked = parser.parse_args(arguments)
    folder = asked.runs.resolve()
    out = asked.out or Path(f"{folder.name}.tar.gz")
    try:
        if not out.name.endswith(SUFFIXES):
            raise PackError(f"{out}: the name must end in {', '.join(SUFFIXES)}")
        if out.resolve().is_relative_to(folder):
            raise PackError(f"{out}: lies in the folder that is packed; name another place")
        files = contents(folder)
        write_archive(files, folder.name, out)
    except (PackError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {len(files)} files, {out.stat().st_size / 1e6:,.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
