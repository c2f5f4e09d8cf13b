"""The GPUs of a running StarPU: their compiled functions, and the programs that tasks run on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from dahl.starpu.cuda_libraries import DRIVER, find_library
from dahl.starpu.cuda_source import functions, source_text
from dahl.starpu.encoding import FLOAT_BYTES, encode
from dahl.starpu.errors import ERRORS, StarPUError
from dahl.starpu.kernel import Kernel
from dahl.starpu.launch import CudaKernel, Gemm, Program
from dahl.starpu.nvrtc import compiled
from dahl.starpu.worker import Worker

Compile = Callable[[Path, int], bytes]


@final
class Gpus:
    """What tasks on GPUs need: made between tasks, by the thread that submits.

    ``capability`` tells a device's compute capability (90 for 9.0).
    """

    def __init__(self, ffi: Any, lib: Any, workers: Sequence[Worker], capability: Mapping[int, int]) -> None:
        self._ffi, self._lib, self._capability = ffi, lib, capability
        self._workers = [worker for worker in workers if worker.arch == "cuda"]
        self._numbers: dict[tuple[Path | None, str], int] = {}
        self._loaded: set[Path] = set()
        self._programs: dict[tuple[str, Path | None, Program], np.ndarray] = {}
        self._constants: dict[int, np.ndarray] = {}
        self._has_blas = False
        self._check(lib.dahl_cuda_open(DRIVER.encode()), "starting the GPUs")

    def program(
        self, kernel: Kernel, cuda: CudaKernel, shapes: Mapping[str, Any], scalars: Mapping[str, Any]
    ) -> np.ndarray:
        """Return the encoded program of a task; equal programs are encoded once, and stay where they are.

        Raises GpuError where a source does not compile or cannot be loaded, GpuMemoryError where its scratch is too
        large.
        """
        program = cuda.program(shapes, scalars)
        key = (kernel.name, cuda.source, program)
        if key not in self._programs:
            if cuda.source is not None:
                self._load(cuda.source)
            if any(isinstance(command, Gemm) for command in program.commands):
                self._load_blas()
            if program.scratch_floats:
                self._check(
                    self._lib.dahl_cuda_reserve(program.scratch_floats * FLOAT_BYTES),
                    f"preparing {kernel.name}",
                )
            self._programs[key] = encode(kernel, program, lambda name: self._numbers[cuda.source, name])
        return self._programs[key]

    def constant(self, array: np.ndarray) -> None:
        """Copy what tasks only read to the GPUs; one that may be written is copied anew after each wait for all."""
        key = array.ctypes.data
        if key in self._constants and self._constants[key].nbytes >= array.nbytes:
            return
        address = self._ffi.cast("void *", key)
        self._check(
            self._lib.dahl_cuda_constant(address, array.nbytes, int(array.flags.writeable)),
            f"copying {array.nbytes / 2**20:.0f} MiB that tasks read",
        )
        self._constants[key] = array

    def _load(self, source: Path) -> None:
        if source in self._loaded:
            return
        names = functions(source_text(source))
        for name in names:
            self._numbers[source, name] = len(self._numbers)
        numbers = [self._numbers[source, name] for name in names]
        words = [self._ffi.new("char[]", name.encode()) for name in names]
        for worker in self._workers:
            image = self._ffi.from_buffer(compiled(source, self._capability[worker.device]))
            status = self._lib.dahl_cuda_load(worker.id, image, words, numbers, len(names))
            self._check(status, f"loading {source.name} on {worker.name}")
        self._loaded.add(source)

    def _load_blas(self) -> None:
        if not self._has_blas:
            self._check(self._lib.dahl_cuda_blas(find_library("cublas").encode()), "starting cuBLAS")
            self._has_blas = True

    def _check(self, status: int, doing: str) -> None:
        if status:
            trouble = self._ffi.string(self._lib.dahl_cuda_trouble()).decode()
            raise ERRORS.get(status, StarPUError)(f"{doing}: {trouble}")
