"""The records that a policy sees, in SI units.

They have the layout of the structures in dahl/starpu/csrc/dahl.h; a test holds them equal.
What is unknown is NaN, never 0.
"""

from __future__ import annotations

import numpy as np

CPU, CUDA = 0, 1
"""Values of ``workers[w].arch``."""

TASK = np.dtype(
    [
        ("id", np.int64),
        ("footprint", np.int64),
        ("ready_s", np.float64),
        ("b_level_s", np.float64),
        ("codelet", np.int32),
        ("priority", np.int32),
        ("graph", np.int32),
        ("place", np.int32),
    ],
    align=True,
)
"""The task that a placement policy places, or that starts or ends.

``footprint`` is equal for tasks of equal cost. ``b_level_s`` is the longest way from the start of the task to the end
of its recorded graph, in mean lengths; NaN for a task submitted by itself. ``graph`` is the number of that graph, and
``place`` the task's place in it, as ``lay_out`` has them; -1 for a task submitted by itself.
"""

READY = np.dtype(
    [
        ("count", np.int64),
        ("sequence", np.int64),
        ("footprint", np.int64),
        ("ready_s", np.float64),
        ("b_level_s", np.float64),
        ("codelet", np.int32),
        ("priority", np.int32),
    ],
    align=True,
)
"""One kind of ready task: how many wait, and when the oldest came (``sequence`` counts arrivals)."""

WORKER = np.dtype(
    [
        ("length_s", np.float64),
        ("energy_j", np.float64),
        ("transfer_s", np.float64),
        ("available_s", np.float64),
        ("idle_w", np.float64),
        ("busy_w", np.float64),
        ("score", np.float64),
        ("queued", np.int64),
        ("can_run", np.int32),
        ("arch", np.int32),
        ("memory_node", np.int32),
        ("worker_class", np.int32),
        ("power_domain", np.int32),
        ("rank", np.int32),
    ],
    align=True,
)
"""What the task would take on a worker, and the worker's state.

``energy_j`` is net of the worker's idle watts. ``available_s`` is how long until what the worker has is done.
``score`` is the policy's to fill: the decision log keeps it. So is ``rank`` in ``place``: of the tasks of equal
priority that wait for a worker those of the highest rank run first (0: no wish).
"""

SYSTEM = np.dtype(
    [
        ("now_s", np.float64),
        ("base_w", np.float64),
        ("idle_w", np.float64),
        ("modelled_w", np.float64),
        ("measured_w", np.float64),
        ("measured_age_s", np.float64),
        ("ready_count", np.int64),
        ("running_count", np.int64),
    ],
    align=True,
)
"""The machine: ``idle_w`` sums the workers' idle watts, ``base_w`` is the rest of the machine.

``modelled_w`` adds up the base and each worker's idle or busy watts, as they are now. ``measured_w`` are the live watts
of a counter, ``measured_age_s`` old, or of a trace that is replayed; NaN without one, and beyond 5 s of age. A
simulated machine's meter tells the mean of the last millisecond.
"""
