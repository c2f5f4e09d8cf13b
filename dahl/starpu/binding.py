"""Loading one of the compiled extensions: ``native`` or ``simgrid``, one per process."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from dahl.starpu.errors import VariantError

_loaded: dict[str, ModuleType] = {}


def load(variant: str) -> ModuleType:
    """Return the variant's cffi module (``ffi`` and ``lib``).

    Raises VariantError where it is not built, or where the process has loaded the other variant: both libraries have
    the same name, so one process holds one.
    """
    other = next((name for name in _loaded if name != variant), None)
    if other:
        raise VariantError(
            f"this process has loaded the {other} StarPU; run the {variant} one in a process of its own"
        )
    if variant not in _loaded:
        try:
            _loaded[variant] = importlib.import_module(f"dahl.starpu._{variant}")
        except ImportError as error:
            raise VariantError(
                f"the {variant} bindings cannot be loaded ({error}); build them with `make setup`"
            ) from error
    return _loaded[variant]


def loaded() -> Any:
    """Return the module that this process has loaded.

    Raises VariantError before one is loaded.
    """
    if not _loaded:
        raise VariantError("no StarPU is loaded yet: create a Runtime first")
    return next(iter(_loaded.values()))
