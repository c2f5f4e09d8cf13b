"""One BLAS thread for every test: workers are the parallelism, and the bits depend on it."""

import os

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
