"""Small files in the formats that Alumet's agent writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

T0_S = 1_760_000_000  # 2025-10-09T08:53:20Z


@dataclass(frozen=True)
class Style:
    """How a version and its options write the same rows."""

    delimiter: str = ";"
    domain: str = "late"
    """Where RAPL's domain stands: `late`, `column`, or `shifted` (0.9.1, behind another attribute's column)."""
    late_separator: str = ","
    units: bool = True
    first_row_of_zero: bool = False
    quoted: bool = False


LATEST = Style()
STYLES = {
    "0.9.0, late": Style(late_separator=", ", first_row_of_zero=True),
    "0.9.1, another attribute first": Style(domain="shifted", late_separator=", ", first_row_of_zero=True),
    "0.9.2, late": Style(),
    "0.9.5, own column": Style(domain="column"),
    "comma": Style(delimiter=",", domain="column"),
    "comma, late, quoted": Style(delimiter=",", quoted=True),
    "no units": Style(units=False),
    "tabs": Style(delimiter="\t", domain="column", units=False),
}

Row = tuple[str, str, str, str, str, str]
"""Metric, unit, time, value, resource (`kind id`) and domain."""


def time_text(t_ns: int, digits: int = 9) -> str:
    """RFC 3339 in UTC, with so many digits of a second; 0 for none."""
    from datetime import UTC, datetime

    whole, rest = divmod(t_ns, 10**9)
    fraction = f"{rest:09d}"[:digits]
    second = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{second}.{fraction}Z" if digits else f"{second}Z"


def rapl(t_ns: int, joules: float | str, resource: str, domain: str, digits: int = 9) -> Row:
    return ("rapl_consumed_energy", "J", time_text(t_ns, digits), str(joules), resource, domain)


def gpu(t_ns: int, millijoules: float | str, bus_id: str = "00000000:C6:00.0") -> Row:
    return ("nvml_energy_consumption", "mJ", time_text(t_ns), str(millijoules), f"gpu {bus_id}", "")


def gpu_power(t_ns: int, milliwatts: int, bus_id: str = "00000000:C6:00.0") -> Row:
    return ("nvml_instant_power", "mW", time_text(t_ns), str(milliwatts), f"gpu {bus_id}", "")


def other(t_ns: int, metric: str = "kernel_cpu_time", unit: str = "ms") -> Row:
    return (metric, unit, time_text(t_ns), "20", "cpu_core 3", "")


def header(style: Style = LATEST) -> str:
    own = {"late": [], "column": ["domain"], "shifted": ["cpu_state", "domain"]}[style.domain]
    names = ["metric", "timestamp", "value", "resource_kind", "resource_id", "consumer_kind", "consumer_id"]
    return style.delimiter.join([*names, *own, "__late_attributes"])


def line(row: Row, style: Style = LATEST) -> str:
    metric, unit, time, value, resource, domain = row
    kind, _, number = resource.partition(" ")
    late = ""
    own: list[str] = []
    if style.domain == "late" and domain:
        late = f"domain={domain}"
    elif style.domain == "late" and metric == "kernel_cpu_time":
        late = f"cpu_state=idle{style.late_separator}name=a"
    elif style.domain == "column":
        own = [domain]
    elif style.domain == "shifted":
        # Such an agent writes a row's values one after the other, and fills up with empty fields.
        own = [domain or ("idle" if metric == "kernel_cpu_time" else ""), ""]
    name = f"{metric}_{unit}" if style.units else metric
    fields = [name, time, value, kind, number, "local_machine", "", *own, late]
    if style.quoted or style.delimiter in late:
        fields = [f'"{field}"' for field in fields]
    return style.delimiter.join(fields)


def text(rows: list[Row], style: Style = LATEST) -> str:
    return "".join(f"{entry}\n" for entry in (header(style), *(line(row, style) for row in rows)))


def write(path: Path, rows: list[Row], style: Style = LATEST) -> Path:
    path.write_text(text(rows, style))
    return path


def two_sockets(ticks: int = 5, style: Style = LATEST, period_ns: int = 10**9) -> list[Row]:
    """Two packages, their dram, cores, psys, a GPU, the agent's own sums, and other metrics between them.

    Of each tick from the second on: packages 30 and 32.5 J, dram 4 and 4.25 J, GPU 99.5 J; 170.25 J together.
    """
    rows: list[Row] = []
    for tick in range(ticks):
        t_ns = T0_S * 10**9 + tick * period_ns + 57_894_882
        if tick == 0 and not style.first_row_of_zero:
            continue
        on = float(tick > 0)
        digits = tick % 10 if period_ns == 10**9 else 9
        rows += [
            other(t_ns),
            rapl(t_ns, 4 * on, "dram 0", "dram", digits),
            rapl(t_ns, 4.25 * on, "dram 1", "dram", digits),
            rapl(t_ns, 30 * on, "cpu_package 0", "package", digits),
            rapl(t_ns, 25 * on, "cpu_package 0", "pp0", digits),
            rapl(t_ns, 1 * on, "cpu_package 0", "pp1", digits),
            rapl(t_ns, 32.5 * on, "cpu_package 1", "package", digits),
            rapl(t_ns, 90 * on, "local_machine ", "platform", digits),
            rapl(t_ns, 0, "local_machine ", "platform", digits),
            rapl(t_ns, 62.5 * on, "local_machine ", "package_total", digits),
            rapl(t_ns, 8.25 * on, "local_machine ", "dram_total", digits),
            rapl(t_ns, 90 * on, "local_machine ", "platform_total", digits),
            gpu_power(t_ns, 99_000),
        ]
        if tick > 0:
            rows.append(gpu(t_ns, 99_500))
    return rows


TICK_J = 30 + 32.5 + 4 + 4.25 + 99.5
