"""`trial_on_tree.py TREE RUN_DIR ...`: a trial whose RAPL counters are those of a folder laid out like powercap."""

from __future__ import annotations

import sys
from pathlib import Path

from energy import RaplSource, Selection
from experiments import trial, workload


def main() -> int:
    tree, *arguments = sys.argv[1:]
    workload.select_sources = lambda *_, **__: Selection((RaplSource(Path(tree)),), ())
    return trial.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
