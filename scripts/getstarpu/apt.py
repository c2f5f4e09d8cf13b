"""Fetching StarPU's source package with apt, without touching the state of the machine's own apt.

Trust comes from apt: the archive's index must carry a signature by the distribution's keyring, the index
holds the checksum of the `.dsc`, and the `.dsc` those of its files. The last step is checked here once more.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from getstarpu.apt_sources import Distribution, deb822_stanzas
from getstarpu.process import GetStarpuError, Processes

PACKAGE = "starpu"
MINIMUM = (1, 4)


@dataclass(frozen=True)
class Source:
    """A source of StarPU on disk: a folder or a tarball, and where it came from."""

    path: Path
    origin: str
    sha256: str
    """Of the tarball; of names, sizes and times for a folder."""


class NotServedError(GetStarpuError):
    """One suite did not give a StarPU that is new enough; another one may."""


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without a package's epoch: `1:1.4.10+dfsg-2` -> (1, 4, 10)."""
    match = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in match[1].split(".")) if match else ()


class PrivateApt:
    """apt with a state folder of its own, for one suite of one mirror.

    The machine's proxies, credentials and certificates stay in force; its sources, pins and hooks do not.
    """

    def __init__(self, home: Path, processes: Processes, log: Path, keyrings: Path) -> None:
        self.home = home
        self.processes = processes
        self.log = log
        self.keyrings = keyrings

    def select(self, suite: str, uri: str, of: Distribution) -> None:
        """Point apt at one suite, with nothing left of the one before.

        Raises:
            GetStarpuError: the keyring of the distribution is not installed.
        """
        installed = (self.keyrings / name for name in of.keyrings)
        keyring = next((file for file in installed if file.is_file()), None)
        if keyring is None:
            raise GetStarpuError(
                f"the keyring {of.keyrings[0]} of {of.name} is not in {self.keyrings}:"
                f" install the package {of.name}-archive-keyring or {of.name}-keyring, or set STARPU_SRC"
            )
        shutil.rmtree(self.home, ignore_errors=True)
        for folder in ("parts", "state/lists/partial", "cache/archives/partial", "files"):
            (self.home / folder).mkdir(parents=True)
        (self.home / "status").touch()
        (self.home / "sources.list").write_text(
            f"deb-src [signed-by={keyring}] {uri} {suite} {' '.join(of.components)}\n", encoding="utf-8"
        )
        (self.home / "apt.conf").write_text(self._configuration(), encoding="utf-8")

    def update(self) -> None:
        """Fetch the signed index.

        Raises:
            NotServedError: it cannot be had or its signature does not hold.
        """
        if self.processes.run(self._command("apt-get", "update"), self.log) != 0:
            raise NotServedError(f"no valid signed index ({last_complaint(self.log)})", self.log)

    def versions(self) -> list[str]:
        """The versions of the source package that the index lists, newest first."""
        command = self._command("apt-cache", "showsrc", PACKAGE)
        shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        found = {
            stanza["version"]
            for stanza in deb822_stanzas(shown.stdout)
            if stanza.get("package", stanza.get("source")) == PACKAGE and "version" in stanza
        }
        return sorted(found, key=lambda version: (version_numbers(version), version), reverse=True)

    def download(self, version: str) -> Path:
        """Fetch one version and return its `.dsc`, checked by apt against the signed index.

        Raises:
            NotServedError: the mirror lists it but does not serve all of its files.
        """
        files = self.home / "files"
        shutil.rmtree(files)
        files.mkdir()
        arguments = ("source", "--download-only", "--only-source", f"{PACKAGE}={version}")
        status = self.processes.run(self._command("apt-get", *arguments), self.log, cwd=files)
        descriptions = sorted(files.glob("*.dsc"))
        if status != 0 or len(descriptions) != 1:
            raise NotServedError(f"{version} is listed but the mirror does not serve it", self.log)
        return descriptions[0]

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [program, "-c", str(self.home / "apt.conf"), *arguments]

    def _configuration(self) -> str:
        """Comes after the machine's own apt.conf files, so that it can clear their hooks."""
        home = self.home
        settings = {
            "Dir::Etc::sourcelist": home / "sources.list",
            "Dir::Etc::sourceparts": home / "parts",
            "Dir::Etc::preferences": home / "none",
            "Dir::Etc::preferencesparts": home / "parts",
            "Dir::State": home / "state",
            "Dir::State::status": home / "status",
            "Dir::Cache": home / "cache",
            # The user that apt would change to cannot enter a checkout below a private home folder.
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
        }
        hooks = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
        lines = [f'{key} "{value}";\n' for key, value in settings.items()]
        return "".join([*lines, *(f"#clear APT::Update::{hook};\n" for hook in hooks)])


def fetch(
    apt: PrivateApt, suites: Sequence[tuple[str, str]], of: Distribution, say: Callable[[str], None]
) -> Source:
    """Fetch the newest StarPU >= 1.4 of the first suite that serves one.

    Raises:
        GetStarpuError: none does; the message tells what was wrong with each.
    """
    reasons = []
    for suite, uri in suites:
        try:
            apt.select(suite, uri, of)
            apt.update()
            return _fetch_from(apt, suite, of)
        except NotServedError as error:
            reasons.append(f"{suite}: {error}")
            say(f"{of.name} {suite}: {error}")
    raise GetStarpuError(
        f"no StarPU >= {'.'.join(map(str, MINIMUM))} to be had from {of.name} ({'; '.join(reasons)});"
        " set STARPU_SRC to a folder or a tarball with its sources",
        apt.log,
    )


def _fetch_from(apt: PrivateApt, suite: str, of: Distribution) -> Source:
    versions = apt.versions()
    recent = [version for version in versions if version_numbers(version) >= MINIMUM]
    if not recent:
        raise NotServedError(f"only has {', '.join(versions)}" if versions else "has no StarPU")
    reasons = []
    for version in recent:
        try:
            tarball, sha256 = verified_tarball(apt.download(version))
        except NotServedError as error:
            reasons.append(str(error))
            continue
        return Source(tarball, f"{of.name} {suite}, source package {PACKAGE} {version}", sha256)
    raise NotServedError(", ".join(reasons), apt.log)


def last_complaint(log: Path) -> str:
    """The last error that apt wrote to a log, in its own words."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line[3:].strip() for line in reversed(lines) if line.startswith("E: ")), "see the log")


def verified_tarball(description: Path) -> tuple[Path, str]:
    """The upstream tarball that a `.dsc` names, and its SHA-256, after a check of every file that it names.

    Raises:
        GetStarpuError: a file is missing, its size or checksum differs, or there is no single tarball.
    """
    stanzas = deb822_stanzas(description.read_text(encoding="utf-8"))
    listed = "\n".join(stanza.get("checksums-sha256", "") for stanza in stanzas)
    tarballs = []
    for line in filter(None, listed.splitlines()):
        wanted, size, name = line.split()
        file = description.parent / Path(name).name
        if not file.is_file():
            raise GetStarpuError(f"{name}, named by {description.name}, was not fetched")
        found = sha256_of(file)
        if found != wanted or file.stat().st_size != int(size):
            raise GetStarpuError(f"{name} has the SHA-256 {found}, but {description.name} says {wanted}")
        if re.search(r"\.orig\.tar\.\w+$", name):
            tarballs.append((file, found))
    if len(tarballs) != 1:
        raise GetStarpuError(f"{description.name} names {len(tarballs)} upstream tarballs, expected 1")
    return tarballs[0]


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
