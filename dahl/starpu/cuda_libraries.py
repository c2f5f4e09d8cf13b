"""Where CUDA's libraries are: the system's, those of PyPI's packages, or a toolkit's."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from dahl.starpu.errors import NoGpuError

DRIVER = "libcuda.so.1"
VERSIONS = (13, 12)
_PACKAGES = {"cublas": "nvidia-cublas", "nvrtc": "nvidia-cuda-nvrtc"}
_TOOLKITS = ("/usr/local/cuda", "/opt/cuda")


@cache  # what was loaded by its path is found by its name afterwards
def find_library(name: str) -> str:
    """Return what to load for ``cublas`` or ``nvrtc``: its name where the system finds it, else its path.

    Asked are, in this order: the dynamic linker (LD_LIBRARY_PATH and the system's folders), PyPI's packages, the
    folders that CUDA_HOME and CUDA_PATH name, and /usr/local/cuda. Raises NoGpuError where none has it.
    """
    for version in VERSIONS:
        for candidate in (f"lib{name}.so.{version}", *_paths(name, version)):
            try:
                ctypes.CDLL(candidate)
            except OSError:
                continue
            return candidate
    raise NoGpuError(
        f"lib{name}.so is not found: python -m pip install '{_PACKAGES[name]}==13.*', "
        "or name CUDA's folder in CUDA_HOME"
    )


def _paths(name: str, version: int) -> list[str]:
    packages = (f"nvidia/cu{version}/lib", f"nvidia/{name}/lib", f"nvidia/cuda_{name}/lib")
    folders = [Path(entry) / package for entry in sys.path if entry for package in packages]
    toolkits = [*filter(None, (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"))), *_TOOLKITS]
    folders += [Path(toolkit) / library for toolkit in toolkits for library in ("lib64", "lib")]
    found = [folder / f"lib{name}.so.{version}" for folder in folders]
    return [str(path) for path in found if path.is_file()]
