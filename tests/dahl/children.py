"""Running a piece of Python in a process of its own: a simulation needs one, and an abort stays in it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_child(code: str, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter from the checkout's root."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


def child_json(code: str, *arguments: str, seconds: float = 120) -> Any:
    """Run ``code`` and return what it printed as its last line, read as JSON."""
    done = run_child(code, *arguments, seconds=seconds)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.strip().splitlines()[-1])
