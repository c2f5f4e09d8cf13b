"""One BLAS thread for every test: workers are the parallelism, and the bits depend on it.

The lock of measured runs is this session's own, so that two test sessions on one machine do not refuse each other.
"""

import atexit
import os
import tempfile
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

_LOCK = Path(tempfile.gettempdir()) / f"dahl-measuring-{os.getpid()}.lock"
os.environ["DAHL_LOCK"] = str(_LOCK)
atexit.register(lambda: _LOCK.unlink(missing_ok=True))
