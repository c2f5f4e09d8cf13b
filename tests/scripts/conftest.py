"""Stand-in programs and sources, so that the scripts can be tested offline and within seconds."""

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run in a shell that provides StarPU and Python; the scripts under test must not see it."""
    for name in ("STARPU_PREFIXES", "STARPU_SRC", "DAHL_VENV", "OPTIONAL_PACKAGES"):
        monkeypatch.delenv(name, raising=False)


def program(folder: Path, name: str, body: str) -> Path:
    """An executable shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that holds nothing but the scripts."""
    root = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return root


# Writes what StarPU's configure writes, as far as it is looked at, and a library that can be loaded.
CONFIGURE = """\
#!/bin/sh
PACKAGE_NAME='StarPU'
PACKAGE_VERSION='@VERSION@'
cpus=4 simgrid='/* #undef STARPU_SIMGRID */' polling='#define STARPU_NON_BLOCKING_DRIVERS 1'
for option in "$@"; do
    case $option in
        --prefix=*) prefix=${option#*=} ;;
        --enable-maxcpus=*) cpus=${option#*=} ;;
        --enable-maxcudadev=*) gpus=${option#*=} ;;
        --enable-simgrid) simgrid='#define STARPU_SIMGRID 1' polling= ;;
        --enable-blocking-drivers) polling= ;;
    esac
done
@EXTRA@
printf '%s\\n' "#define STARPU_MAXCPUS $cpus" "#define STARPU_MAXCUDADEVS $gpus" "$simgrid" "$polling" >starpu_config.h
cat >library.c <<C
void starpu_get_version(int *a, int *b, int *c) { *a = 1; *b = 4; *c = 99; }
C
cat >Makefile <<MAKE
all:
	cc -shared -fPIC -o libstarpu-1.4.so library.c
install:
	mkdir -p \\$(DESTDIR)$prefix/lib \\$(DESTDIR)$prefix/include/starpu/1.4
	cp libstarpu-1.4.so \\$(DESTDIR)$prefix/lib
	cp starpu_config.h \\$(DESTDIR)$prefix/include/starpu/1.4
MAKE
"""


def starpu_source(folder: Path, *, version: str = "1.4.99", extra: str = "") -> Path:
    """A folder that looks like a release of StarPU; `extra` runs in its configure script."""
    folder.mkdir(parents=True, exist_ok=True)
    text = CONFIGURE.replace("@VERSION@", version).replace("@EXTRA@", extra)
    (folder / "configure").write_text(text, encoding="utf-8")
    return folder


# Serves archive/SUITE: `versions` is what its index lists, the other files are what its mirror holds.
_APT_GET = """
shift; suite=$(awk '{ print $(NF-1) }' "$(dirname "$1")/sources.list"); shift
echo "$suite $*" >>"$APT_STANDIN/calls"
case $1 in
    update) [ -d "$APT_STANDIN/archive/$suite" ] || { echo "E: no signature by a known key"; exit 100; } ;;
    source)
        version=${@: -1}; version=${version#starpu=}
        cd "$APT_STANDIN/archive/$suite"
        cp "starpu_$version.dsc" *.orig.tar.gz "$OLDPWD" || exit 100
        ;;
esac
"""
_APT_CACHE = """
suite=$(awk '{ print $(NF-1) }' "$(dirname "$2")/sources.list")
while read -r version; do
    printf 'Package: starpu\\nBinary: libstarpu-dev\\nVersion: %s\\n\\n' "$version"
done <"$APT_STANDIN/archive/$suite/versions"
"""


class AptStandIn:
    """An archive of source packages behind stand-ins for apt-get and apt-cache."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.keyrings = home / "keyrings"
        self.keyrings.mkdir(parents=True)
        for distribution in ("debian", "ubuntu"):
            (self.keyrings / f"{distribution}-archive-keyring.gpg").touch()
        program(home / "bin", "apt-get", _APT_GET)
        program(home / "bin", "apt-cache", _APT_CACHE)
        monkeypatch.setenv("APT_STANDIN", str(home))
        monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def lists(self, suite: str, *versions: str) -> Path:
        """Let the index of a suite list these versions; the mirror has none of their files yet."""
        folder = self.home / "archive" / suite
        folder.mkdir(parents=True)
        (folder / "versions").write_text("".join(f"{version}\n" for version in versions), encoding="utf-8")
        return folder

    def serves(self, suite: str, version: str, *, sha256: str | None = None) -> str:
        """Put the files of a version on the mirror; returns the tarball's true SHA-256.

        `sha256` is what the `.dsc` says instead.
        """
        folder = self.home / "archive" / suite
        name = f"starpu_{version.split('-')[0]}.orig.tar.gz"
        with tarfile.open(folder / name, "w:gz") as tar:
            tar.add(starpu_source(self.home / "source" / suite), arcname="starpu-1.4.99")
        content = (folder / name).read_bytes()
        true = subprocess.check_output(["sha256sum", folder / name], text=True)[:64]
        (folder / f"starpu_{version}.dsc").write_text(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nFormat: 3.0 (quilt)\nSource: starpu\n"
            f"Checksums-Sha1:\n {hashlib.sha1(content).hexdigest()} {len(content)} {name}\n"
            f"Checksums-Sha256:\n {sha256 or true} {len(content)} {name}\n"
            "\n-----BEGIN PGP SIGNATURE-----\n",
            encoding="utf-8",
        )
        return true

    @property
    def calls(self) -> list[str]:
        """What apt-get was called for, as `SUITE COMMAND ...`."""
        return (self.home / "calls").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def apt_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AptStandIn:
    return AptStandIn(tmp_path / "apt-stand-in", monkeypatch)
