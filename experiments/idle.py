"""The idle baseline of a sweep: measured by its first trial, read by the others, and checked at the end of each."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from energy import EnergySession, IdleBaseline
from experiments import records
from experiments.engine import Engine
from experiments.events import EventWriter


def take_baseline(
    session: EnergySession,
    runtime: Engine,
    config: Mapping[str, Any],
    events: EventWriter,
) -> IdleBaseline | None:
    """Let the session take off what the machine draws while nothing runs; None without counters or where not asked for.

    The first trial of a sweep measures it, with the workers awake and paused; the others read it from the sweep's
    folder. A trial by itself measures its own.
    """
    seconds = config["energy"]["idle_baseline_s"]
    if not session.channels or not seconds > 0:
        return None
    path = _shared_path(session, runtime, config)
    baseline = _read(path)
    if baseline is None:
        baseline = _measure(session, runtime, seconds, events)
        if path is not None and baseline.paused.keys() == session.channels.keys():
            path.parent.mkdir(parents=True, exist_ok=True)
            records.write_json(path, baseline.to_json())
    else:
        events.emit("calibrating", message="idle baseline: that of this sweep's first trial")
    session.idle_w = baseline.watts
    return baseline


def check_drift(
    session: EnergySession, runtime: Engine, baseline: IdleBaseline, events: EventWriter
) -> dict[str, Any]:
    """Measure the paused machine once more; returns each channel's watts before and after, and whether they differ."""
    events.emit("calibrating", message=f"idle baseline: checking it for {baseline.seconds:g} s")
    runtime.pause()
    try:
        after = session.measure_idle(baseline.seconds)
    finally:
        runtime.resume()
    drift = baseline.drift(after)
    for channel, found in drift.items():
        if found.drifted:
            events.emit(
                "notice",
                message=f"{channel} idles at {found.after_w:.2f} W, at {found.before_w:.2f} W before: joules net of "
                "idle are in doubt",
            )
    return {
        channel: {
            "before_w": found.before_w,
            "after_w": found.after_w,
            "tolerance_w": found.tolerance_w,
            "drifted": found.drifted,
        }
        for channel, found in drift.items()
    }


def _measure(session: EnergySession, runtime: Engine, seconds: float, events: EventWriter) -> IdleBaseline:
    events.emit("calibrating", message=f"idle baseline: reading the counters for {2 * seconds:g} s")
    t_unix_s = time.time()
    awake = session.measure_idle(seconds)
    runtime.pause()
    try:
        paused = session.measure_idle(seconds)
    finally:
        runtime.resume()
    return IdleBaseline(float(seconds), t_unix_s, awake, paused)


def _shared_path(session: EnergySession, runtime: Engine, config: Mapping[str, Any]) -> Path | None:
    """Where the trials of a sweep that read the same counters on the same machine find it."""
    if not config.get("sweep"):
        return None
    facts = [
        platform.node(),
        sorted(session.channels),
        len(runtime.workers),
        config["energy"]["idle_baseline_s"],
    ]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return Path(config["sweep"]) / f"idle-{digest}.json"


def _read(path: Path | None) -> IdleBaseline | None:
    if path is None or not path.exists():
        return None
    return IdleBaseline.from_json(records.read_json(path))
