"""`python -m experiments.trial RUN_DIR`: one trial, in the process that may die of it.

`experiments.run` starts it and follows its events; by hand, without `--events`, they come as lines on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.events import EventWriter
from experiments.lifeline import die_with_parent

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial of a run's folder; returns the exit status."""
    return report("python -m experiments.trial", __doc__, _run, arguments)


def report(
    program: str,
    description: str | None,
    work: Callable[[Path, EventWriter], dict[str, Any]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Do a supervised process's work on a run's folder and tell by events how it ended; returns the exit status."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("run_dir", type=Path, help="the run's folder, with its config.yaml")
    parser.add_argument("--events", type=int, metavar="FD", help="where to write events")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process has ended")
    asked = parser.parse_args(arguments)
    if asked.parent is not None:
        die_with_parent(asked.parent)
    faulthandler.enable()  # a segfault leaves the Python stack in trial.log
    events = EventWriter(asked.events)
    try:
        result = work(asked.run_dir, events)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        events.emit("failed", kind=type(error).__name__, message=one_line(error))
        return 1
    events.emit("finished", **result)
    return 0


def _run(run_dir: Path, events: EventWriter) -> dict[str, Any]:
    # Here and not above: StarPU or a library that is missing is a failed trial with its reason, too.
    from experiments import records, tables
    from experiments.calibration import ensure_costs
    from experiments.granularity import with_tile
    from experiments.training import compile_kernels, train
    from experiments.workload import load_workload

    try:
        config = records.read_config(run_dir)
        if config["framework"]["name"] == "torch":
            return _train_twin(run_dir, config, events)
        workload = load_workload(config, events)
        compile_kernels(workload, events)
        workload = with_tile(run_dir, workload, events)
        if workload.needs_costs:
            workload = replace(workload, costs=ensure_costs(run_dir, workload, events))
        return train(run_dir, workload, events)
    finally:
        torn = tables.finish_tables(run_dir)
        with contextlib.suppress(BrokenPipeError):
            for name in torn:
                events.emit("notice", message=f"{name}: the last rows were incomplete and have been dropped")


def _train_twin(run_dir: Path, config: dict[str, Any], events: EventWriter) -> dict[str, Any]:
    from experiments.torch_environment import prepare
    from experiments.workload import load_workload

    prepare()
    from experiments.torch_training import train

    return train(run_dir, load_workload(config, events), events)


def one_line(error: BaseException) -> str:
    """What went wrong, as one line: the first error under Hydra's words around it.

    This project's errors name the value and the way out themselves, so their causes stay in the log.
    """
    while _is_wrapping(error) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}" if _is_unexpected(error) else text


def _is_wrapping(error: BaseException) -> bool:
    return type(error).__module__.startswith("hydra.")


def _is_unexpected(error: BaseException) -> bool:
    """An error of Python itself or of a library: its type says more than its text."""
    root = type(error).__module__.partition(".")[0]
    return root not in ("dahl", "energy", "schedulers", "experiments") and type(error) is not ValueError


if __name__ == "__main__":
    sys.exit(main())
