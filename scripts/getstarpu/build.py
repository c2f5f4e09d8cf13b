"""Configuring, compiling and publishing one variant of StarPU."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from getstarpu import cuda
from getstarpu.apt import Source
from getstarpu.cuda import Toolkit
from getstarpu.process import GetStarpuError, Processes

LIMITS = {"STARPU_MAXCPUS": 256, "STARPU_MAXCUDADEVS": 16}

LIMIT_OPTIONS = (
    f"--enable-maxcpus={LIMITS['STARPU_MAXCPUS']}",
    f"--enable-maxcudadev={LIMITS['STARPU_MAXCUDADEVS']}",
)

COMMON_OPTIONS = (
    *LIMIT_OPTIONS,
    "--disable-build-doc",
    "--disable-build-examples",
    "--disable-build-tests",
    "--disable-fortran",
    "--disable-fxt",
    "--disable-glpk",
    "--disable-hip",
    "--disable-mpi",
    "--disable-opencl",
    "--disable-openmp",
    "--disable-papi",
    "--disable-socl",
    "--disable-starpufft",
    "--disable-starpupy",
    "--disable-static",
)

VARIANT_OPTIONS = {
    # Idle workers sleep instead of burning the watts that are to be measured.
    # CUDA has a variant of its own: found by chance, it would tie this one to a toolkit.
    "native": ("--enable-blocking-drivers", "--disable-cuda"),
    "simgrid": ("--enable-simgrid",),
    # As native, with the options of a toolkit (cuda.configure_options).
    "cuda": ("--enable-blocking-drivers",),
    # Idle workers poll, as in StarPU's own default build: for comparisons.
    "polling": ("--disable-cuda",),
    # Every access to memory is watched for data races: for the tests of the C layer.
    "tsan": (
        "--enable-blocking-drivers",
        "--disable-cuda",
        "CFLAGS=-O1 -g -fsanitize=thread -DSTARPU_SANITIZE_THREAD",
        "CXXFLAGS=-O1 -g -fsanitize=thread",
        "LDFLAGS=-fsanitize=thread",
    ),
}
DEFAULT_VARIANTS = ("native", "simgrid")
"""`cuda` is built where a toolkit is found, the others where they are asked for by name."""

# What StarPU's starpu_config.h says of a variant; None: not defined.
MODE: dict[str, dict[str, str | None]] = {
    "native": {"STARPU_SIMGRID": None, "STARPU_NON_BLOCKING_DRIVERS": None},
    "simgrid": {"STARPU_SIMGRID": "1", "STARPU_NON_BLOCKING_DRIVERS": None},
    "cuda": {"STARPU_SIMGRID": None, "STARPU_NON_BLOCKING_DRIVERS": None, "STARPU_USE_CUDA": "1"},
    "polling": {"STARPU_SIMGRID": None, "STARPU_NON_BLOCKING_DRIVERS": "1"},
    "tsan": {"STARPU_SIMGRID": None, "STARPU_NON_BLOCKING_DRIVERS": None},
}

# A copy can leave generated files older than what they come from; they are right as released.
_NO_AUTOTOOLS = ("ACLOCAL=:", "AUTOCONF=:", "AUTOHEADER=:", "AUTOMAKE=:", "MAKEINFO=:")

_STAMP = "built.json"


@dataclass(frozen=True)
class Stamp:
    """What a prefix was built from. Lies in the prefix, so that both appear together."""

    variant: str
    version: str
    origin: str
    sha256: str
    options: tuple[str, ...]
    prefix: str
    system: str
    built: str
    toolkit: str = ""
    """The version of CUDA; empty without."""

    @classmethod
    def read(cls, prefix: Path) -> Stamp | None:
        """The stamp of a prefix; None where there is none that can be read."""
        try:
            fields = json.loads((prefix / _STAMP).read_text(encoding="utf-8"))
            return cls(**{**fields, "options": tuple(fields["options"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def is_current(
        self, variant: str, prefix: Path, source: Source | None, toolkit: Toolkit | None = None
    ) -> bool:
        """Whether a build with today's options, here, would give the same again.

        Without a `source` that was asked for by name any origin will do, and without a `toolkit` any version of CUDA.
        """
        same = (self.variant, self.options, self.prefix, self.system) == (
            variant,
            options_of(variant),
            str(prefix),
            system(),
        )
        if variant == "cuda" and toolkit is not None and self.toolkit != toolkit.version:
            return False
        return same and (source is None or (self.origin, self.sha256) == (source.origin, source.sha256))


def options_of(variant: str) -> tuple[str, ...]:
    """The options of `configure` for a variant, apart from the folders."""
    return (*COMMON_OPTIONS, *VARIANT_OPTIONS[variant])


def definitions(header: Path) -> dict[str, str]:
    """The names that a starpu_config.h defines with a value."""
    text = header.read_text(encoding="utf-8")
    return dict(re.findall(r"^#define (\w+) (\S+)$", text, re.MULTILINE))


def system() -> str:
    """The distribution release and machine type: another one has other libraries to link to."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return f"{release.get('ID', 'unknown')} {release.get('VERSION_ID', 'rolling')} {platform.machine()}"


