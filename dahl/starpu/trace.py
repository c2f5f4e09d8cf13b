"""The record that is kept of each task."""

from __future__ import annotations

import numpy as np

TRACE = np.dtype(
    [
        ("task", np.int64),
        ("tag", np.int64),
        ("footprint", np.int64),
        ("codelet", np.int32),
        ("worker", np.int32),
        ("submit_s", np.float64),
        ("ready_s", np.float64),
        ("start_s", np.float64),
        ("end_s", np.float64),
        ("predicted_s", np.float64),
        ("predicted_j", np.float64),
    ],
    align=True,
)
"""``dahl_trace_record`` of csrc/dahl.h: seconds on StarPU's clock, joules net of idle."""
