"""Import of a recording of Alumet: MB/s and peak memory, beside reading its bytes and beside other readers.

Each case runs in a process of its own over a file that was just written, so it comes from memory, not disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.memory import memory_mib
from energy.alumet import import_recording

GIGABYTES = 0.2
TICKS_PER_S = 100
MEMORY_MIB = 300
"""The target: at most this much memory, and at least so many MB/s."""
MB_PER_S = 100

_HEADER = (
    "metric;timestamp;value;resource_kind;resource_id;consumer_kind;consumer_id;domain;__late_attributes\n"
)
_START = datetime(2026, 1, 1, tzinfo=UTC)
_CHUNK = 1 << 20


def _joules_rows() -> list[str]:
    """A tick's rows of joules and watts, with the time left open: two sockets, one GPU."""
    rows = []
    for socket in range(2):
        rows += [
            f"rapl_consumed_energy_J;@;1.52154541015625;cpu_package;{socket};local_machine;;package;",
            f"rapl_consumed_energy_J;@;1.20361328125;cpu_package;{socket};local_machine;;pp0;",
            f"rapl_consumed_energy_J;@;0.2000732421875;dram;{socket};local_machine;;dram;",
        ]
    rows += [
        "rapl_consumed_energy_J;@;3.0430908203125;local_machine;;local_machine;;package_total;",
        "rapl_consumed_energy_J;@;0.400146484375;local_machine;;local_machine;;dram_total;",
        "nvml_energy_consumption_mJ;@;2500;gpu;00000000:C6:00.0;local_machine;;;",
        "nvml_instant_power_mW;@;250000;gpu;00000000:C6:00.0;local_machine;;;",
    ]
    return rows


TICK_J = 2 * (1.52154541015625 + 0.2000732421875) + 2.5


def _other_rows() -> list[str]:
    return [
        f"kernel_cpu_time_ms;@;{7 + core};cpu_core;{core};local_machine;;;cpu_state=user"
        for core in range(30)
    ]


def generate(path: Path, size: int, rows: list[str]) -> tuple[int, float]:
    """Write a recording of about `size` bytes; returns its rows and its joules."""
    tick = "".join(f"{row}\n" for row in rows)
    ticks = max(1, size // len(tick.replace("@", "2026-01-01T00:00:00.000000000Z")))
    with path.open("w") as file:
        file.write(_HEADER)
        for number in range(ticks):
            at = _START + timedelta(seconds=number / TICKS_PER_S)
            file.write(tick.replace("@", f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond * 1000:09d}Z"))
    return ticks * len(rows), ticks * TICK_J


def _read_bytes(path: Path) -> int:
    """Count lines, as `wc -l` does: nothing can be faster."""
    with path.open("rb", buffering=0) as file:
        return sum(block.count(b"\n") for block in _blocks(file)) - 1


def _blocks(file: Any) -> Iterator[bytes]:
    while block := file.read(_CHUNK):
        yield block


def _read_arrow(path: Path) -> int:
    """Arrow's reader alone: all fields as text, nothing done with them."""
    import pyarrow as pa
    from pyarrow import csv

    texts = dict.fromkeys(_HEADER.strip().split(";"), pa.string())
    reader = csv.open_csv(
        str(path),
        read_options=csv.ReadOptions(block_size=_CHUNK, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=";"),
        convert_options=csv.ConvertOptions(column_types=texts),
    )
    return sum(batch.num_rows for batch in reader)


def _read_pandas(path: Path) -> int:
    """`pandas.read_csv` in chunks, which keeps its memory small."""
    import pandas as pd

    return sum(len(chunk) for chunk in pd.read_csv(path, sep=";", chunksize=100_000))


def _import(path: Path) -> int:
    recording = import_recording(path)
    if recording.total_j is None:
        raise RuntimeError(f"rows were lost: {recording.lost}")
    return recording.rows_read


CASES: Mapping[str, Callable[[Path], int]] = {
    "import_recording": _import,
    "lines counted": _read_bytes,
    "pyarrow.csv alone": _read_arrow,
    "pandas.read_csv": _read_pandas,
}


def measure(case: str, path: Path) -> dict[str, float]:
    """Read the file in this process; MB/s, peak MiB, and the rows found."""
    start, start_cpu = time.perf_counter(), time.process_time()
    rows = CASES[case](path)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    megabytes = path.stat().st_size / 1e6
    return {
        "mb_per_s": megabytes / seconds,
        "mb_per_cpu_s": megabytes / cpu_s,
        "peak_mib": memory_mib()[1],
        "rows": float(rows),
    }


def _in_a_process(case: str, path: Path, rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.alumet_import", "--measure", case, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{case} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout)
    if found.pop("rows") != rows:
        raise RuntimeError(f"{case} did not find the file's {rows} rows")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Import of a recording of Alumet: MB/s and peak memory.")
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help=f"of each file ({GIGABYTES:g})")
    parser.add_argument("--folder", type=Path, default=None, help="for the files (default a temporary one)")
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "FILE"), help=argparse.SUPPRESS)
    return parser


def _measure_file(path: Path, size: int, rows: list[str], rounds: int) -> dict[str, Any]:
    count, joules = generate(path, size, rows)
    recording = import_recording(path)
    if recording.total_j is None or abs(recording.total_j - joules) > 1e-9 * joules:
        raise RuntimeError(f"{recording.total_j} J were imported of {joules} J")
    cases = {name: lambda name=name: _in_a_process(name, path, count) for name in CASES}
    figures = measuring.alternate(cases, rounds)
    return {"bytes": path.stat().st_size, "rows": count, "cases": figures}


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    if chosen.measure:
        case, file = chosen.measure
        print(json.dumps(measure(case, Path(file))))
        return 0
    machine = measuring.Machine()
    kinds = {"all metrics": [*_joules_rows(), *_other_rows()], "joules only": _joules_rows()}
    files: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for kind, rows in kinds.items():
            path = Path(folder) / "recording.csv"
            files[kind] = _measure_file(path, int(chosen.gigabytes * 1e9), rows, chosen.rounds)
            path.unlink()
    for kind, file in files.items():
        measuring.show(
            f"{kind}: {file['bytes'] / 1e6:,.0f} MB, {file['rows']:,} rows",
            ["reader", "MB/s", "MB per CPU second", "peak MiB"],
            [
                [name, *(figures[column].text(0) for column in ("mb_per_s", "mb_per_cpu_s", "peak_mib"))]
                for name, figures in file["cases"].items()
            ],
        )
    held = {kind: _holds(file["cases"]["import_recording"]) for kind, file in files.items()}
    verdict = ", ".join(f"{kind} {'holds' if holds else 'MISSED'}" for kind, holds in held.items())
    print(f"at least {MB_PER_S} MB/s in at most {MEMORY_MIB} MiB: {verdict}")
    print(machine.line())
    measuring.record(chosen.json, "alumet_import", machine, files=files, target_holds=held)
    return 0


def _holds(figures: Mapping[str, measuring.Spread]) -> bool:
    return figures["mb_per_s"].median >= MB_PER_S and figures["peak_mib"].highest <= MEMORY_MIB


if __name__ == "__main__":
    sys.exit(main())