@dataclass(frozen=True)
class Build:
    """One variant on its way from a source tree to its prefix.

    `work` lies on the same file system as `prefix`, so that publishing is a rename.
    """

    variant: str
    tree: Path
    source: Source
    version: str
    prefix: Path
    work: Path
    log: Path
    jobs: int
    processes: Processes
    say: Callable[[str], None]
    toolkit: Toolkit | None = None
    """Of the variant `cuda`."""

    def run(self) -> Stamp:
        """Build and publish the variant.

        Raises:
            GetStarpuError: a step failed; the prefix is as it was before.
        """
        started_s = time.monotonic()
        objects, staged = self.work / "objects", self.work / "staged"
        objects.mkdir(parents=True)
        given: tuple[str, ...] = ()
        if self.toolkit:
            compiled_against = cuda.prepare(self.toolkit, self.work, self.processes, self.log)
            given = cuda.configure_options(compiled_against)
        self._step("configuring", objects, *self._configure_command(), *given)
        self._step("compiling", objects, "make", f"-j{self.jobs}", *_NO_AUTOTOOLS)
        self._step("installing", objects, "make", "install", f"DESTDIR={staged}", *_NO_AUTOTOOLS)
        built = staged / self.prefix.relative_to(self.prefix.anchor)
        if self.toolkit:
            cuda.bring_along(self.toolkit, compiled_against, built, self.log)
            # They, and the paths in the files for libtool, hold in one place only.
            shutil.rmtree(built / "bin", ignore_errors=True)
            for file in built.glob("lib/*.la"):
                file.unlink()
        self._check(built)
        stamp = Stamp(
            variant=self.variant,
            version=self.version,
            origin=self.source.origin,
            sha256=self.source.sha256,
            options=options_of(self.variant),
            prefix=str(self.prefix),
            system=system(),
            built=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            toolkit=self.toolkit.version if self.toolkit else "",
        )
        (built / _STAMP).write_text(json.dumps(asdict(stamp), indent=2) + "\n", encoding="utf-8")
        publish(built, self.prefix, self.work / "replaced")
        self.say(f"{self.variant}: ready after {time.monotonic() - started_s:.0f} s")
        return stamp

    def _configure_command(self) -> list[str]:
        prefix = self.prefix
        folders = (f"--prefix={prefix}", f"--libdir={prefix}/lib")
        return ["sh", str(self.tree / "configure"), *folders, *options_of(self.variant)]

    def _step(self, what: str, cwd: Path, *command: str) -> None:
        self.say(f"{self.variant}: {what}")
        # GNU make hands its own flags and job slots on to children; this build has its own.
        env = {"MAKEFLAGS": "", "MAKELEVEL": "", "MFLAGS": ""}
        if self.toolkit:
            env |= cuda.build_environment(self.toolkit)
        if self.processes.run(command, self.log, cwd=cwd, env=env) != 0:
            raise GetStarpuError(f"{what} StarPU {self.version} ({self.variant}) failed", self.log)

    def _check(self, built: Path) -> None:
        """`configure` ignores options that it does not know, so look at what came out and load it once."""
        headers = list(built.glob("include/starpu/*/starpu_config.h"))
        libraries = list(built.glob("lib/libstarpu-*.so"))
        if len(headers) != 1 or len(libraries) != 1:
            raise GetStarpuError(f"{self.variant}: installed without its library or headers", self.log)
        defined = definitions(headers[0])
        limits = {name: str(value) for name, value in LIMITS.items()}
        for name, value in {**limits, **MODE[self.variant]}.items():
            if defined.get(name) != value:
                raise GetStarpuError(
                    f"the {self.variant} variant has {name} = {defined.get(name)}, expected {value}", self.log
                )
        # Only a program that was itself built with ThreadSanitizer can load such a library.
        load: list[str | Path] = [sys.executable, "-c", _LOAD, libraries[0], self.version]
        if self.variant != "tsan" and self.processes.run(load, self.log) != 0:
            raise GetStarpuError(f"the {self.variant} variant cannot be loaded", self.log)


_LOAD = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
numbers = [ctypes.c_int() for _ in range(3)]
library.starpu_get_version(*map(ctypes.byref, numbers))
found = ".".join(str(number.value) for number in numbers)
sys.exit(found != sys.argv[2] and f"the library says that it is StarPU {found}, expected {sys.argv[2]}")
"""


def publish(built: Path, prefix: Path, replaced: Path) -> None:
    """Put a finished folder in the place of `prefix` by renaming; what was there moves to `replaced`.

    Raises:
        OSError: it cannot be renamed; what was there is back in its place.
    """
    with contextlib.suppress(FileNotFoundError):
        os.rename(prefix, replaced)
    try:
        os.rename(built, prefix)
    except BaseException:
        if replaced.exists():
            os.rename(replaced, prefix)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
