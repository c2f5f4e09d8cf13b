"""The graphs of an epoch for Graphviz: nodes are tasks, solid edges inside of a submission, dashed to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.records import write_whole
from experiments.reporting.figures.style import COLOURS
from experiments.tracing.order import Part


def write(name: str, parts: Sequence[Part], path: Path) -> None:
    """Write the graphs whole: a cluster for each, with how often an epoch submits it."""
    write_whole(path, ("\n".join(_lines(name, parts)) + "\n").encode())


def _lines(name: str, parts: Sequence[Part]) -> Iterator[str]:
    codelets = sorted({codelet for part in parts for codelet in part.codelets})
    tones = {codelet: COLOURS[place % len(COLOURS)] for place, codelet in enumerate(codelets)}
    yield f"digraph {_text(name)} {{"
    yield '  graph [rankdir=LR, fontname="sans-serif"];'
    yield '  node [shape=box, style=filled, fillcolor=white, penwidth=2, fontname="sans-serif"];'
    for number, part in enumerate(parts):
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_text(f'{len(part.codelets)} tasks, submitted {part.times} times an epoch')};"
        for place, codelet in enumerate(part.codelets):
            label = _text(f"{place} {codelet}")
            yield f"    t{number}_{place} [label={label}, color={_text(tones[codelet])}];"
        order = part.order
        yield from (f"    t{number}_{earlier} -> t{number}_{later};" for earlier, later in order.within)
        if part.times > 1:
            for earlier, later in order.following:
                yield f"    t{number}_{earlier} -> t{number}_{later} [style=dashed, constraint=false, color=gray];"
        yield "  }"
    yield "}"


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
