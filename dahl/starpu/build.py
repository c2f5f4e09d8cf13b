"""Compile the bindings against each StarPU found: ``python -m dahl.starpu.build``.

One extension per variant, ``_native``, ``_simgrid`` and ``_cuda``, all from the C files in ``csrc/``.
A variant is compiled against the headers of the very prefix that it runs with,
because sizes of StarPU's structures depend on its configuration.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from compiling import BuildError, Extension

HERE = Path(__file__).parent
SOURCES = HERE / "csrc"
VARIANTS = ("native", "simgrid", "cuda", "polling")
DEFAULT_VARIANTS = ("native", "simgrid", "cuda")
C_FILES = (
    "runtime.c",
    "idle.c",
    "poll.c",
    "tasks.c",
    "gpu.c",
    "gpu_launch.c",
    "feed.c",
    "policy.c",
    "placement.c",
    "pull.c",
    "watch.c",
    "simgrid_locks.c",
    "simulated.c",
    "transfers.c",
)


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


def extension(variant: str, prefix: Path) -> Extension:
    """Return the variant's extension, compiled against the StarPU in ``prefix``."""
    return Extension(
        name=f"_{variant}",
        folder=HERE,
        sources=SOURCES,
        header="dahl.h",
        c_files=C_FILES,
        recipe=Path(__file__),
        depends=[
            *sorted((prefix / "lib").glob("libstarpu-1.4.so*")),
            prefix / "include/starpu/1.4/starpu_config.h",
        ],
        declarations='extern "Python+C" int dahl_main_callback(void);',
    )


def compile_variant(variant: str, prefix: Path) -> Path:
    """Compile one variant's extension and return its path."""
    include = [f[2:] for f in pkg_config_flags(prefix, "--cflags-only-I") if f.startswith("-I")]
    return extension(variant, prefix).compile(
        include=include,
        compiler=pkg_config_flags(prefix, "--cflags-only-other"),
        linker=[*pkg_config_flags(prefix, "--libs"), f"-Wl,-rpath,{_library_path(variant, prefix)}"],
    )


def _library_path(variant: str, prefix: Path) -> str:
    """Where the extension finds the library. `cuda` may be built on one machine and carried to another."""
    if variant == "cuda" and prefix.is_relative_to(HERE.parent.parent):
        return f"$ORIGIN/{os.path.relpath(prefix / 'lib', HERE)}"
    return str(prefix / "lib")


def build(variants: list[str], *, quiet: bool = False) -> dict[str, Path]:
    """Compile the variants whose prefix is there; return where each extension lies."""
    built: dict[str, Path] = {}
    for variant in variants:
        prefix = prefix_root() / variant
        if not (prefix / "lib").is_dir():
            continue
        target = extension(variant, prefix)
        if not target.is_current():
            if not quiet:
                print(f"compiling the {variant} bindings against {prefix}", flush=True)
            compile_variant(variant, prefix)
        built[variant] = target.path
    return built


def main() -> int:
    """Compile what can be compiled; fail where no StarPU is found."""
    parser = argparse.ArgumentParser(description="Compile the StarPU bindings.")
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        action="append",
        help="default: native, simgrid and cuda, where there is a prefix",
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
