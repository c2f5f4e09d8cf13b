"""Entering a simulation: SimGrid starts, and calls back with its main actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dahl.starpu.errors import AlreadyRunningError, check

SETTINGS = (b"--cfg=surf/precision:1e-12",)
"""SimGrid's own resolution of times, 1 ns, is a thousandth of a short task: over many of them it would add up."""

_inside: Callable[[], None] | None = None


def simulate(ffi: Any, lib: Any, inside: Callable[[], None]) -> None:
    """Call ``inside``, which must not raise, as the main actor of a simulation, and return when SimGrid is done.

    Raises AlreadyRunningError at the second call: SimGrid starts once per process.
    """
    global _inside
    if _inside is not None:
        raise AlreadyRunningError("this process has simulated already; SimGrid starts once per process")
    _inside = inside
    ffi.def_extern(name="dahl_main_callback", error=-1)(_call_inside)
    words = [ffi.new("char[]", word) for word in (b"dahl", b"--log=root.thres:warning", *SETTINGS)]
    argv = ffi.new("char *[]", [*words, ffi.NULL])
    check(lib.dahl_simulate(len(words), argv, ffi.new("int *")), "entering the simulation")


def _call_inside() -> int:
    assert _inside is not None
    _inside()
    return 0
