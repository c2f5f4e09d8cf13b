"""Export a policy: ``python -m schedulers.export POLICY -o lib.so [field=value ...]``.

Makes a shared library with which any StarPU 1.4 program runs the policy, with no Python in the process:
``STARPU_SCHED_LIB=./lib.so STARPU_SCHED=eager_energy ./program``. See docs/export.md.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import schedulers
from dahl.starpu.build import BuildError, prefix_root
from dahl.starpu.library import ExportedPolicy, Needs, link_policy
from schedulers.base import PlacementPolicy, PullPolicy
from schedulers.compiled import CompiledPolicy, PolicyCompileError

Policy = PlacementPolicy | PullPolicy
NUMBERS: dict[str, Any] = {"float": float, "int": int, "bool": {"true": True, "false": False}.__getitem__}


LEVELS: tuple[Needs, ...] = ("nothing", "lengths", "costs")
"""What ``--needs`` takes, the least first."""


class ExportError(ValueError):
    """A policy cannot be exported as asked; the message says what to write instead."""


def file_name(owner: type) -> str:
    """Return a policy's name as StarPU takes it, which is the name of its file: ``EagerEnergy`` is ``eager_energy``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", owner.__name__).lower()


def known_policies() -> dict[str, type[Policy]]:
    """Return the policies of this package by the names that their files have."""
    exported = [getattr(schedulers, name) for name in schedulers.__all__]
    return {file_name(owner): owner for owner in exported if _is_policy(owner)}


def _is_policy(owner: Any) -> bool:
    return inspect.isclass(owner) and issubclass(owner, Policy) and not inspect.isabstract(owner)


def find_policy(name: str) -> type[Policy]:
    """Return a policy's class: one of this package by its file or class, any that can be imported by ``module.Class``.

    Raises ExportError where there is none.
    """
    known = known_policies()
    for file, owner in known.items():
        if name in (file, owner.__name__):
            return owner
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ExportError(f"no policy {name!r}; there are {', '.join(sorted(known))}, or write module.Class")
    try:
        found: Any = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ExportError(f"no policy {name!r}: {error}") from error
    if not _is_policy(found):
        raise ExportError(f"{name} is not a policy: it has to be a subclass of PlacementPolicy or PullPolicy")
    return found


def make_policy(owner: type[Policy], settings: Sequence[str]) -> Policy:
    """Return the policy with fields set by ``field=value``.

    Raises ExportError for a field that it does not have, and for a value of a wrong type or out of range.
    """
    types = {field.name: str(getattr(field.type, "__name__", field.type)) for field in fields(owner)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in types:
            raise ExportError(
                f"{setting!r} sets no field of {owner.__name__}; it has {', '.join(types) or 'none'}"
            )
        try:
            values[name] = NUMBERS[types[name]](text)
        except (ValueError, KeyError) as error:
            raise ExportError(f"{name} of {owner.__name__} is a {types[name]}, got {text!r}") from error
    try:
        return owner(**values)
    except ValueError as error:
        raise ExportError(f"{owner.__name__}: {error}") from error


def object_files(functions: Mapping[str, Any]) -> list[bytes]:
    """Return an object file of each compiled function, for any CPU of this architecture, under the names given.

    Raises ExportError where the code has addresses of this process in it.
    """
    import llvmlite.binding as llvm

    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu="generic", opt=2, reloc="pic", codemodel="default")
    made = []
    for symbol, function in functions.items():
        if function._library.has_dynamic_globals:
            raise ExportError(
                "the policy uses a global array, which only this process has: put it into its memory"
            )
        module = llvm.parse_assembly(function.inspect_llvm())
        for defined in module.functions:
            if not defined.is_declaration:
                defined.linkage = "internal"  # two functions of a policy bring the same helpers
        entry = module.get_function(function.native_name)
        entry.name = symbol
        entry.linkage = "external"
        made.append(machine.emit_object(module))
    return made


def least_needs(owner: type[Policy]) -> Needs:
    """Return what has to be known before such a policy may be asked: a policy of watts alone is asked like others."""
    if not {"energy_j", "idle_w", "busy_w"}.isdisjoint(owner.NEEDS):
        return "costs"
    return "lengths" if owner.NEEDS else "nothing"


def export_policy(
    policy: Policy, target: Path, prefix: Path, *, needs: Needs | None = None, skip_plan: bool = False
) -> ExportedPolicy:
    """Make the library ``target`` of a policy, for the StarPU in ``prefix``, and return what it says of itself.

    ``needs`` None takes what the policy's NEEDS ask for; less is refused.

    Raises ExportError, PolicyCompileError or dahl.starpu's BuildError, each with the way out.
    """
    owner = type(policy)
    if policy.PLANS and not skip_plan:
        raise ExportError(
            f"{owner.__name__} plans in Python before each epoch, which no library can do; "
            "--skip-plan exports it with an empty memory, if it can decide without a plan"
        )
    least = least_needs(owner)
    if needs is not None and LEVELS.index(needs) < LEVELS.index(least):
        raise ExportError(f"{owner.__name__} needs {', '.join(owner.NEEDS)}: --needs {least}, got {needs}")
    compiled = CompiledPolicy(policy)
    functions = {f"dahl_policy_{name}": function for name, function in compiled.compile_afresh().items()}
    given = ", ".join(f"{field.name}={getattr(policy, field.name)!r}" for field in fields(policy))
    exported = ExportedPolicy(
        name=file_name(owner),
        other_name=owner.__name__,
        description=f"{owner.__name__}({given})",
        symbols={symbol.removeprefix("dahl_policy_").removeprefix("task_"): symbol for symbol in functions},
        memory_floats=compiled.memory_size(),
        answer_limit_s=compiled.answer_limit_s,
        needs=needs or least,
    )
    link_policy(exported, object_files(functions), prefix, target)
    return exported


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m schedulers.export",
        description="Make a shared library of a policy for STARPU_SCHED_LIB.",
        epilog="Watts and what else the library reads: docs/export.md.",
    )
    parser.add_argument("policy", help="a file of schedulers/ (eager_energy), or module.Class")
    parser.add_argument("settings", nargs="*", metavar="field=value", help="the policy's parameters")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the library to make")
    parser.add_argument(
        "--prefix",
        type=Path,
        help="the StarPU that the program runs with (default: the native one of this checkout)",
    )
    parser.add_argument(
        "--needs",
        choices=LEVELS,
        help="what has to be known of a task before the policy is asked (default: what the policy's NEEDS ask for)",
    )
    parser.add_argument(
        "--skip-plan", action="store_true", help="export a policy that plans, without its plan"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        policy = make_policy(find_policy(options.policy), options.settings)
        exported = export_policy(
            policy,
            options.output,
            (options.prefix or prefix_root() / "native").resolve(),
            needs=options.needs,
            skip_plan=options.skip_plan,
        )
    except (ExportError, PolicyCompileError, BuildError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{exported.description}: run a program with")
    print(f"STARPU_SCHED_LIB={options.output.resolve()} STARPU_SCHED={exported.name} ./program")
    return 0


if __name__ == "__main__":
    sys.exit(main())
