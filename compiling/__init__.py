"""Compiling C files into extension modules of Python, where they lie beside the code that uses them."""

from compiling.extension import BuildError, Extension

__all__ = ["BuildError", "Extension"]
