"""The records that are kept of each task, and of each decision of a policy."""

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

DECISION = np.dtype(
    [
        ("decision", np.int64),
        ("task", np.int64),
        ("now_s", np.float64),
        ("length_s", np.float64),
        ("energy_j", np.float64),
        ("transfer_s", np.float64),
        ("available_s", np.float64),
        ("score", np.float64),
        ("codelet", np.int32),
        ("asker", np.int32),
        ("worker", np.int32),
        ("chosen", np.int32),
    ],
    align=True,
)
"""``dahl_decision``: a candidate worker of one decision, with its estimates and the policy's score.

``asker`` is the idle worker of a pull policy, -1 for placement. Where a pull policy leaves its asker idle, no
candidate is chosen and the task is the oldest one left.
"""
