"""From a source of StarPU, whoever provides it, to an unpacked tree that can be configured."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from getstarpu.apt import MINIMUM, PrivateApt, Source, fetch, sha256_of, version_numbers
from getstarpu.apt_sources import configured_archives, distribution, suites_to_try
from getstarpu.process import GetStarpuError, Processes


def named_source(value: str) -> Source:
    """The source that `STARPU_SRC` names.

    Raises:
        GetStarpuError: there is neither a folder nor a file of that name.
    """
    path = Path(value).expanduser().resolve()
    if path.is_dir():
        return Source(path, f"folder {path}", _fingerprint(path))
    if path.is_file():
        return Source(path, f"tarball {path}", sha256_of(path))
    raise GetStarpuError(f"STARPU_SRC is {value!r}, which is neither a folder nor a tarball")


def distribution_source(work: Path, processes: Processes, log: Path, say: Callable[[str], None]) -> Source:
    """Fetch StarPU's source package from the archive of this machine's distribution into `work`.

    Raises:
        GetStarpuError: the distribution is not known, has no mirror configured, or serves no StarPU >= 1.4.
    """
    of = distribution()
    suites = suites_to_try(configured_archives(), of)
    apt = PrivateApt(work / "apt", processes, log, Path("/usr/share/keyrings"))
    return fetch(apt, suites, of, say)


def unpack(source: Source, into: Path, processes: Processes, log: Path) -> Path:
    """A private copy of the source tree below `into`; returns the folder that has `configure`.

    Raises:
        GetStarpuError: it cannot be unpacked, or it is no release of StarPU with a `configure` script.
    """
    into.mkdir(parents=True)
    if source.path.is_dir():
        tree = into / "tree"
        shutil.copytree(source.path, tree, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    else:
        command: list[str | Path] = [
            "tar",
            "--extract",
            "--no-same-owner",
            "--file",
            source.path,
            "--directory",
            into,
        ]
        if processes.run(command, log) != 0:
            raise GetStarpuError(f"{source.path} cannot be unpacked", log)
        folders = [entry for entry in into.iterdir() if entry.is_dir()]
        if len(folders) != 1:
            raise GetStarpuError(f"{source.path} holds {len(folders)} folders, a release of StarPU 1")
        tree = folders[0]
    if not (tree / "configure").is_file():
        raise GetStarpuError(f"{source.origin} has no configure script: run ./autogen.sh there first")
    if (tree / "config.status").exists():
        raise GetStarpuError(f"{source.origin} is configured in place: run `make distclean` there first")
    return tree


def version_of(tree: Path, source: Source) -> str:
    """The version that the tree's `configure` states, at least 1.4.

    Raises:
        GetStarpuError: it is older, or not StarPU's.
    """
    text = (tree / "configure").read_text(encoding="utf-8", errors="replace")
    name = re.search(r"^PACKAGE_NAME='(.*)'$", text, re.MULTILINE)
    version = re.search(r"^PACKAGE_VERSION='(.*)'$", text, re.MULTILINE)
    if not name or not version or "starpu" not in name[1].lower():
        raise GetStarpuError(f"{source.origin} is not StarPU but {name[1] if name else 'unnamed'}")
    if version_numbers(version[1]) < MINIMUM:
        raise GetStarpuError(
            f"{source.origin} is StarPU {version[1]}, but {'.'.join(map(str, MINIMUM))} or newer is needed"
        )
    return version[1]


def _fingerprint(folder: Path) -> str:
    """A digest over names, sizes and times: quick, and different after any edit."""
    digest = hashlib.sha256()
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(files):
            file = Path(root) / name
            status = file.lstat()
            digest.update(f"{file.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
