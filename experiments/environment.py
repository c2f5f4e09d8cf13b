"""What a run ran on: commit, versions, machine. Read in milliseconds, without loading what it names."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

LIBRARIES = (
    "numpy",
    "numba",
    "llvmlite",
    "cffi",
    "hydra-core",
    "pyarrow",
    "pandas",
    "pillow",
    "rich",
    "nvidia-ml-py",
    "torch",
)


def collect(checkout: Path) -> dict[str, Any]:
    """The first part of `environment.json`; the trial adds `starpu`, `kernels`, `energy`. None: cannot be read."""
    return {
        **commit(checkout),
        "python": platform.python_version(),
        "libraries": versions(),
        "cpu": cpu_model(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": memory_mib(),
        "governor": governor(),
        "kernel": platform.release(),
        "gpus": nvidia_gpus(),
        "nvidia_driver": nvidia_driver(),
        "command": sys.argv,
    }


def commit(checkout: Path) -> dict[str, Any]:
    """The checkout's commit, and whether files differ from it or are new; None outside a git checkout."""
    head = _git(checkout, "rev-parse", "HEAD")
    status = _git(checkout, "status", "--porcelain")
    return {"commit": head, "dirty": None if status is None else status != ""}


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str | None]:
    """Installed versions of the libraries that a result can depend on; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def kernels_of_this_processor() -> dict[str, Any]:
    """What compiled kernels and BLAS make of this processor: on another one their bits may differ. Loads both."""

    import llvmlite.binding as llvm
    import threadpoolctl

    features = hashlib.sha256(llvm.get_host_cpu_features().flatten().encode()).hexdigest()[:12]
    blas = {
        f"{one['internal_api']} {one['version']} {one.get('architecture', '')}".strip()
        for one in threadpoolctl.threadpool_info()
        if one["user_api"] == "blas"
    }
    return {"llvm_cpu": llvm.get_host_cpu_name(), "llvm_features": features, "blas": ", ".join(sorted(blas))}


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """The CPU's name as the kernel reports it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read(cpuinfo) or "", re.MULTILINE)
    return found.group(1).strip() if found else platform.machine() or None


def memory_mib(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Installed memory in MiB."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", _read(meminfo) or "", re.MULTILINE)
    return int(found.group(1)) // 1024 if found else None


def governor(cpu: Path = Path("/sys/devices/system/cpu")) -> str | None:
    """The frequency governor, or all where cores differ; None where there is none (virtual machines)."""
    texts = [_read(path) for path in cpu.glob("cpu[0-9]*/cpufreq/scaling_governor")]
    return ", ".join(sorted({text.strip() for text in texts if text})) or None


def nvidia_driver(version: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of the loaded NVIDIA kernel driver."""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)\s", _read(version) or "")
    return found.group(1) if found else None


def nvidia_gpus(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """The names of the GPUs that the NVIDIA driver has found."""
    texts = [_read(path) or "" for path in sorted(folder.glob("*/information"))]
    names = [re.search(r"^Model:\s*(.+)$", text, re.MULTILINE) for text in texts]
    return [name.group(1).strip() if name else "unknown" for name in names]


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
