"""Loading one of the compiled extensions: ``native``, ``simgrid``, ``cuda`` or ``polling``, one per process."""

from __future__ import annotations

import importlib
import importlib.util
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
                f"the {variant} bindings cannot be loaded ({error}); build them with `{way_to_build(variant)}`"
            ) from error
    return _loaded[variant]


def is_built(variant: str) -> bool:
    """Tell whether the variant's extension is there."""
    return importlib.util.find_spec(f"dahl.starpu._{variant}") is not None


def way_to_build(variant: str) -> str:
    """Return the command that builds a variant."""
    if variant == "polling":
        return "scripts/get-starpu --variant polling && python -m dahl.starpu.build --variant polling"
    if variant == "cuda":
        return "scripts/get-starpu --cuda && python -m dahl.starpu.build --variant cuda"
    return "make setup"


def loaded() -> Any:
    """Return the module that this process has loaded.

    Raises VariantError before one is loaded.
    """
    if not _loaded:
        raise VariantError("no StarPU is loaded yet: create a Runtime first")
    return next(iter(_loaded.values()))


def schedulers(variant: str = "native") -> dict[str, str]:
    """Return StarPU's own scheduling policies: name to description (starpu_sched_get_predefined_policies)."""
    module = load(variant)
    name, description = module.ffi.new("const char **"), module.ffi.new("const char **")
    found: dict[str, str] = {}
    while module.lib.dahl_predefined_scheduler(len(found), name, description) == 0:
        found[module.ffi.string(name[0]).decode()] = module.ffi.string(description[0]).decode()
    return found


def version(variant: str = "native") -> str:
    """Return the version of the StarPU that is loaded, such as ``1.4.10``."""
    module = load(variant)
    parts = [module.ffi.new("int *") for _ in range(3)]
    module.lib.dahl_version(*parts)
    return ".".join(str(part[0]) for part in parts)
