"""`python -m experiments.doctor`: what this machine has, what it lacks, and the command that mends it.

It says so and never fails over it: each question is asked in a process of its own, all at once, with a
time limit.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import environment
from experiments.probe_answers import answer_of
from experiments.probes import PROBES
from experiments.records import write_json
from experiments.validation import CHECKOUT

TIME_LIMIT_S = 8.0
_REMEDIES = {"cuda": "scripts/get-starpu --cuda && python -m dahl.starpu.build --variant cuda"}
Report = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; exit status 0 whatever it says, and 2 where `--json FILE` cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m experiments.doctor", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    asked = parser.parse_args(arguments)
    report = examine()
    print("\n".join(lines(report)))
    if asked.json is not None:
        try:
            write_json(asked.json.resolve(), report)
        except OSError as error:
            print(f"error: {asked.json} cannot be written ({error.strerror})", file=sys.stderr)
            return 2
    return 0


def examine(time_limit_s: float = TIME_LIMIT_S) -> Report:
    """Ask everything; a question that got no answer has an `error` in its place."""
    running = {name: _start(name) for name in PROBES}
    report: Report = {
        "machine": _safely(_machine),
        "software": _safely(_software),
        "disk": _safely(_disk),
    }
    deadline_s = time.monotonic() + time_limit_s
    answers = {name: _answer(started, deadline_s) for name, started in running.items()}
    return {
        "starpu": {name: answers[name] for name in ("native", "simgrid", "cuda")},
        "energy": answers["energy"],
        "sampler": answers["sampler"],
        "datasets": answers["datasets"],
        **report,
    }


def _start(name: str) -> subprocess.Popen[str] | str:
    """The process that answers a question, or why there is none."""
    own = {"PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))}
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.probes", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=tempfile.gettempdir(),
            env={**os.environ, **own},
        )
    except OSError as error:
        return str(error)


def _answer(started: subprocess.Popen[str] | str, deadline_s: float) -> Report:
    if isinstance(started, str):
        return {"error": started}
    return answer_of(started, max(0.1, deadline_s - time.monotonic()), TIME_LIMIT_S)


def _safely(probe: Callable[[], Report]) -> Report:
    try:
        return probe()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _machine() -> Report:
    return {
        "cpu": environment.cpu_model(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": environment.memory_mib(),
        "governor": environment.governor(),
        "kernel": platform.release(),
        "gpus": environment.nvidia_gpus(),
        "nvidia_driver": environment.nvidia_driver(),
        "nvcc": shutil.which("nvcc"),
    }


def _software() -> Report:
    return {"python": platform.python_version(), **environment.versions(), **environment.commit(CHECKOUT)}


def _disk() -> Report:
    usage = shutil.disk_usage(CHECKOUT)
    return {"checkout": str(CHECKOUT), "free_gib": round(usage.free / 2**30, 1)}


def lines(report: Report) -> list[str]:
    """The report as text."""
    shown = ["StarPU"]
    for variant, answer in report["starpu"].items():
        shown += _starpu_lines(variant, answer)
    shown += ["", "Energy sources", *_energy_lines(report["energy"]), *_sampler_lines(report["sampler"])]
    shown += ["", "Data sets", *_dataset_lines(report["datasets"])]
    for title, key in (("Machine", "machine"), ("Software", "software"), ("Disk", "disk")):
        shown += ["", title]
        shown += [_line(name, _words(value)) for name, value in report[key].items()]
    return shown


def _starpu_lines(variant: str, answer: Report) -> list[str]:
    if "error" in answer:
        return [_line(variant, "absent", answer["error"]), _remedy(_REMEDIES.get(variant, "make setup"))]
    if "why" in answer:
        return [_line(variant, answer["version"], answer["why"])]
    found = [_line(variant, answer["version"], f"{len(answer['policies'])} policies")]
    if "gpus" in answer:
        found.append(_line("", f"{len(answer['gpus'])} GPUs", ", ".join(answer["gpus"])))
    if "workers" in answer:
        found.append(_line("", f"{len(answer['workers'])} workers", ", ".join(answer["workers"])))
    return found


def _energy_lines(answer: Report) -> list[str]:
    if "error" in answer:
        return [_line("?", answer["error"]), _remedy("make setup")]
    shown = []
    for name, state in answer.items():
        if "why" in state:
            shown += [_line(name, "absent", state["why"]), _remedy(state["remedy"])]
        else:
            shown.append(_line(name, "readable", ", ".join(state["channels"])))
            shown += [_line("", f"without {channel}", why) for channel, why in state["left_out"].items()]
    shown.append(_line("model", "always there", "assumed watts (configs/energy/model.yaml): estimated"))
    return shown


def _sampler_lines(answer: Report) -> list[str]:
    if "error" in answer:
        return [_line("sampler", answer["error"]), _remedy("make setup")]
    if "why" in answer:
        why = f"{answer['why']}, so that a reading costs more processor time"
        return [_line("sampler", "loop in Python", why), _remedy(answer["remedy"])]
    return [_line("sampler", "native loop", "counters that are files are read without Python")]


def _dataset_lines(answer: Report) -> list[str]:
    if "error" in answer:
        return [_line("?", answer["error"]), _remedy("make setup")]
    shown = []
    for name, state in answer.items():
        shown.append(_line(name, "found" if state["found"] else "absent", state["where"]))
        if not state["found"]:
            shown.append(_remedy(state["remedy"]))
    return shown


def _line(name: str, *words: str) -> str:
    return f"  {name:<14} {': '.join(word for word in words if word)}"


def _remedy(text: str) -> str:
    return f"  {'':<14} -> {text}"


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return "none" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
