"""Compiling CUDA C for a GPU with NVRTC, with what it made kept on disk. No card is needed to compile."""

from __future__ import annotations

import ctypes
import hashlib
import os
from functools import cache
from pathlib import Path

from dahl.starpu.cuda_libraries import find_library
from dahl.starpu.cuda_source import OPTIONS, source_text
from dahl.starpu.errors import GpuError
from dahl.starpu.kernel import cache_root


class CudaSourceError(GpuError):
    """A CUDA source does not compile; the message is NVRTC's log."""


@cache
def _library() -> ctypes.CDLL:
    """NVRTC; with its built-in functions loaded first, which it looks for by name only, and not in its own folder."""
    path = find_library("nvrtc")
    for beside in sorted(Path(path).parent.glob("libnvrtc-builtins.so.*")) if "/" in path else ():
        ctypes.CDLL(str(beside))
    return ctypes.CDLL(path)


def version() -> str:
    """Return NVRTC's version, such as ``13.0``."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compiled(path: Path, capability: int) -> bytes:
    """Return a source compiled for a compute capability (90 for 9.0), from the disk where it is there.

    Raises CudaSourceError where it does not compile, NoGpuError where NVRTC is not found.
    """
    text = source_text(path)
    options = (f"--gpu-architecture=sm_{capability}", *OPTIONS)
    digest = hashlib.sha256(
        "\0".join([text, *options, version(), find_library("nvrtc")]).encode()
    ).hexdigest()
    kept = cache_root() / "cuda" / f"{path.stem}_{digest[:24]}.cubin"
    if kept.exists():
        return kept.read_bytes()
    image = compile_text(text, path.name, options)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_bytes(image)
    partial.replace(kept)
    return image


def compile_text(text: str, name: str, options: tuple[str, ...]) -> bytes:
    """Return the cubin of a CUDA source. Raises CudaSourceError with NVRTC's log."""
    library, program, size = _library(), ctypes.c_void_p(), ctypes.c_size_t()
    words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    if library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None):
        raise CudaSourceError(f"{name}: NVRTC takes no program")
    try:
        if library.nvrtcCompileProgram(program, len(options), words):
            library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            library.nvrtcGetProgramLog(program, log)
            raise CudaSourceError(
                f"{name} does not compile ({' '.join(options)}): {log.value.decode().strip()}"
            )
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        library.nvrtcGetCUBIN(program, image)
        return image.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
