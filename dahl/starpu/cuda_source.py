"""Sources of CUDA functions, read with what they include."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

OPTIONS = ("-std=c++17",)
"""For NVRTC. Without --use_fast_math: a NaN has to reach the loss, and denormals stay what they are."""
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_FUNCTION = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\(\d+(?:, \d+)?\)\s+)?(\w+)\(')


@cache
def source_text(path: Path) -> str:
    """Return a source with each file that it includes from its own folder in the place of its first mention."""
    seen: set[str] = set()

    def included(found: re.Match[str]) -> str:
        name = found.group(1)
        if name in seen:
            return ""
        seen.add(name)
        return _INCLUDE.sub(included, (path.parent / name).read_text())

    return _INCLUDE.sub(included, path.read_text())


def functions(text: str) -> list[str]:
    """Return the names of the CUDA functions that can be launched."""
    return _FUNCTION.findall(text)
