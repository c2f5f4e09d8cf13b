"""Compile the sampler's reading loop: `python -m energy.build`. It needs a C compiler and Python's headers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from compiling import BuildError, Extension

HERE = Path(__file__).parent
TICKS = Extension(
    name="_ticks",
    folder=HERE,
    sources=HERE / "csrc",
    header="ticks.h",
    c_files=("ticks.c",),
    recipe=Path(__file__),
)


def main() -> int:
    """Compile it where it is not current."""
    argparse.ArgumentParser(prog="python -m energy.build", description=__doc__).parse_args()
    if TICKS.is_current():
        return 0
    print("compiling the sampler's reading loop", flush=True)
    try:
        TICKS.compile(linker=["-pthread"])
    except ModuleNotFoundError:
        print("cffi is not installed: run `make setup`", file=sys.stderr)
        return 1
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
