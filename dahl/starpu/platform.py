"""Hypothetical machines for the simgrid variant: the files that StarPU reads to simulate one.

StarPU takes the machine's name from ``STARPU_HOSTNAME`` and reads ``bus/NAME.platform.v4.xml``, ``bus/NAME.bandwidth``
and ``bus/NAME.latency`` in ``STARPU_PERF_MODEL_DIR`` (src/core/perfmodel/perfmodel_bus.c, src/core/simgrid.c).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import final
from xml.sax.saxutils import quoteattr

MAX_NODES = 32
"""Memory nodes in StarPU's bus files; one is the host's."""


@final
@dataclass(frozen=True, kw_only=True)
class Link:
    """A connection between the host's memory and a GPU's: bytes per second and seconds, the same both ways."""

    bandwidth_bytes_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        if not self.bandwidth_bytes_per_s > 0 or not math.isfinite(self.bandwidth_bytes_per_s):
            raise ValueError(f"bandwidth_bytes_per_s must be above 0, got {self.bandwidth_bytes_per_s}")
        if not self.latency_s >= 0 or not math.isfinite(self.latency_s):
            raise ValueError(f"latency_s must be 0 or more, got {self.latency_s}")


@final
@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One simulated GPU: its worker class, memory in bytes and link to the host."""

    worker_class: str
    memory_bytes: int
    link: Link

    def __post_init__(self) -> None:
        if self.memory_bytes <= 0:
            raise ValueError(f"memory_bytes of {self.worker_class} must be above 0, got {self.memory_bytes}")


@final
@dataclass(frozen=True, kw_only=True)
class Platform:
    """A simulated machine.

    ``cpu_classes`` names the worker class of each CPU core. Each GPU takes the last core that is left to drive it,
    as on a real machine, so ``len(cpu_classes) - len(gpus)`` CPU workers remain. ``peer_link`` is each GPU's way in and
    its way out to the others; None sends their data through the host's memory. Where memory is not ``allocated``,
    StarPU's simulation takes 175 us for each large piece that it asks a GPU for, one after the other for all GPUs.
    """

    name: str
    cpu_classes: tuple[str, ...]
    gpus: tuple[Gpu, ...] = ()
    peer_link: Link | None = None
    allocated: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"a platform's name is letters, digits, - and _, got {self.name!r}")
        if len(self.cpu_classes) < len(self.gpus) or not self.cpu_classes:
            raise ValueError(
                f"platform {self.name} has {len(self.cpu_classes)} CPU cores for {len(self.gpus)} GPUs; "
                "each GPU needs a core to drive it, and a machine without GPUs needs one"
            )
        if len(self.gpus) >= MAX_NODES:
            raise ValueError(
                f"platform {self.name} has {len(self.gpus)} GPUs; StarPU takes at most {MAX_NODES - 1}"
            )

    def write(self, folder: Path) -> None:
        """Write the files that StarPU reads into ``folder/bus``."""
        bus = folder / "bus"
        bus.mkdir(parents=True, exist_ok=True)
        files = {
            "platform.v4.xml": self._xml(),
            "bandwidth": self._matrix("bandwidth"),
            "latency": self._matrix("latency"),
            "config": f"# Current configuration\n{len(self.cpu_classes)} # CPUs\n{len(self.gpus)} # CUDA devices\n",
        }
        for suffix, text in files.items():
            path = bus / f"{self.name}.{suffix}"
            partial = path.with_name(path.name + ".partial")
            partial.write_text(text)
            partial.replace(path)

    def _xml(self) -> str:
        lines = [
            "<?xml version='1.0'?>",
            '<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">',
            '<platform version="4">',
            ' <config id="General">',
            '  <prop id="network/TCP-gamma" value="-1"/>',
            '  <prop id="network/latency-factor" value="1"/>',
            '  <prop id="network/bandwidth-factor" value="1"/>',
            '  <prop id="network/crosstraffic" value="0"/>',
            '  <prop id="network/weight-S" value="0.0"/>',
            " </config>",
            ' <AS id="AS0" routing="Full">',
            '  <host id="MAIN" speed="1f"/>',
        ]
        lines += [f'  <host id="CPU{i}" speed="2000000000f"/>' for i in range(len(self.cpu_classes))]
        for i, gpu in enumerate(self.gpus):
            lines += [
                f'  <host id="CUDA{i}" speed="2000000000f">',
                f'   <prop id="model" value={quoteattr(gpu.worker_class)}/>',
                f'   <prop id="memsize" value="{gpu.memory_bytes}"/>',
                '   <prop id="memcpy_peer" value="1"/>',
                "  </host>",
            ]
        lines.append('  <host id="RAM" speed="1f"/>')
        lines += [*self._links(), " </AS>", "</platform>", ""]
        return "\n".join(lines)

    def _links(self) -> list[str]:
        lines = []
        if self.gpus:
            top = max(gpu.link.bandwidth_bytes_per_s for gpu in self.gpus)
            lines.append(f'  <link id="Host" bandwidth="{2 * len(self.gpus) * top:.0f}Bps" latency="0s"/>')
        for i, gpu in enumerate(self.gpus):
            rate = f'bandwidth="{gpu.link.bandwidth_bytes_per_s:.0f}Bps" latency="{gpu.link.latency_s:.9f}s"'
            lines += [f'  <link id="RAM-CUDA{i}" {rate}/>', f'  <link id="CUDA{i}-RAM" {rate}/>']
            if self.peer_link is not None:
                half = f'latency="{self.peer_link.latency_s / 2:.9f}s"'
                rate = f'bandwidth="{self.peer_link.bandwidth_bytes_per_s:.0f}Bps" {half}'
                lines += [f'  <link id="CUDA{i}-out" {rate}/>', f'  <link id="CUDA{i}-in" {rate}/>']
        for i in range(len(self.gpus)):
            lines += _route("RAM", f"CUDA{i}", f"RAM-CUDA{i}", "Host")
            lines += _route(f"CUDA{i}", "RAM", f"CUDA{i}-RAM", "Host")
            for j in range(len(self.gpus)):
                if i != j and self.peer_link is not None:
                    lines += _route(f"CUDA{i}", f"CUDA{j}", f"CUDA{i}-out", f"CUDA{j}-in")
                elif i != j:
                    lines += _route(f"CUDA{i}", f"CUDA{j}", f"CUDA{i}-RAM", "Host", f"RAM-CUDA{j}")
        return lines

    def _matrix(self, what: str) -> str:
        """Return StarPU's table between memory nodes: MB/s or microseconds; node 0 is the host, 1... the GPUs."""
        nodes = len(self.gpus) + 1
        rows = [f"# {what}"]
        for source in range(MAX_NODES):
            row = []
            for target in range(MAX_NODES):
                ends = [self.gpus[node - 1].link for node in (source, target) if 0 < node < nodes]
                if len(ends) == 2 and self.peer_link is not None:
                    ends = [self.peer_link]
                if source >= nodes or target >= nodes:
                    row.append("nan")
                elif source == target:
                    row.append("0.000000")
                elif what == "bandwidth":
                    row.append(f"{1e-6 / sum(1 / end.bandwidth_bytes_per_s for end in ends):.6f}")
                else:
                    row.append(f"{1e6 * sum(end.latency_s for end in ends):.6f}")
            rows.append("\t".join(row))
        return "\n".join(rows) + "\n"


def _route(source: str, target: str, *links: str) -> list[str]:
    contents = "".join(f'<link_ctn id="{link}"/>' for link in links)
    return [f'  <route src="{source}" dst="{target}" symmetrical="NO">{contents}</route>']
