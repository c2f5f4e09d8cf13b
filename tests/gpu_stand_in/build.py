"""Compiling the stand-in's libraries, and the environment in which a process finds them in the place of CUDA's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from dahl.starpu import binding
from dahl.starpu.build import prefix_root
from dahl.starpu.kernel import cache_root

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PREFIX = prefix_root() / "cuda"
FLAGS = ("-O2", "-std=gnu11", "-shared", "-fPIC", "-w")

needs_stand_in = pytest.mark.skipif(
    not binding.is_built("cuda") or not PREFIX.is_dir(),
    reason="the cuda variant is built where a CUDA toolkit is found (scripts/get-starpu --cuda)",
)


@cache
def libraries() -> Path:
    """Compile what is not there yet; returns the folder."""
    runtime = next(PREFIX.glob("lib/libcudart.so.*"))
    major = runtime.suffix[1:]
    sources = sorted(HERE.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + runtime.name.encode())
    folder = cache_root() / "gpu_stand_in" / digest.hexdigest()[:16]
    if folder.exists():
        return folder
    partial = folder.with_suffix(f".{os.getpid()}")
    partial.mkdir(parents=True)
    versions = partial / "versions.map"
    versions.write_text(f"{runtime.name} {{ global: *; }};\n")
    own = ("-Wl,--version-script", versions)
    beside = (f"-L{partial}", f"-l:{runtime.name}")
    for source, name, more in (
        ("cudart", runtime.name, (*own, "-pthread")),
        ("cuda", "libcuda.so.1", (*beside, "-ldl")),
        ("cublas", f"libcublas.so.{major}", beside),
        ("nvrtc", f"libnvrtc.so.{major}", ()),
    ):
        command = ["cc", *FLAGS, f"-I{PREFIX}/include/cuda", f"-Wl,-soname,{name}", "-o", partial / name]
        subprocess.run([*command, HERE / f"{source}.c", *more], check=True)
    partial.replace(folder)
    return folder


def environment(**settings: object) -> dict[str, str]:
    """The variables of a process that finds the stand-in; settings such as STAND_IN_DEVICES=2 go with them."""
    compiler = f"{sys.executable} -m tests.gpu_stand_in.host_compiler"
    found = {"LD_LIBRARY_PATH": str(libraries()), "STAND_IN_COMPILER": compiler, "PYTHONPATH": str(ROOT)}
    return {**os.environ, **found, **{name: str(value) for name, value in settings.items()}}


def run_python(code: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own on the stand-in."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
