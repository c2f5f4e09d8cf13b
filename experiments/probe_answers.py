"""What a probe, a question asked in a process of its own, has answered."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from experiments.supervisor import signal_name


def answer_of(started: subprocess.Popen[str], seconds: float, limit_s: float) -> dict[str, Any]:
    """The answer of `python -m experiments.probes`; a question that got none has an `error` in its place.

    It is waited for `seconds`, what is left of `limit_s`.
    """
    try:
        out, err = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        started.kill()
        started.communicate()
        return {"error": f"no answer within {limit_s:g} s"}
    try:
        answer = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        last = err.strip().splitlines()[-1:] or ["no output"]
        code = started.returncode
        how = f"killed by {signal_name(-code)}" if code < 0 else f"exit status {code}"
        return {"error": f"{how}: {last[0]}"}
    return answer if isinstance(answer, dict) else {"error": f"an answer that is none: {answer}"}
