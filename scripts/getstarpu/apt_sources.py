"""The package archives that this machine's apt is configured for, and the suites worth asking for StarPU."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from getstarpu.process import GetStarpuError


@dataclass(frozen=True)
class Archive:
    """One configured archive: where it is and which suites this machine takes from it."""

    uri: str
    suites: tuple[str, ...]


@dataclass(frozen=True)
class Distribution:
    """How a distribution signs and names its archive.

    `suites` are asked first to last; `None` stands for those that the machine itself is configured for.
    """

    name: str
    keyrings: tuple[str, ...]
    components: tuple[str, ...]
    suites: tuple[str | None, ...]


DISTRIBUTIONS = (
    # Before Debian, since an Ubuntu says that it is like Debian.
    Distribution(
        "ubuntu",
        ("ubuntu-archive-keyring.gpg",),
        ("main", "universe"),
        (None, "devel"),
    ),
    Distribution(
        "debian",
        ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp"),
        ("main",),
        ("stable", "testing", "unstable"),
    ),
)

_FETCHABLE = ("http:", "https:", "file:", "copy:", "mirror+", "tor+", "mirror:")


def distribution(os_release: Path = Path("/etc/os-release")) -> Distribution:
    """The distribution of this machine, by the ID and ID_LIKE of `os_release`.

    Raises:
        GetStarpuError: it is neither Debian nor Ubuntu nor derived from them.
    """
    fields: dict[str, str] = {}
    if os_release.is_file():
        for line in os_release.read_text(encoding="utf-8").splitlines():
            key, separator, value = line.partition("=")
            if separator:
                fields[key.strip()] = " ".join(shlex.split(value))
    names = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    for candidate in DISTRIBUTIONS:
        if candidate.name in names:
            return candidate
    raise GetStarpuError(
        f"no source of StarPU is known for the distribution {names[0] or 'of this machine'!r};"
        " set STARPU_SRC to a folder or a tarball with its sources"
    )


def parse_one_line(text: str) -> list[Archive]:
    """The archives in a file of apt's one-line format (`sources.list`, `*.list`)."""
    archives = []
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", line)
        if match:
            archives.append(Archive(match[1], (match[2],)))
    return archives


def parse_deb822(text: str) -> list[Archive]:
    """The enabled archives in a file of apt's deb822 format (`*.sources`)."""
    archives = []
    for stanza in deb822_stanzas(text):
        if stanza.get("enabled", "yes").strip().lower() in {"no", "false", "0", "off", "without", "disable"}:
            continue
        suites = tuple(stanza.get("suites", "").split())
        archives += [Archive(uri, suites) for uri in stanza.get("uris", "").split()]
    return archives


def deb822_stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a deb822 file; field names in lower case, continuation lines joined by newlines."""
    stanza: dict[str, str] = {}
    key = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza, key = {}, ""
        elif line[0] in " \t":
            if key:
                stanza[key] += "\n" + line.strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            stanza[key] = value.strip()


def configured_archives(etc: Path = Path("/etc/apt")) -> list[Archive]:
    """Every archive in apt's configuration below `etc`, in apt's order."""
    archives = []
    main = etc / "sources.list"
    if main.is_file():
        archives += parse_one_line(main.read_text(encoding="utf-8"))
    for file in sorted((etc / "sources.list.d").glob("*")):
        if file.suffix == ".list":
            archives += parse_one_line(file.read_text(encoding="utf-8"))
        elif file.suffix == ".sources":
            archives += parse_deb822(file.read_text(encoding="utf-8"))
    return archives


def suites_to_try(archives: list[Archive], of: Distribution) -> list[tuple[str, str]]:
    """The pairs (suite, mirror URI) to ask for StarPU, best first.

    Only mirrors of the distribution's own archive are asked, which its name in their address tells
    (`http://host/debian`, `mirror+file:/etc/apt/mirrors/debian.list`); its keyring has the last word.

    Raises:
        GetStarpuError: the machine has no such mirror configured.
    """
    mirrors: dict[str, list[str]] = {}
    for archive in archives:
        if not archive.uri.startswith(_FETCHABLE) or of.name not in archive.uri or "security" in archive.uri:
            continue
        own = mirrors.setdefault(archive.uri.rstrip("/"), [])
        usable = (suite for suite in archive.suites if not suite.endswith(("/", "-security")))
        own += [suite for suite in usable if suite not in own]
    if not mirrors:
        raise GetStarpuError(
            f"apt has no mirror of {of.name} configured to take StarPU's source from;"
            " set STARPU_SRC to a folder or a tarball with its sources"
        )
    pairs = []
    for wanted in of.suites:
        for uri, own in mirrors.items():
            pairs += [(suite, uri) for suite in ([wanted] if wanted else sorted(own, key=_pocket_rank))]
    return pairs


def _pocket_rank(suite: str) -> int:
    """Updates before the release itself, what is held back from it last."""
    if suite.endswith("-updates"):
        return 0
    return 2 if suite.endswith(("-backports", "-proposed")) else 1
