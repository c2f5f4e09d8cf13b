"""Compiling several kernels at once, each in a process of its own: Numba compiles one at a time in a process.

`python -m dahl.starpu.compile_ahead` reads a pickled list of kernels from its standard input and compiles them into the
cache on disk.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence

from dahl.starpu.kernel import Kernel, compile_kernel, is_on_disk


def compile_ahead(kernels: Sequence[Kernel]) -> None:
    """Compile what the cache on disk lacks of some kernels, those that take longest first, on all cores; then return.

    What fails is left to `compile_kernel`, which tells why.
    """
    missing = [kernel for kernel in dict.fromkeys(kernels) if not is_on_disk(kernel)]
    cores = len(os.sched_getaffinity(0))
    if len(missing) < 2 or cores < 2:
        return
    running: list[subprocess.Popen[bytes]] = []
    # The first core has the first kernel to itself: it takes longer than the others together.
    others = min(cores - 1, len(missing) - 1)
    for share in (missing[:1], *(missing[1 + number :: others] for number in range(others))):
        process = subprocess.Popen(
            [sys.executable, "-m", "dahl.starpu.compile_ahead"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(share))
        process.stdin.close()
        running.append(process)
    for process in running:
        process.wait()


def main() -> None:
    """Compile what standard input names."""
    for kernel in pickle.load(sys.stdin.buffer):  # from the process that started this one
        with contextlib.suppress(Exception):  # the one that runs it meets the same error, and tells
            compile_kernel(kernel)


if __name__ == "__main__":
    main()
