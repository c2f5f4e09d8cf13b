"""`python -m experiments.layout RUN_DIR`: an epoch's tasks on a simulated node, written down without running any.

`experiments.pareto` asks for them before its first trial, to tell a deadline or a cap that no schedule keeps.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import records
from experiments.bounds import EpochWork, describe_graphs, epoch_work, read_work, write_graph
from experiments.events import EventWriter
from experiments.run import trial_environment
from experiments.supervisor import log_tail, supervise

COMMAND = (sys.executable, "-m", "experiments.layout")


class LayoutError(ValueError):
    """The tasks of an epoch could not be laid out; the message is the child's own."""


def lay_out_epoch(config: Mapping[str, Any]) -> EpochWork:
    """The work of one epoch of a trial's configuration, from a process of its own. Raises LayoutError.

    SystemExit (128 + signal) where it was stopped.
    """
    eager = {"_target_": "schedulers.StarPUScheduler", "name": "eager"}
    with tempfile.TemporaryDirectory(prefix="layout-") as name:
        folder = Path(name)
        records.write_config(folder, {**config, "scheduler": eager})
        outcome = supervise(
            (*COMMAND, str(folder)), folder, lambda event: None, environment=trial_environment(folder)
        )
        if outcome.stopped_by is not None:
            raise SystemExit(128 + outcome.stopped_by)
        if outcome.status != "finished":
            tail = "" if outcome.explained else "; ".join(log_tail(folder)[-1:])
            raise LayoutError(" ".join(filter(None, [str(outcome.error), tail])))
        return read_work(folder)


def _run(run_dir: Path, events: EventWriter) -> dict[str, Any]:
    from dahl import starpu
    from experiments.training import lay_out, make_context
    from experiments.workload import load_workload

    workload = load_workload(records.read_config(run_dir), events)

    def inside(runtime: starpu.Runtime) -> dict[str, Any]:
        context = make_context(runtime, workload)
        graphs = lay_out(context, workload).epoch_graphs
        work = epoch_work(
            context,
            graphs,
            workload.power_model(runtime.workers),
            workload.link_joule_per_byte(runtime.workers),
        )
        write_graph(run_dir, work, describe_graphs(context, graphs))
        return {"tasks": sum(len(graph) * times for graph, times in graphs)}

    result: dict[str, Any] = workload.runtime(run_dir).run(inside)
    return result


def main() -> int:
    """Lay out as asked."""
    from experiments.trial import report

    return report("python -m experiments.layout", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
