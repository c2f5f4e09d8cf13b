"""The command `scripts/build-cholesky`: StarPU's own Cholesky example, compiled against a prefix of this checkout."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from getstarpu.apt import Source, sha256_of
from getstarpu.process import GetStarpuError, Processes
from getstarpu.source import distribution_source, named_source, unpack, version_of

_DESCRIPTION = """\
Compile examples/cholesky of StarPU's source against a StarPU below .starpu/ and print the program's path: `native`, for
CPUs, or `simgrid`, for the machines that StarPU brings models of. Does nothing when it is there.
"""
_EPILOG = """\
The source is what STARPU_SRC names, else the distribution's source package, which is kept in .cache/starpu-source/.
BLAS is the OpenBLAS that pkg-config finds, else the one inside SciPy.
Run the program with STARPU_SCHED_LIB and STARPU_SCHED to see a policy at work: docs/export.md.
"""
C_FILES = (
    "cholesky/cholesky_implicit.c",
    "cholesky/cholesky_models.c",
    "cholesky/cholesky_kernels.c",
    "sched_ctx_utils/sched_ctx_utils.c",
    "common/blas.c",
)


@dataclass(frozen=True)
class Blas:
    """How the example is compiled and linked with a BLAS."""

    flags: tuple[str, ...]
    libraries: tuple[str, ...]


def fortran_names(header: str) -> list[str]:
    """The BLAS functions that the example's header declares: `sgemm_` and others."""
    return sorted(set(re.findall(r"\b([a-z0-9]+_) ?\(", header)))


def find_blas(header: str) -> Blas:
    """OpenBLAS of the system, else the one that SciPy's wheels bring, whose functions have a prefix.

    Raises:
        GetStarpuError: there is neither.
    """
    known = subprocess.run(["pkg-config", "--libs", "openblas"], capture_output=True, text=True, check=False)
    if known.returncode == 0:
        return Blas(("-DSTARPU_OPENBLAS",), tuple(known.stdout.split()))
    scipy = importlib.util.find_spec("scipy")
    folder = Path(scipy.origin or "").parents[1] / "scipy.libs" if scipy else Path()
    libraries = sorted(folder.glob("libscipy_openblas-*.so"))
    if not scipy or not libraries:
        raise GetStarpuError(
            "no OpenBLAS for the Cholesky example: install libopenblas-dev or a wheel of scipy"
        )
    renamed = (f"-D{name}=scipy_{name}" for name in fortran_names(header))
    return Blas(("-DSTARPU_OPENBLAS", *renamed), (str(libraries[0]), f"-Wl,-rpath,{folder}"))


def kept_source(cache: Path, work: Path, processes: Processes, log: Path) -> Source:
    """The source that `STARPU_SRC` names, else the distribution's, kept in `cache` under its checksum.

    Raises:
        GetStarpuError: there is no such source, or none to be had.
    """
    if os.environ.get("STARPU_SRC"):
        return named_source(os.environ["STARPU_SRC"])
    for file in sorted(cache.glob("starpu-*.tar.*")):
        if sha256_of(file) == file.name.removeprefix("starpu-").partition(".")[0]:
            return named_source(str(file))
    fetched = distribution_source(work, processes, log, lambda message: print(message, file=sys.stderr))
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / f"starpu-{fetched.sha256}.tar{fetched.path.suffix}"
    partial = cache / f".{kept.name}.{os.getpid()}"
    shutil.copyfile(fetched.path, partial)
    partial.replace(kept)
    return fetched


def compile_example(examples: Path, prefix: Path, target: Path, processes: Processes, log: Path) -> None:
    """Compile the program from the examples' folder; a simulation runs no kernels and takes no BLAS.

    Raises:
        GetStarpuError: StarPU is not in `prefix`, there is no BLAS, or it does not compile.
    """
    environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "starpu-1.4"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if flags.returncode != 0:
        raise GetStarpuError(f"there is no StarPU in {prefix}: run scripts/get-starpu")
    simulated = prefix.name == "simgrid"
    header = (examples / "common" / "blas.h").read_text(encoding="utf-8")
    blas = Blas((), ()) if simulated else find_blas(header)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    # NDEBUG stays undefined: the example checks its result with an assertion.
    command = ["cc", "-O2", "-w", *blas.flags, f"-I{examples}"]
    command += [str(examples / file) for file in C_FILES]
    command += [
        *flags.stdout.split(),
        f"-Wl,-rpath,{prefix / 'lib'}",
        *blas.libraries,
        "-lm",
        "-o",
        str(partial),
    ]
    if processes.run(command, log) != 0:
        raise GetStarpuError("StarPU's Cholesky example does not compile", log)
    partial.replace(target)


def build(root: Path, variant: str, *, force: bool = False) -> Path:
    """The program in the checkout `root`, made where it is not there.

    Raises:
        GetStarpuError: it cannot be made; the message tells why.
    """
    prefix, cache = root / ".starpu" / variant, root / ".cache"
    target = cache / "cholesky" / variant
    if target.exists() and not force:
        return target
    log = cache / "logs" / "build-cholesky.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    processes = Processes()
    with tempfile.TemporaryDirectory(prefix="cholesky-", dir=cache) as folder:
        work = Path(folder)
        try:
            source = kept_source(cache / "starpu-source", work, processes, log)
            tree = unpack(source, work / "source", processes, log)
            version_of(tree, source)
            compile_example(tree / "examples", prefix, target, processes, log)
        finally:
            processes.stop()
    return target


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 0, or 1 after a failure."""
    parser = argparse.ArgumentParser(
        prog="build-cholesky",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--variant", choices=("native", "simgrid"), default="native")
    parser.add_argument("--force", action="store_true", help="build even what is there")
    options = parser.parse_args(arguments)
    try:
        print(build(Path(__file__).resolve().parents[2], options.variant, force=options.force))
    except GetStarpuError as error:
        log = f"; log: {os.path.relpath(error.log)}" if error.log else ""
        print(f"build-cholesky: {error}{log}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"build-cholesky: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0
