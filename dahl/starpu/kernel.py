"""Kernels: plain Python functions over arrays, compiled to C functions that StarPU's workers call.

A kernel is compiled once and kept on disk. The folder of the compiled code is named by a hash of every source that
the kernel could depend on, of Numba's version and of the CPU, because Numba itself notices neither an edit in
another file nor a move to another machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, final

import numpy as np

Mode = Literal["r", "w", "rw"]
DTYPES = ("float32", "float64", "int32", "int64", "uint8")
FASTMATH = frozenset({"reassoc", "contract", "nsz"})  # no nnan: a NaN has to reach the loss


@final
@dataclass(frozen=True)
class Operand:
    """One array of a kernel: how it is accessed, its number of dimensions and its dtype.

    ``repeated`` marks a last operand that stands for any number (>= 1) of arrays of one shape.
    ``constant`` marks one in main memory that no task writes: tasks get its address, and StarPU, which would look after
    it for each task, hears nothing of it. It is changed only while no task is left.
    """

    name: str
    mode: Mode
    ndim: int
    dtype: str = "float32"
    repeated: bool = False
    constant: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("r", "w", "rw"):
            raise ValueError(f"operand {self.name}: mode must be r, w or rw, got {self.mode!r}")
        if self.dtype not in DTYPES:
            raise ValueError(
                f"operand {self.name}: dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}"
            )
        if self.ndim < 1:
            raise ValueError(f"operand {self.name}: ndim must be at least 1, got {self.ndim}")
        if self.constant and (self.mode != "r" or self.repeated):
            raise ValueError(f"operand {self.name}: a constant is read, and not repeated")


@final
@dataclass(frozen=True)
class Kernel:
    """A function over arrays that a task runs.

    ``function`` receives one C-contiguous array per operand, then the scalars, then with ``scratch`` a float32 array
    of the worker's own whose contents are undefined. With a repeated last operand it is called once for each of its
    arrays, in order, with two more integers at the end: the array's index and their number.
    """

    name: str
    function: Callable[..., None]
    operands: tuple[Operand, ...]
    scalars: tuple[tuple[str, str], ...] = ()
    scratch: bool = False
    load: Callable[[], None] | None = None
    """Called before the kernel is compiled or loaded: brings in a library that it calls."""

    def __post_init__(self) -> None:
        if any(operand.repeated for operand in self.operands[:-1]):
            raise ValueError(f"kernel {self.name}: only the last operand may be repeated")
        for name, kind in self.scalars:
            if kind not in ("int64", "float64"):
                raise ValueError(f"kernel {self.name}: scalar {name} must be int64 or float64, got {kind!r}")

    @property
    def repeats(self) -> bool:
        """Whether the last operand stands for any number of arrays."""
        return bool(self.operands) and self.operands[-1].repeated

    @property
    def handled(self) -> tuple[Operand, ...]:
        """The operands that tasks have handles for: all but the constants."""
        return tuple(operand for operand in self.operands if not operand.constant)

    def pack(
        self,
        shapes: Sequence[tuple[int, ...]],
        scalars: Mapping[str, float],
        scratch_floats: int = 0,
        constants: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """Return the int64 argument block.

        Scratch floats, the sizes of the operands, the scalars (floats as bits), the addresses of the constants, which
        have to stay where they are for as long as tasks of this block may run.
        """
        expected = [name for name, _ in self.scalars]
        if set(scalars) != set(expected):
            raise TypeError(f"{self.name} takes the scalars {expected}, got {sorted(scalars)}")
        if len(constants) != len(self.operands) - len(self.handled):
            raise TypeError(
                f"{self.name} takes {len(self.operands) - len(self.handled)} constants, got {len(constants)}"
            )
        sizes = [size for shape in shapes for size in shape]
        addresses = [array.ctypes.data for array in constants]
        block = np.empty(1 + len(sizes) + len(expected) + len(addresses), np.int64)
        block[0] = scratch_floats
        block[1 : 1 + len(sizes)] = sizes
        for at, (name, kind) in enumerate(self.scalars, start=1 + len(sizes)):
            block[at : at + 1].view(kind)[0] = scalars[name]
        block[block.size - len(addresses) :] = addresses
        return block

    def scalar_position(self, name: str) -> int:
        """Return where an int64 scalar stands in the argument block."""
        names = [scalar for scalar, _ in self.scalars]
        return 1 + sum(operand.ndim for operand in self.operands) + names.index(name)


def inline_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a helper that kernels call, with the flags that kernels are compiled with.

    It has no entry for the interpreter, which takes a fifth to a third of the time to compile:
    called from Python it raises TypeError, and its ``py_func`` is the plain function.
    """
    flags = {"fastmath": set(FASTMATH), "error_model": "numpy"}
    options = {"nopython": True, "boundscheck": None, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher: Callable[..., Any] = _helpers_dispatcher()(function, targetoptions={**options, **flags})
    return dispatcher


@cache
def _helpers_dispatcher() -> Any:
    """Numba's class of compiled functions, for those that only compiled functions can call."""
    from numba.core.registry import CPUDispatcher

    class HelpersDispatcher(CPUDispatcher):
        def __call__(self, *args: Any, **named: Any) -> Any:  # Numba's own would crash
            raise TypeError(
                f"{self.py_func.__name__} is compiled for kernels to call; from Python call its py_func"
            )

    return HelpersDispatcher


@cache
def pointer_to(dtype: str) -> Any:
    """Return a Numba intrinsic that turns an address into a pointer to ``dtype``."""
    from numba import types
    from numba.extending import intrinsic

    element = getattr(types, dtype)

    @intrinsic
    def address_as_pointer(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.intp), generate

    return address_as_pointer


def entry_signature() -> Any:
    """Return the C signature of a kernel's entry: ``dahl_kernel`` in csrc/dahl.h."""
    from numba import types

    return types.void(
        types.CPointer(types.int32),
        types.CPointer(types.intp),
        types.int64,
        types.CPointer(types.int64),
        types.CPointer(types.float32),
    )


def entry_source(kernel: Kernel, origin: str) -> str:
    """Return the Python source of the compiled entry; ``origin`` is the line that binds ``function``."""
    handled = kernel.handled
    constant = 1 + sum(operand.ndim for operand in kernel.operands) + len(kernel.scalars)
    words = constant + len(kernel.operands) - len(handled)
    body = ["b = carray(buffers, (nbuffers,))", f"a = carray(args, ({words},))", "f = a.view(np.float64)"]
    at, buffer, names = 1, 0, []
    for index, operand in enumerate(kernel.operands):
        shape = ", ".join(f"a[{at + axis}]" for axis in range(operand.ndim))
        where = f"a[{constant}]" if operand.constant else "b[i]" if operand.repeated else f"b[{buffer}]"
        line = f"x{index} = carray(to_{operand.dtype}({where}), ({shape},))"
        body.append(line if not operand.repeated else f"for i in range({buffer}, nbuffers):\n        {line}")
        names.append(f"x{index}")
        at += operand.ndim
        constant, buffer = constant + operand.constant, buffer + (not operand.constant)
    for _, kind in kernel.scalars:
        names.append(f"{'a' if kind == 'int64' else 'f'}[{at}]")
        at += 1
    if kernel.scratch:
        names.append("carray(scratch, (a[0],))")
    if kernel.repeats:
        names += [f"i - {len(handled) - 1}", f"nbuffers - {len(handled) - 1}"]
        body.append(f"    function({', '.join(names)})")
    else:
        body.append(f"function({', '.join(names)})")
    pointers = "".join(f"to_{dtype} = pointer_to({dtype!r})\n" for dtype in DTYPES)
    return (
        "import numpy as np\n"
        "from numba import carray, cfunc\n"
        "from dahl.starpu.kernel import compiled_function, entry_signature, pointer_to\n"
        f"{origin}\n{pointers}\n"
        "@cfunc(entry_signature(), cache=CACHE)\n"
        "def entry(status, buffers, nbuffers, args, scratch):\n    "
        + "\n    ".join(body)
        + "\n    carray(status, (1,))[0] = 0\n"
    )


def compiled_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the Numba dispatcher of a kernel's function; one that is compiled already is taken as it is."""
    return function if hasattr(function, "py_func") else inline_kernel(function)


def cache_root() -> Path:
    """Return where compiled kernels are kept: ``$DAHL_CACHE``, or ``.cache`` beside the package."""
    return Path(os.environ.get("DAHL_CACHE", Path(__file__).parents[2] / ".cache"))


@cache
def sources_digest(folder: Path) -> str:
    """Return a hash of the sources beside a kernel's own, of this file, of Numba's version and of the CPU."""
    import llvmlite
    import llvmlite.binding as llvm
    import numba

    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.py")), Path(__file__)]:
        digest.update(path.name.encode() + path.read_bytes())
    features = llvm.get_host_cpu_features().flatten()
    versions = f"{numba.__version__} {llvmlite.__version__} {np.__version__} {sys.version}"
    digest.update(f"{versions} {llvm.get_host_cpu_name()} {features}".encode())
    return digest.hexdigest()[:24]


def kernels_folder(sources: Path) -> Path:
    """Return where the compiled kernels of the sources in a folder are kept; it is not there before the first one."""
    return cache_root() / "kernels" / sources_digest(sources)


def _importable(function: Callable[..., Any]) -> bool:
    plain = getattr(function, "py_func", function)
    module = sys.modules.get(plain.__module__)
    return plain.__module__ != "__main__" and getattr(module, plain.__qualname__, None) is function


def _place(kernel: Kernel) -> tuple[Path, str]:
    """Where the entry of a kernel that can be imported is kept, and its source."""
    plain = getattr(kernel.function, "py_func", kernel.function)
    folder = Path(sys.modules[plain.__module__].__file__ or "").parent
    origin = (
        f"from {plain.__module__} import {plain.__qualname__} as plain\nfunction = compiled_function(plain)\n"
    )
    source = entry_source(kernel, origin).replace("CACHE", "True")
    name = f"{kernel.name}_{hashlib.sha256(source.encode()).hexdigest()[:8]}.py"
    return kernels_folder(folder) / name, source


def is_on_disk(kernel: Kernel) -> bool:
    """Whether a kernel has been compiled into the cache on disk, or cannot be."""
    if not _importable(kernel.function):
        return True
    path, _ = _place(kernel)
    return any(path.parent.glob(f"__pycache__/{path.stem}.entry-*.nbi"))  # Numba's index of what it compiled


def _load_cached(kernel: Kernel) -> ModuleType:
    path, source = _place(kernel)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(source)
        partial.replace(path)
    specification = importlib.util.spec_from_file_location(f"dahl_kernel_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # Numba's cache imports it by this name
    specification.loader.exec_module(module)
    return module


@cache
def compile_kernel(kernel: Kernel) -> Any:
    """Compile a kernel and return its Numba cfunc, whose ``address`` has the signature ``dahl_kernel``.

    A function that cannot be imported by name (a closure, one typed at a prompt) is compiled without the disk cache.
    Raises Numba's own typing error where the function cannot be compiled.
    """
    if kernel.load:
        kernel.load()
    if _importable(kernel.function):
        return _load_cached(kernel).entry
    namespace: dict[str, Any] = {"plain": kernel.function}
    source = entry_source(kernel, "function = compiled_function(plain)\n").replace("CACHE", "False")
    exec(compile(source, f"<kernel {kernel.name}>", "exec"), namespace)
    return namespace["entry"]
