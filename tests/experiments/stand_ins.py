"""Trials that go wrong in one way each: `stand_ins.py WAY RUN_DIR --events FD --parent PID`."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

from experiments.events import EventWriter
from experiments.lifeline import die_with_parent

ROW = {
    "epoch": 1,
    "images": 600,
    "seconds": 2.0,
    "loss": 0.5,
    "accuracy": 0.75,
    "gross_j": 30.0,
    "net_j": 10.0,
    "bound_j": None,
    "quality": "estimated",
    "resolvable": True,
}


def main() -> None:
    way, run_dir, _, fd, _, parent = sys.argv[1:]
    die_with_parent(int(parent))
    events = EventWriter(int(fd))
    Path(run_dir, "pid").write_text(str(os.getpid()))
    events.emit(
        "started", simulated=False, workers=2, starpu="1.4", energy="assumed watts", images_per_epoch=600
    )
    print("a line on stdout")
    print("a line on stderr", file=sys.stderr)
    WAYS[way](events, Path(run_dir))


def finish(events: EventWriter, run_dir: Path) -> None:
    events.emit("epoch_start", epoch=1)
    events.batch(epoch=1, images=300, seconds=1.0, loss=0.9, watts=None)
    events.emit("epoch_end", **ROW)
    events.emit("finished", weights_sha256="ab" * 32, simulated=False)


def segfault(events: EventWriter, run_dir: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def segfault_at_the_end(events: EventWriter, run_dir: Path) -> None:
    finish(events, run_dir)
    os.kill(os.getpid(), signal.SIGSEGV)


def abort(events: EventWriter, run_dir: Path) -> None:
    os.abort()


def exit_3(events: EventWriter, run_dir: Path) -> None:
    os._exit(3)


def leave_without_a_word(events: EventWriter, run_dir: Path) -> None:
    os._exit(0)


def fail(events: EventWriter, run_dir: Path) -> None:
    events.emit("failed", kind="DatasetError", message="train-images.gz: ends after 12 bytes")
    sys.exit(1)


def kill_itself(events: EventWriter, run_dir: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_rubbish(events: EventWriter, run_dir: Path) -> None:
    os.write(int(sys.argv[4]), b'not json\n{"event": "epoch_end"')
    os._exit(3)


def by_seed(events: EventWriter, run_dir: Path) -> None:
    """Seed 1 segfaults, 2 fails, 3 is killed; others go on while the file `hold` is in the parent's folder."""
    seed = int(re.findall(r"^seed: (\d+)", (run_dir / "config.yaml").read_text(), re.MULTILINE)[0])
    {1: segfault, 2: fail, 3: kill_itself}.get(seed, finish_unless_held)(events, run_dir)


def finish_unless_held(events: EventWriter, run_dir: Path) -> None:
    if Path("hold").exists():
        write_tables(events, run_dir)
    finish(events, run_dir)


def finish_slowly(events: EventWriter, run_dir: Path) -> None:
    """Notes when it ran, so that a test can tell who ran beside whom."""
    begin_s = time.monotonic()
    time.sleep(0.5)
    Path(run_dir, "ran").write_text(f"{begin_s} {time.monotonic()}")
    finish(events, run_dir)


def hang(events: EventWriter, run_dir: Path) -> None:
    Path(run_dir, "hanging").touch()
    time.sleep(60)


def stop_politely(events: EventWriter, run_dir: Path) -> None:
    try:
        hang(events, run_dir)
    except KeyboardInterrupt:
        Path(run_dir, "polite").touch()
        sys.exit(130)


def ignore_sigint(events: EventWriter, run_dir: Path) -> None:
    signal.signal(signal.SIGINT, lambda *_: Path(run_dir, "sigint").write_text("once"))
    while True:
        hang(events, run_dir)


def ignore_everything(events: EventWriter, run_dir: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignore_sigint(events, run_dir)


def leave_a_child(events: EventWriter, run_dir: Path) -> None:
    """The child keeps the pipe of the events open, and lives on."""
    if os.fork() == 0:
        Path(run_dir, "grandchild").write_text(str(os.getpid()))
        time.sleep(60)
    while not Path(run_dir, "grandchild").exists() or not Path(run_dir, "grandchild").read_text():
        time.sleep(0.01)
    finish(events, run_dir)


def flood(events: EventWriter, run_dir: Path) -> None:
    for _ in range(5000):
        events.emit("notice", message="x" * 100)
    finish(events, run_dir)


def write_tables(events: EventWriter, run_dir: Path) -> None:
    import pyarrow as pa

    from experiments.tables import TableStream

    stream = TableStream(run_dir, "tasks", pa.schema([("task", pa.int64()), ("codelet", pa.string())]))
    for batch in range(1_000_000):
        stream.append({"task": list(range(100 * batch, 100 * batch + 100)), "codelet": ["conv2d"] * 100})
        if batch == 0:
            Path(run_dir, "hanging").touch()


WAYS = {
    way.__name__: way
    for way in (
        finish,
        segfault,
        segfault_at_the_end,
        abort,
        exit_3,
        leave_without_a_word,
        fail,
        kill_itself,
        by_seed,
        finish_slowly,
        write_rubbish,
        hang,
        stop_politely,
        ignore_sigint,
        ignore_everything,
        leave_a_child,
        flood,
        write_tables,
    )
}

if __name__ == "__main__":
    main()
