"""Linking a compiled policy into a library of its own, which any StarPU program loads by ``STARPU_SCHED_LIB``.

The library holds the policy, the C layer under it (the same files as in the bindings) and what stands in for Python.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from dahl.starpu.build import SOURCES, BuildError, pkg_config_flags

C_FILES = (
    *("export_policy.c", "export_costs.c", "export_watts.c", "export_stats.c", "export_python.c"),
    *("policy.c", "placement.c", "pull.c", "watch.c"),
)
ENTRY_POINTS = ("starpu_get_sched_lib_policy", "starpu_get_sched_lib_policies")
Needs = Literal["costs", "lengths", "nothing"]
HOOKS = ("started", "ended")


@final
@dataclass(frozen=True)
class ExportedPolicy:
    """What a library says of its policy.

    ``symbols`` names the compiled functions: ``place`` or ``pick``, and ``started`` and ``ended`` where the policy has
    them. ``needs`` is what has to be known of a task before the policy is asked.
    """

    name: str
    other_name: str
    description: str
    symbols: Mapping[str, str]
    memory_floats: int
    answer_limit_s: float
    needs: Needs = "costs"


def _c_string(text: str) -> str:
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?") + '"'


def table_source(policy: ExportedPolicy) -> str:
    """Return the C source of the table that export_policy.c reads."""
    types = {"place": "dahl_place", "pick": "dahl_pick", "started": "dahl_hook", "ended": "dahl_hook"}
    # The functions are declared as what they are not, and cast: their types are typedefs of pointers.
    declarations = "".join(f"extern void {symbol}(void);\n" for symbol in policy.symbols.values())
    functions = "".join(
        f"    .{name} = ({types[name]}){symbol},\n" for name, symbol in policy.symbols.items()
    )
    return (
        f'#include "export.h"\n{declarations}\nconst struct dahl_exported dahl_exported = {{\n'
        f"    .name = {_c_string(policy.name)},\n    .other_name = {_c_string(policy.other_name)},\n"
        f"    .description = {_c_string(policy.description)},\n{functions}"
        f"    .nmemory = {policy.memory_floats},\n    .answer_limit_s = {policy.answer_limit_s!r},\n"
        f"    .needs = DAHL_NEEDS_{policy.needs.upper()},\n}};\n"
    )


def link_policy(policy: ExportedPolicy, objects: Sequence[bytes], prefix: Path, target: Path) -> None:
    """Link the compiled functions of a policy, as object files, into the shared library ``target``.

    It is made for the StarPU in ``prefix``: sizes of its structures depend on its configuration.
    Raises BuildError where that StarPU or a compiler is missing, or where the policy calls what only Python has.
    """
    flags = pkg_config_flags(prefix, "--cflags")
    libraries = pkg_config_flags(prefix, "--libs")
    with tempfile.TemporaryDirectory(prefix="dahl-export-") as name:
        folder = Path(name)
        (folder / "table.c").write_text(table_source(policy))
        exports = " ".join(f"{entry};" for entry in ENTRY_POINTS)
        (folder / "exports.map").write_text(f"{{ global: {exports} local: *; }};\n")
        paths = [folder / f"policy{index}.o" for index in range(len(objects))]
        for path, content in zip(paths, objects, strict=True):
            path.write_bytes(content)
        command: list[str | Path] = [
            *shlex.split(os.environ.get("CC", "cc")),
            *("-shared", "-fPIC", "-O2", "-std=gnu11", "-fvisibility=hidden", "-DDAHL_EXPORTED"),
            *("-Wall", f"-I{SOURCES}", *flags, str(folder / "table.c")),
            *(str(SOURCES / file) for file in C_FILES),
            *paths,
            *("-Wl,--no-undefined", "-Wl,-z,noexecstack", f"-Wl,--version-script={folder / 'exports.map'}"),
            *(
                *libraries,
                f"-Wl,-rpath,{prefix / 'lib'}",
                "-lm",
                "-pthread",
                "-o",
                str(folder / "library.so"),
            ),
        ]
        _run(command, policy.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_bytes((folder / "library.so").read_bytes())
        partial.chmod(0o755)
        partial.replace(target)


def _run(command: Sequence[str | Path], name: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
        )
    except FileNotFoundError as error:
        raise BuildError(f"no C compiler {command[0]!r}: install gcc, or name one in CC") from error
    if done.returncode == 0:
        return
    missing = sorted(set(re.findall(r"undefined reference to `([^']+)'", done.stderr)))
    if missing:
        raise BuildError(
            f"policy {name} cannot leave Python: it calls {', '.join(missing)}; "
            "an exported policy may use numbers, its records and its memory, but make no arrays or strings"
        )
    raise BuildError(f"the library of policy {name} does not compile:\n{done.stderr.strip()[-2000:]}")
