"""Data handles: NumPy memory that StarPU knows of and keeps coherent between memory nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import numpy as np

from dahl.starpu.errors import check

if TYPE_CHECKING:
    from dahl.starpu.runtime import Runtime

MODES = {"r": 1, "w": 2, "rw": 3}
"""StarPU's access modes STARPU_R, STARPU_W, STARPU_RW."""


@final
class DataHandle:
    """A C-contiguous array registered with StarPU (starpu_vector_data_register).

    Tasks that name the same handle are ordered by how they access it. Outside of tasks the array may be touched only
    inside ``acquire``.
    """

    __slots__ = ("_pinned", "_runtime", "array", "pointer")

    def __init__(self, runtime: Runtime, array: np.ndarray) -> None:
        if not array.flags.c_contiguous:
            raise ValueError(f"an array of strides {array.strides} is not C-contiguous; register a copy")
        if array.size == 0:
            raise ValueError(f"an array of shape {array.shape} has no elements to register")
        ffi, lib = runtime.ffi, runtime.lib
        out = ffi.new("void **")
        # StarPU counts elements in 32 bits, and tells sizes apart by their number: rows only where they are too many.
        elements = array.size if array.size < 2**32 else array.shape[0]
        address = ffi.cast("void *", array.ctypes.data)
        status = lib.dahl_data_register(address, elements, array.nbytes // elements, out)
        check(status, f"registering an array of shape {array.shape}")
        self._pinned = runtime.gpus is not None and bool(lib.dahl_data_pin(address, array.nbytes))
        self._runtime = runtime
        self.array = array
        self.pointer: int = int(ffi.cast("uintptr_t", out[0]))

    @contextmanager
    def acquire(self, mode: str = "r") -> Iterator[np.ndarray]:
        """Wait for the tasks that ``mode`` (r, w or rw) has to wait for, and lend the array in host memory.

        Raises KernelError, a policy's error or CancelledError where kernels were skipped: the values are not what the
        tasks would have made of them.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be r, w or rw, got {mode!r}")
        if mode != "r" and not self.array.flags.writeable:
            raise ValueError("the array is read-only; acquire it with mode='r'")
        lib, pointer = self._runtime.lib, self._handle()
        status = lib.dahl_data_acquire(pointer, MODES[mode])
        if status:
            self._runtime.raise_failure(status)
        try:
            yield self.array
        finally:
            lib.dahl_data_release(pointer)

    def so_far(self) -> np.ndarray:
        """Return the array as tasks have left it so far; the rest of them may still run.

        With GPU workers, which have copies of their own, the tasks that write it are waited for.
        """
        if self._runtime.gpus is not None:
            with self.acquire("r"):
                pass
        return self.array

    def unregister(self) -> None:
        """Wait for the tasks that use the data, bring it home and forget it. A second call does nothing."""
        if self.pointer:
            check(self._runtime.lib.dahl_data_unregister(self._handle()), "unregistering data")
            if self._pinned:
                address = self._runtime.ffi.cast("void *", self.array.ctypes.data)
                self._runtime.lib.dahl_data_unpin(address, self.array.nbytes)
            self._runtime.forget(self)
            self.pointer = 0

    def registered_pointer(self) -> int:
        """Return the address of StarPU's handle. Raises ValueError where it is unregistered."""
        if not self.pointer:
            raise ValueError(
                f"the handle of an array of shape {self.array.shape} is unregistered: its data are released"
            )
        return self.pointer

    def _handle(self) -> Any:
        return self._runtime.ffi.cast("void *", self.registered_pointer())
