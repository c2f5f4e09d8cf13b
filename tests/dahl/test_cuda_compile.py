"""Every CUDA source compiles for the GPUs of the last generations. No card is needed, and nothing is run."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from dahl import ops
from dahl.starpu import nvrtc
from dahl.starpu.cuda_libraries import find_library
from dahl.starpu.cuda_source import functions, source_text
from dahl.starpu.errors import NoGpuError
from dahl.starpu.launch import ITEMS_PER_LAUNCH, SHARED_BYTES

SOURCES = sorted((Path(ops.__file__).parent / "cuda").glob("*.cu"))


def nvrtc_is_missing():
    try:
        find_library("nvrtc")
    except NoGpuError:
        return True
    return False


@pytest.mark.skipif(nvrtc_is_missing(), reason="no NVRTC here: python -m pip install nvidia-cuda-nvrtc")
@pytest.mark.parametrize("capability", [75, 80, 90])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_source_compiles_and_keeps_its_functions(source, capability):
    image = nvrtc.compiled(source, capability)  # from the disk where these very sources were compiled before
    assert image[:4] == b"\x7fELF"
    for name in functions(source_text(source)):
        assert f".text.{name}\0".encode() in image, name


def test_every_launchable_function_is_found_in_its_text():
    for source in SOURCES:
        text = source_text(source)
        assert text.count('extern "C" __global__') == len(functions(text)) > 0, source.name


def test_every_operation_runs_on_a_gpu_from_a_source_that_is_there():
    for operation in ops.OPERATIONS.values():
        assert operation.cuda is not None, operation.name
        assert operation.cuda.source is None or operation.cuda.source in SOURCES, operation.name
    assert {operation.cuda.source for operation in ops.OPERATIONS.values()} == {None, *SOURCES}


def test_python_and_cuda_agree_on_the_items_of_a_launch():
    common = (SOURCES[0].parent / "common.cuh").read_text()
    assert f"const int ITEMS = {ITEMS_PER_LAUNCH};" in common
    assert SHARED_BYTES == 48 * 1024  # CUDA's own limit where a function asks for no more
    assert ctypes.sizeof(ctypes.c_void_p) * ITEMS_PER_LAUNCH <= 4096 - 256  # a launch passes 4 KiB by value
