"""Compile the bindings against each StarPU found: ``python -m dahl.starpu.build``.

One extension per variant, ``_native`` and ``_simgrid``, both from the C files in ``csrc/``.
A variant is compiled against the headers of the very prefix that it runs with,
because sizes of StarPU's structures depend on its configuration.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "csrc"
VARIANTS = ("native", "simgrid", "polling")
DEFAULT_VARIANTS = ("native", "simgrid")
C_FILES = (
    "runtime.c",
    "idle.c",
    "poll.c",
    "tasks.c",
    "policy.c",
    "placement.c",
    "pull.c",
    "watch.c",
    "simgrid_locks.c",
    "simulated.c",
    "transfers.c",
)


class BuildError(RuntimeError):
    """A variant could not be compiled; the message names the way out."""


def prefix_root() -> Path:
    """Return the folder that holds the prefixes: ``$STARPU_PREFIXES``, or ``.starpu`` beside the package."""
    return Path(os.environ.get("STARPU_PREFIXES") or HERE.parent.parent / ".starpu").absolute()


def pkg_config_flags(prefix: Path, option: str) -> list[str]:
    """Return the flags that the prefix's starpu-1.4.pc gives for ``option``."""
    folder = prefix / "lib" / "pkgconfig"
    environment = os.environ | {"PKG_CONFIG_PATH": f"{folder}:{os.environ.get('PKG_CONFIG_PATH', '')}"}
    done = subprocess.run(
        ["pkg-config", option, "starpu-1.4"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(
            f"pkg-config does not find StarPU in {prefix}: {done.stderr.strip()}; run scripts/get-starpu"
        )
    return done.stdout.split()


def declarations() -> str:
    """Return the part of ``dahl.h`` that cffi parses: without comments' neighbours, the preprocessor lines."""
    lines = (SOURCES / "dahl.h").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


def stamp_of(prefix: Path) -> str:
    """Return a digest of everything that the extension depends on."""
    digest = hashlib.sha256()
    for path in [*sorted(SOURCES.iterdir()), Path(__file__)]:
        digest.update(path.read_bytes())
    for path in [
        *sorted((prefix / "lib").glob("libstarpu-1.4.so*")),
        prefix / "include/starpu/1.4/starpu_config.h",
    ]:
        status = path.stat()
        digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns}".encode())
    digest.update(sys.version.encode())
    return digest.hexdigest()


def extension_path(variant: str) -> Path:
    """Return where the variant's extension lies."""
    return HERE / f"_{variant}.abi3.so"


def is_current(variant: str, prefix: Path) -> bool:
    """Tell whether the extension was built from the sources and the StarPU that are there now."""
    stamp = HERE / f"_{variant}.stamp"
    return extension_path(variant).exists() and stamp.exists() and stamp.read_text() == stamp_of(prefix)


def compile_variant(variant: str, prefix: Path) -> Path:
    """Compile one variant's extension and return its path."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(declarations())
    ffi.cdef('extern "Python+C" int dahl_main_callback(void);')
    include = [f[2:] for f in pkg_config_flags(prefix, "--cflags-only-I") if f.startswith("-I")]
    other = pkg_config_flags(prefix, "--cflags-only-other")
    libraries = pkg_config_flags(prefix, "--libs")
    with tempfile.TemporaryDirectory(prefix="dahl-build-") as folder:
        ffi.set_source(
            f"_{variant}",
            '#include "dahl.h"\n',
            sources=[str(SOURCES / name) for name in C_FILES],
            include_dirs=[str(SOURCES), *include],
            extra_compile_args=["-O2", "-std=gnu11", "-fvisibility=default", "-Wall", *other],
            extra_link_args=[*libraries, f"-Wl,-rpath,{prefix / 'lib'}"],
            py_limited_api=True,
        )
        built = Path(ffi.compile(tmpdir=folder, verbose=False))
        target = extension_path(variant)
        partial = target.with_suffix(".partial")
        partial.write_bytes(built.read_bytes())
        partial.replace(target)
    (HERE / f"_{variant}.stamp").write_text(stamp_of(prefix))
    return target


def build(variants: list[str], *, quiet: bool = False) -> dict[str, Path]:
    """Compile the variants whose prefix is there; return where each extension lies."""
    built: dict[str, Path] = {}
    for variant in variants:
        prefix = prefix_root() / variant
        if not (prefix / "lib").is_dir():
            continue
        if not is_current(variant, prefix):
            if not quiet:
                print(f"compiling the {variant} bindings against {prefix}", flush=True)
            compile_variant(variant, prefix)
        built[variant] = extension_path(variant)
    return built


def main() -> int:
    """Compile what can be compiled; fail where no StarPU is found."""
    parser = argparse.ArgumentParser(description="Compile the StarPU bindings.")
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        action="append",
        help="default: native and simgrid, where there is a prefix",
    )
    parser.add_argument("--json", type=Path, help="write what was built to this file")
    options = parser.parse_args()
    if importlib.util.find_spec("cffi") is None:
        print("cffi is not installed: run `make setup`", file=sys.stderr)
        return 1
    try:
        built = build(options.variant or list(DEFAULT_VARIANTS))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    if not built:
        print(f"no StarPU under {prefix_root()}: run scripts/get-starpu", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps({name: str(path) for name, path in built.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
