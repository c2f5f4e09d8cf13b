"""`python -m experiments.trace RUN`: a run's tasks, dependencies and watts for viewers of traces, its graph too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.runs import Run, RunsError
from experiments.tracing import dot, paje, perfetto
from experiments.tracing.content import content_of
from experiments.tracing.order import read_parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 2 where the run has no such trace."""
    parser = argparse.ArgumentParser(prog="python -m experiments.trace", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--perfetto", type=Path, metavar="OUT", help="Chrome's JSON, for ui.perfetto.dev")
    parser.add_argument("--paje", type=Path, metavar="OUT", help="a Paje trace, for ViTE")
    parser.add_argument("--dot", type=Path, metavar="OUT", help="the graphs of an epoch, for Graphviz")
    parser.add_argument(
        "--without-dependencies", action="store_true", help="leave out which task waited for which"
    )
    asked = parser.parse_args(arguments)
    if not (asked.perfetto or asked.paje or asked.dot):
        parser.error("say what to write: --perfetto OUT, --paje OUT, --dot OUT")
    try:
        for path in _write(asked):
            print(path)
    except (RunsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _write(asked: argparse.Namespace) -> list[Path]:
    run = Run.load(asked.run)
    if asked.perfetto or asked.paje:
        content = content_of(run, with_order=not asked.without_dependencies)
        if asked.perfetto:
            perfetto.write(content, asked.perfetto)
        if asked.paje:
            paje.write(content, asked.paje)
    if asked.dot:
        dot.write(run.name, read_parts(run), asked.dot)
    return [path for path in (asked.perfetto, asked.paje, asked.dot) if path]


if __name__ == "__main__":
    sys.exit(main())
