"""A Paje trace, which ViTE opens: states of workers, dependencies as links, watts as variables.

The format: "Paje trace file format", paje.sourceforge.net/download/publication/lang-paje.pdf.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.records import write_whole
from experiments.tracing.content import Content, changes, colours

_FIELDS = {
    "PajeDefineContainerType": ("Alias string", "Type string", "Name string"),
    "PajeDefineStateType": ("Alias string", "Type string", "Name string"),
    "PajeDefineVariableType": ("Alias string", "Type string", "Name string", "Color color"),
    "PajeDefineEventType": ("Alias string", "Type string", "Name string", "Color color"),
    "PajeDefineLinkType": (
        "Alias string",
        "Type string",
        "StartContainerType string",
        "EndContainerType string",
        "Name string",
    ),
    "PajeDefineEntityValue": ("Alias string", "Type string", "Name string", "Color color"),
    "PajeCreateContainer": ("Time date", "Alias string", "Type string", "Container string", "Name string"),
    "PajeDestroyContainer": ("Time date", "Type string", "Name string"),
    "PajeSetState": ("Time date", "Type string", "Container string", "Value string"),
    "PajeSetVariable": ("Time date", "Type string", "Container string", "Value double"),
    "PajeNewEvent": ("Time date", "Type string", "Container string", "Value string"),
    "PajeStartLink": (
        "Time date",
        "Type string",
        "Container string",
        "StartContainer string",
        "Value string",
        "Key string",
    ),
    "PajeEndLink": (
        "Time date",
        "Type string",
        "Container string",
        "EndContainer string",
        "Value string",
        "Key string",
    ),
}
"""Each event with its fields in order."""

_NUMBERS = {name: number for number, name in enumerate(_FIELDS)}
Timed = tuple[float, int, str]
"""When, what comes first at the same time, and the line."""


def write(content: Content, path: Path) -> None:
    """Write the trace whole, in the order of time."""
    events = sorted([*_states(content), *_links(content), *_power(content)], key=lambda event: event[:2])
    end_s = max([0.0, *(event[0] for event in events)])
    lines = [*_header(), *_types(content), *_containers(content)]
    lines += [event[2] for event in events]
    lines += [
        _line("PajeDestroyContainer", _time(end_s), "W", f"w{worker}")
        for worker in range(len(content.workers))
    ]
    lines.append(_line("PajeDestroyContainer", _time(end_s), "R", "run"))
    write_whole(path, ("\n".join(lines) + "\n").encode())


def _header() -> Iterator[str]:
    for name, fields in _FIELDS.items():
        yield f"%EventDef {name} {_NUMBERS[name]}"
        yield from (f"% {field}" for field in fields)
        yield "%EndEventDef"


def _line(name: str, *values: str) -> str:
    assert len(values) == len(_FIELDS[name])
    return " ".join([str(_NUMBERS[name]), *values])


def _time(seconds: float) -> str:
    return f"{seconds:.9f}"


def _text(text: str) -> str:
    return '"' + text.replace('"', "'") + '"'


def _rgb(tone: str) -> str:
    parts = [int(tone[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return '"' + " ".join(f"{part:.3f}" for part in parts) + '"'


def _types(content: Content) -> Iterator[str]:
    yield _line("PajeDefineContainerType", "R", "0", '"run"')
    yield _line("PajeDefineContainerType", "W", "R", '"worker"')
    yield _line("PajeDefineStateType", "S", "W", '"task"')
    yield _line("PajeDefineLinkType", "D", "R", "W", "W", '"dependency"')
    yield _line("PajeDefineEventType", "G", "R", '"watts are not known"', '"0.6 0.6 0.6"')
    for number, channel in enumerate(content.watts):
        name = _text(f"{channel} (W, {content.quality})")
        yield _line("PajeDefineVariableType", f"V{number}", "R", name, '"0.0 0.0 0.0"')
    yield _line("PajeDefineEntityValue", "idle", "S", '"idle"', '"0.93 0.93 0.93"')
    for name, tone in colours(content).items():
        yield _line("PajeDefineEntityValue", _alias(name), "S", _text(name), _rgb(tone))


def _alias(codelet: str) -> str:
    return _text(f"codelet {codelet}")


def _containers(content: Content) -> Iterator[str]:
    yield _line("PajeCreateContainer", _time(0), "run", "R", "0", _text(content.name))
    for worker, name in enumerate(content.workers):
        yield _line("PajeCreateContainer", _time(0), f"w{worker}", "W", "run", _text(name))
        yield _line("PajeSetState", _time(0), "S", f"w{worker}", "idle")


def _states(content: Content) -> Iterator[Timed]:
    """The tasks of a worker one after the other; a clock that rounds may let them touch, not overlap."""
    ended_s = np.zeros(len(content.workers))
    for row in content.tasks.to_dict("records"):
        worker, codelet = row["worker"], _alias(row["codelet"])
        start_s = max(float(row["start_s"]), ended_s[worker])
        end_s = max(float(row["end_s"]), start_s)
        ended_s[worker] = end_s
        yield start_s, 0, _line("PajeSetState", _time(start_s), "S", f"w{worker}", codelet)
        yield end_s, 0, _line("PajeSetState", _time(end_s), "S", f"w{worker}", "idle")


def _links(content: Content) -> Iterator[Timed]:
    worker = content.tasks["worker"].to_numpy()
    start_s, end_s = content.tasks["start_s"].to_numpy(), content.tasks["end_s"].to_numpy()
    for number, (earlier, later) in enumerate(content.pairs):
        from_s = float(end_s[earlier])
        to_s = max(float(start_s[later]), from_s)
        own = ('"waits for"', str(number))
        yield from_s, 1, _line("PajeStartLink", _time(from_s), "D", "run", f"w{worker[earlier]}", *own)
        yield to_s, 2, _line("PajeEndLink", _time(to_s), "D", "run", f"w{worker[later]}", *own)


def _power(content: Content) -> Iterator[Timed]:
    for number, (channel, steps) in enumerate(content.watts.items()):
        for at_s, watts in changes(steps):
            at_s = max(0.0, at_s)
            if watts is None:
                yield at_s, 0, _line("PajeNewEvent", _time(at_s), "G", "run", _text(channel))
            else:
                yield at_s, 0, _line("PajeSetVariable", _time(at_s), f"V{number}", "run", f"{watts:.6f}")
