"""The command `scripts/get-starpu`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType

from getstarpu.apt import Source
from getstarpu.build import DEFAULT_VARIANTS, VARIANT_OPTIONS, Build, Stamp
from getstarpu.cuda import WAY_OUT, Toolkit, find_toolkit
from getstarpu.given import given
from getstarpu.patches import apply_patches
from getstarpu.process import GetStarpuError, Processes
from getstarpu.source import distribution_source, named_source, unpack, version_of

_DESCRIPTION = """\
Build StarPU >= 1.4 from source: `native`, to run, and `simgrid`, to simulate, each into a prefix of its own
below .starpu/ in the checkout. Does nothing for a variant that is there and current.
Where a CUDA toolkit is found, also `cuda`, to run on NVIDIA GPUs; no card is needed to build it.
By name only: `polling`, whose idle workers poll, and `tsan`, which looks for data races.
"""

_EPILOG = """\
Where STARPU_PREFIXES names a folder with the entries native and simgrid, a StarPU that is there already, nothing is
built: it is only checked that it is 1.4 or newer and configured as needed.

Else the source is the folder or tarball that STARPU_SRC names, else the first source package of the distribution
that is StarPU >= 1.4 (Debian: stable, testing, unstable; Ubuntu: the release's own suites, then devel).
The CUDA toolkit is the one that CUDA_HOME or CUDA_PATH name, else that of nvcc on PATH, else /usr/local/cuda, else
PyPI's in .venv (nvidia-cuda-runtime, nvidia-cuda-crt, nvidia-nvml-dev).
Logs: .cache/logs/get-starpu-*.log
"""


class Checkout:
    """The places in a checkout that the command uses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / ".starpu"
        self.work = self.home / ".work"
        self.logs = root / ".cache" / "logs"

    def prefix(self, variant: str) -> Path:
        """Where a variant is published."""
        return self.home / variant

    def log(self, name: str) -> Path:
        """An emptied log file."""
        file = self.logs / f"get-starpu-{name}.log"
        file.write_bytes(b"")
        return file


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 0, 1 after a failure, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    root = Path(__file__).resolve().parents[2]
    checkout = Checkout(root)
    variants = [options.variant] if options.variant else list(DEFAULT_VARIANTS)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        if os.environ.get("STARPU_PREFIXES"):
            _take_given(Path(os.environ["STARPU_PREFIXES"]).absolute(), options)
            return 0
        source = named_source(os.environ["STARPU_SRC"]) if os.environ.get("STARPU_SRC") else None
        toolkit = _toolkit(root, options)
        if toolkit and not options.variant:
            variants.append("cuda")
        missing = variants if options.force else _not_current(checkout, variants, source, toolkit)
        if missing:
            with _locked(checkout):
                # Another run may have built them in the meantime.
                missing = missing if options.force else _not_current(checkout, variants, source, toolkit)
                _build(checkout, missing, source, toolkit)
        if missing or not options.quiet:
            _summarise(checkout, variants)
    except GetStarpuError as error:
        log = f"; log: {os.path.relpath(error.log)}" if error.log else ""
        print(f"get-starpu: {error}{log}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"get-starpu: {error.filename or root}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("get-starpu: interrupted, nothing half-made is left", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="get-starpu",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--variant", choices=list(VARIANT_OPTIONS), help="build this one only")
    parser.add_argument(
        "--cuda",
        action=argparse.BooleanOptionalAction,
        help="build the variant cuda, too; by itself where a CUDA toolkit is found",
    )
    parser.add_argument("--force", action="store_true", help="build even what is current")
    parser.add_argument("--quiet", action="store_true", help="print nothing when there is nothing to do")
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(message: str) -> None:
    print(f"get-starpu: {message}", flush=True)


def _toolkit(root: Path, options: argparse.Namespace) -> Toolkit | None:
    """The CUDA toolkit to build with; None where the variant `cuda` is not to be built.

    Raises:
        GetStarpuError: it is asked for and there is none.
    """
    asked = options.variant == "cuda" or (options.cuda and not options.variant)
    if options.cuda is False or (options.variant and not asked):
        if options.variant == "cuda":
            raise GetStarpuError("--variant cuda and --no-cuda were both given: leave one out")
        return None
    toolkit = find_toolkit(root)
    if toolkit is None and asked:
        raise GetStarpuError(f"no CUDA toolkit is found: {WAY_OUT}")
    return toolkit


def _not_current(
    checkout: Checkout, variants: Sequence[str], source: Source | None, toolkit: Toolkit | None
) -> list[str]:
    missing = []
    for variant in variants:
        prefix = checkout.prefix(variant)
        stamp = Stamp.read(prefix)
        if stamp is None or not stamp.is_current(variant, prefix, source, toolkit):
            missing.append(variant)
    return missing


@contextlib.contextmanager
def _locked(checkout: Checkout) -> Iterator[None]:
    """Hold the only right to build in this checkout, with a work folder that is gone afterwards."""
    if re.search(r"[^\w@%+=:,./-]", str(checkout.root), re.ASCII):
        raise GetStarpuError(
            f"StarPU cannot be built below {str(checkout.root)!r}: its build scripts take no blanks or"
            " special characters in a path; move the checkout"
        )
    checkout.home.mkdir(exist_ok=True)
    checkout.logs.mkdir(parents=True, exist_ok=True)
    with (checkout.home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another get-starpu is at work in this checkout, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        # A run that was killed could not tidy up.
        shutil.rmtree(checkout.work, ignore_errors=True)
        checkout.work.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(checkout.work, ignore_errors=True)


def _build(
    checkout: Checkout, variants: Sequence[str], source: Source | None, toolkit: Toolkit | None
) -> None:
    """Build the variants side by side: one configures while the other compiles."""
    if not variants:
        return
    processes = Processes()
    cores = len(os.sched_getaffinity(0))
    try:
        log = checkout.log("source")
        source = source or distribution_source(checkout.work, processes, log, _say)
        tree = unpack(source, checkout.work / "source", processes, log)
        version = version_of(tree, source)
        _say(f"StarPU {version} from {source.origin} (SHA-256 {source.sha256[:16]}...)")
        if "cuda" in variants and toolkit:
            apply_patches(tree)
            _say(f"cuda: CUDA {toolkit.version} of {toolkit.include.parent}")
        builds = [
            Build(
                variant=variant,
                tree=tree,
                source=source,
                version=version,
                prefix=checkout.prefix(variant),
                work=checkout.work / variant,
                log=checkout.log(variant),
                jobs=max(1, -(-cores // len(variants))),
                processes=processes,
                say=_say,
                toolkit=toolkit if variant == "cuda" else None,
            )
            for variant in variants
        ]
        _run_all(builds, processes)
    finally:
        processes.stop()


def _run_all(builds: Sequence[Build], processes: Processes) -> None:
    with ThreadPoolExecutor(len(builds)) as pool:
        try:
            futures = [pool.submit(build.run) for build in builds]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Where one has failed or the user has had enough, the others need not go on.
            if not all(future.done() for future in futures):
                processes.stop()
        for future in done:
            future.result()


def _take_given(root: Path, options: argparse.Namespace) -> None:
    """Check the StarPU that the environment provides; raises GetStarpuError where it will not do."""
    if options.force or os.environ.get("STARPU_SRC"):
        reason = "--force was given" if options.force else "STARPU_SRC is set"
        raise GetStarpuError(
            f"STARPU_PREFIXES is {str(root)!r}, so that nothing is built here, but {reason}: unset one of them"
        )
    variants = [options.variant] if options.variant else list(DEFAULT_VARIANTS)
    found = given(root, variants, all_of_them=options.variant is not None)
    if not options.quiet:
        for one in found:
            print(f"StarPU {one.version:8} {one.variant:8} {one.prefix}  given by STARPU_PREFIXES")
        for variant in variants:
            if variant not in {one.variant for one in found}:
                print(f"no {variant} in {root}")


def _summarise(checkout: Checkout, variants: Sequence[str]) -> None:
    for variant in variants:
        prefix = checkout.prefix(variant)
        stamp = Stamp.read(prefix)
        if stamp:
            where = prefix.relative_to(checkout.root)
            print(f"StarPU {stamp.version:8} {variant:8} {where}  from {stamp.origin}, built {stamp.built}")
