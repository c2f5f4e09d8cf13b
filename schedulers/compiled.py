"""Compiling a policy: its method becomes a C function that StarPU's threads call without the interpreter.

Parameters (the dataclass fields) are compiled in as constants. Compiled policies are kept on disk in a folder named by
a hash of the sources beside the policy's own, of Numba's version and of the CPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, final

from schedulers.base import PlacementPolicy, PullPolicy
from schedulers.prepared import PreparedPolicy

ENTRY = '''"""Generated: the C entry of policy {name}."""
from collections import namedtuple

from numba import carray, cfunc, from_dtype, njit, types
from schedulers.views import READY, SYSTEM, TASK, WORKER
{origin}

Parameters = namedtuple("{name}Parameters", {names!r})
parameters = Parameters({values})
decide = njit(error_model="numpy")(method)
integer, real = types.int64, types.CPointer(types.float64)
answered, task_t, ready_t, worker_t, system_t = types.CPointer(types.int64), *(
    types.CPointer(from_dtype(dtype)) for dtype in (TASK, READY, WORKER, SYSTEM)
)
flag = types.CPointer(types.int32)

{body}
'''

HOOK = """method_{hook} = {owner}.{hook}
tell_{hook} = njit(error_model="numpy")(method_{hook})


@cfunc(types.void(flag, task_t, integer, types.float64, system_t, real, integer), cache={cache})
def {hook}(status, task, worker, length_s, system, memory, nmemory):
    tell_{hook}(parameters, carray(task, (1,))[0], worker, {length}carray(system, (1,))[0], carray(memory, (nmemory,)))
    carray(status, (1,))[0] = 0
"""

PLACE = """@cfunc(types.void(flag, answered, task_t, worker_t, integer, system_t, real, integer), cache={cache})
def entry(status, answer, task, workers, nworkers, system, memory, nmemory):
    chosen = decide(parameters, carray(task, (1,))[0], carray(workers, (nworkers,)), carray(system, (1,))[0],
                    carray(memory, (nmemory,)))
    carray(answer, (1,))[0] = chosen
    carray(status, (1,))[0] = 0
"""

PICK = """@cfunc(types.void(flag, answered, integer, ready_t, integer, worker_t, integer, system_t, real, integer),
       cache={cache})
def entry(status, answer, worker, ready, nready, workers, nworkers, system, memory, nmemory):
    chosen = decide(parameters, worker, carray(ready, (nready,)), carray(workers, (nready, nworkers)),
                    carray(system, (1,))[0], carray(memory, (nmemory,)))
    carray(answer, (1,))[0] = chosen
    carray(status, (1,))[0] = 0
"""


class PolicyCompileError(ValueError):
    """A policy's method cannot be compiled; the message shows the line and Numba's reason."""


def cache_root() -> Path:
    """Return where compiled policies are kept: ``$DAHL_CACHE``, or ``.cache`` beside the package."""
    return Path(os.environ.get("DAHL_CACHE", Path(__file__).parents[1] / ".cache"))


@cache
def sources_digest(folder: Path) -> str:
    """Return a hash of the sources in a policy's folder and in this one, of Numba's version and of the CPU."""
    import llvmlite.binding as llvm
    import numba

    digest = hashlib.sha256()
    for path in sorted({*folder.glob("*.py"), *Path(__file__).parent.glob("*.py")}):
        digest.update(str(path).encode() + path.read_bytes())
    features = llvm.get_host_cpu_features().flatten()
    digest.update(f"{numba.__version__} {sys.version} {llvm.get_host_cpu_name()} {features}".encode())
    return digest.hexdigest()[:24]


@final
@dataclass(frozen=True)
class CompiledPolicy(PreparedPolicy):
    """A policy ready to be installed in a runtime (the protocol ``dahl.starpu.Policy``)."""

    policy: PlacementPolicy | PullPolicy
    answer_limit_s: float = 30.0
    """A policy that takes longer over one answer ends the process: it would hang the run."""

    def hooks(self) -> dict[str, int]:
        """Return the addresses of the compiled hooks."""
        return {name.removeprefix("task_"): int(self._compiled[name].address) for name in self.policy.HOOKS}

    def raised(self) -> BaseException | None:
        """Return nothing: Numba reports what compiled code raises."""
        return None

    def entry(self) -> int:
        """Return the compiled function's address.

        Raises PolicyCompileError where Numba cannot compile the method.
        """
        return int(self._compiled["entry"].address)

    def compile_afresh(self) -> dict[str, Any]:
        """Return the Numba cfuncs of ``place`` or ``pick`` and of the hooks, past the disk cache.

        What comes from the cache has no code to look at. Raises PolicyCompileError as ``entry`` does.
        """
        compiled = self._translated(cached=False)
        method = "place" if self.kind == "placement" else "pick"
        return {method: compiled["entry"], **{hook: compiled[hook] for hook in self.policy.HOOKS}}

    @cached_property
    def _compiled(self) -> dict[str, Any]:
        return self._translated(cached=True)

    def _translated(self, *, cached: bool) -> dict[str, Any]:
        from numba.core.errors import NumbaError

        try:
            return self._load(cached=cached)
        except NumbaError as error:
            method = "place" if self.kind == "placement" else "pick"
            raise PolicyCompileError(
                f"policy {self.name}: {method} or a hook cannot be compiled: {error}\n"
                "A policy may use numbers, loops, conditions, the records it is given, and njit functions."
            ) from error

    def _source(self, origin: str, *, cached: bool) -> str:
        names = [field.name for field in fields(self.policy)] or ["nothing"]
        values = [getattr(self.policy, field.name) for field in fields(self.policy)] or [0]
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, bool | int | float):
                raise PolicyCompileError(f"policy {self.name}: {name} must be a number, got {value!r}")
        body = (PLACE if self.kind == "placement" else PICK).format(cache=cached)
        for hook in self.policy.HOOKS:
            length = "length_s, " if hook == "task_ended" else ""
            body += "\n\n" + HOOK.format(
                hook=hook, owner=type(self.policy).__name__, length=length, cache=cached
            )
        given = ", ".join(f"float({str(v)!r})" if isinstance(v, float) else repr(v) for v in values)
        return ENTRY.format(name=self.name, origin=origin, names=names, values=given, body=body)

    def _load(self, *, cached: bool) -> dict[str, Any]:
        owner = type(self.policy)
        method = "place" if self.kind == "placement" else "pick"
        module = sys.modules[owner.__module__]
        by_name = owner.__module__ != "__main__" and getattr(module, owner.__qualname__, None) is owner
        if not cached or not by_name:
            namespace: dict[str, Any] = {"method": getattr(owner, method), owner.__name__: owner}
            exec(compile(self._source("", cached=False), f"<policy {self.name}>", "exec"), namespace)
            return namespace
        origin = (
            f"from {owner.__module__} import {owner.__qualname__}\n\nmethod = {owner.__qualname__}.{method}"
        )
        source = self._source(origin, cached=True)
        home = cache_root() / "policies" / sources_digest(Path(module.__file__ or "").parent)
        home.mkdir(parents=True, exist_ok=True)
        path = home / f"{self.name}_{hashlib.sha256(source.encode()).hexdigest()[:12]}.py"
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(source)
            partial.replace(path)
        specification = importlib.util.spec_from_file_location(f"dahl_policy_{path.stem}", path)
        assert specification is not None
        assert specification.loader is not None
        generated = importlib.util.module_from_spec(specification)
        sys.modules[generated.__name__] = generated  # Numba's cache imports it by this name
        specification.loader.exec_module(generated)
        return vars(generated)
