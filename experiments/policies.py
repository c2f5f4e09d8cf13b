"""The scheduler that a configuration names: one of StarPU's, a policy of this project, or a file of one's own."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from types import ModuleType
from typing import Any, get_type_hints

from dahl.starpu.policy import NEEDS
from schedulers import PlacementPolicy, PullPolicy, StarPUScheduler

HOW_IT_RUNS = ("compiled", "explain")
"""Keys of a scheduler's configuration that are not the policy's own."""

KINDS = (PlacementPolicy, PullPolicy, StarPUScheduler)

Scheduler = PlacementPolicy | PullPolicy | StarPUScheduler


class PolicyFileError(Exception):
    """A policy cannot be imported or made; the message is one line with the place and the way out."""


def load_scheduler(config: Mapping[str, Any]) -> Scheduler:
    """Return the policy, or the name of one of StarPU's.

    ``config`` has ``_target_`` (MODULE.CLASS), the policy's fields, and how it is to run.
    Raises PolicyFileError; ValueError where the policy refuses a value.
    """
    target = str(config["_target_"])
    module_name, _, name = target.rpartition(".")
    owner = _find(_import(module_name, target), name, target)
    values = {str(k): v for k, v in config.items() if k not in (*HOW_IT_RUNS, "_target_")}
    _check_methods(owner)
    _check_values(owner, values)
    try:
        made: Scheduler = owner(**values)
    except ValueError:
        raise
    except Exception as error:
        raise PolicyFileError(f"{name} cannot be made: {_told(error)}") from error
    return made


def _import(module: str, target: str) -> ModuleType:
    if not module:
        raise PolicyFileError(
            f"scheduler._target_={target}: must be MODULE.CLASS, such as my_policy.MyPolicy"
        )
    try:
        return importlib.import_module(module)
    except SyntaxError as error:
        raise PolicyFileError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise PolicyFileError(f"{module} cannot be imported: {_told(error)}") from error
        raise PolicyFileError(
            f"scheduler._target_={target}: no module {error.name}; put the folder of its file on PYTHONPATH"
        ) from error
    except Exception as error:
        raise PolicyFileError(f"{module} cannot be imported: {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error with its type and the line that it comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def _find(module: ModuleType, name: str, target: str) -> type[Any]:
    owner = getattr(module, name, None)
    if not (inspect.isclass(owner) and issubclass(owner, KINDS)):
        found = [
            key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, KINDS)
        ]
        there_are = ", ".join(key for key in found if vars(module)[key] not in KINDS[:2]) or "none"
        what = "has no such class" if owner is None else "is no subclass of PlacementPolicy or PullPolicy"
        raise PolicyFileError(
            f"scheduler._target_={target}: {what}; policies in {module.__name__}: {there_are}"
        )
    return owner


def _check_methods(owner: type[Any]) -> None:
    """Raise PolicyFileError where a method is missing, or does not take what it is called with."""
    name = owner.__name__
    if "__dataclass_fields__" not in vars(owner):
        raise PolicyFileError(
            f"{name} lacks its decorator: @dataclass(frozen=True, slots=True, kw_only=True)"
        )
    if issubclass(owner, StarPUScheduler):
        return
    base, decides = (PlacementPolicy, "place") if issubclass(owner, PlacementPolicy) else (PullPolicy, "pick")
    arguments = {
        decides: [*inspect.signature(getattr(base, decides)).parameters],
        "task_started": ["self", "task", "worker", "system", "memory"],
        "task_ended": ["self", "task", "worker", "length_s", "system", "memory"],
        "plan": ["self", "kinds", "workers", "system", "memory"],
        "lay_out": ["self", "graphs", "links", "workers", "system", "memory"],
        "check_machine": ["self", "workers", "system"],
    }
    unknown = set(owner.HOOKS) - {"task_started", "task_ended"}
    if unknown:
        raise PolicyFileError(
            f"{name}.HOOKS takes task_started and task_ended, got {', '.join(sorted(unknown))}"
        )
    unheard = set(owner.NEEDS) - set(NEEDS)
    if unheard:
        raise PolicyFileError(f"{name}.NEEDS takes {', '.join(NEEDS)}, got {', '.join(sorted(unheard))}")
    declared = (("plan", owner.PLANS), ("lay_out", owner.LAYS_OUT), ("check_machine", owner.CHECKS))
    optional = [method for method, has in declared if has]
    for method in (decides, *owner.HOOKS, *optional):
        wanted = f"{method}({', '.join(arguments[method])})"
        own = getattr(owner, method, None)
        if own is None or getattr(own, "__isabstractmethod__", False):
            raise PolicyFileError(f"{name} lacks the method {wanted}")
        if len(inspect.signature(own).parameters) != len(arguments[method]):
            raise PolicyFileError(f"{name}.{method}{inspect.signature(own)} must be {wanted}")


def _check_values(owner: type[Any], values: Mapping[str, Any]) -> None:
    """Raise PolicyFileError where a value is for no field, is of a wrong type, or is missing."""
    own = {field.name: field for field in fields(owner)}
    for key in values:
        if key not in own:
            raise PolicyFileError(f"{owner.__name__} has no field {key}; it has: {', '.join(own) or 'none'}")
    hints = get_type_hints(owner)
    for name, field in own.items():
        if name in values:
            _check_type(owner, name, hints[name], values[name])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise PolicyFileError(f"{owner.__name__} needs {name}: +scheduler.{name}=...")
        else:
            _check_default(owner, field, hints[name])


def _check_default(owner: type[Any], field: Field[Any], hint: Any) -> None:
    if field.default is not MISSING:
        _check_type(owner, field.name, hint, field.default)


def _check_type(owner: type[Any], name: str, hint: Any, value: Any) -> None:
    taken = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}.get(hint)
    if taken is None or (hint is str and not issubclass(owner, StarPUScheduler)):
        raise PolicyFileError(
            f"{owner.__name__}.{name} must be declared as float, int or bool, not as {hint}"
        )
    if not isinstance(value, taken) or (isinstance(value, bool) and hint is not bool):
        words = {float: "a number", int: "a whole number", bool: "true or false", str: "a name"}[hint]
        raise PolicyFileError(f"{owner.__name__}: {name} must be {words}, got {value!r}")
