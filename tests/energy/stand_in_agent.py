"""Stands in for Alumet's agent: takes its arguments and writes its CSV, field by field, while it runs.

Its first argument is how it misbehaves: `steady`, `dies`, `mute`, `refuses`, `stubborn`, `falls silent`.
"""

import argparse
import signal
import sys
import time
from datetime import UTC, datetime

PACKAGE_W, DRAM_W, GPU_W = 100.0, 10.0, 250.0
HEADER = "metric;timestamp;value;resource_kind;resource_id;consumer_kind;consumer_id;__late_attributes"


def main() -> None:
    behaviour = sys.argv.pop(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--plugins", required=True)
    parser.add_argument("--output-file", required=True)
    parser.add_argument("--config-override", action="append")
    parser.add_argument("command", choices=["run"])
    asked = parser.parse_args()
    plugins = asked.plugins.split(",")
    assert plugins.pop() == "csv"
    options = dict(override.split("=") for override in asked.config_override)
    polls = {options[f"plugins.{plugin}.poll_interval"].strip("'") for plugin in plugins}
    assert {options[f"plugins.{plugin}.flush_interval"].strip("'") for plugin in plugins}
    (poll,) = polls
    assert poll.endswith("us")
    print("\x1b[32m[INFO]\x1b[0m Starting Alumet agent", file=sys.stderr, flush=True)
    if behaviour == "refuses":
        print("Error: no RAPL here, try to adjust file permissions\n", file=sys.stderr, flush=True)
        sys.exit(1)
    if behaviour == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    with open(asked.output_file, "wb", buffering=0) as file:
        measure(file, behaviour, plugins, float(poll[:-2]) * 1e-6)


def measure(file, behaviour: str, plugins: list[str], poll_s: float) -> None:
    if behaviour != "mute":
        file.write(f"{HEADER}\n".encode())
    last_ns, ticks = time.time_ns(), 0
    while True:
        time.sleep(poll_s)
        now_ns = time.time_ns()
        if behaviour != "mute" and not (behaviour == "falls silent" and ticks > 20):
            tick(file, plugins, now_ns, (now_ns - last_ns) * 1e-9)
        last_ns, ticks = now_ns, ticks + 1
        if behaviour == "dies" and ticks > 20:
            print("thread 'main' panicked: out of luck", file=sys.stderr, flush=True)
            sys.exit(101)


def tick(file, plugins: list[str], now_ns: int, elapsed_s: float) -> None:
    second, nanoseconds = divmod(now_ns, 10**9)
    at = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}".rstrip("0") + "Z"
    rows = []
    if "rapl" in plugins:
        rows += [
            ("rapl_consumed_energy_J", PACKAGE_W * elapsed_s, "cpu_package;0", "domain=package"),
            ("rapl_consumed_energy_J", DRAM_W * elapsed_s, "dram;0", "domain=dram"),
            ("rapl_consumed_energy_J", PACKAGE_W * elapsed_s, "local_machine;", "domain=package_total"),
        ]
    if "nvml" in plugins:
        rows.append(("nvml_energy_consumption_mJ", round(GPU_W * elapsed_s * 1e3), "gpu;0:C6", ""))
    for metric, value, resource, domain in rows:
        for part in (metric, ";", at, ";", f"{value}", ";", resource, ";local_machine;", ";", domain, "\n"):
            file.write(part.encode())


main()
