"""The columns of a run's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from energy import WindowEnergy

SUMMARY = pa.schema(
    [
        ("record_version", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("identity", pa.string()),
        ("label", pa.string()),
        ("scheduler", pa.string()),
        ("framework", pa.string()),
        ("workload", pa.string()),
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("platform", pa.string()),
        ("simulated", pa.bool_()),
        ("tasks_recorded", pa.bool_()),
        ("epochs", pa.int64()),
        ("accuracy", pa.float64()),
        ("loss", pa.float64()),
        ("weights_sha256", pa.string()),
        ("seconds_per_epoch", pa.float64()),
        ("cpu_seconds_per_epoch", pa.float64()),
        ("images_per_second", pa.float64()),
        ("joules_per_epoch", pa.float64()),
        ("joules_per_epoch_net", pa.float64()),
        ("transferred_bytes_per_epoch", pa.float64()),
        ("energy_trouble", pa.string()),
        ("foreign_cores", pa.float64()),
        ("disturbed", pa.bool_()),
        ("energy_quality", pa.string()),
        ("idle_drifted", pa.bool_()),
        ("bound_ratio", pa.float64()),
        ("bound_ratio_controllable", pa.float64()),
    ]
)
"""The fields of `summary.json` (`experiments.summary`)."""

TASKS = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("task", pa.int64()),
        ("codelet", pa.string()),
        ("tile", pa.int64()),
        ("worker", pa.int32()),
        ("submit_s", pa.float64()),
        ("ready_s", pa.float64()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("predicted_s", pa.float64()),
        ("predicted_j", pa.float64()),
    ]
)
"""Seconds on StarPU's clock (`windows` ties it to the others); joules net of idle; NaN: not predicted."""

DECISIONS = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("decision", pa.int64()),
        ("task", pa.int64()),
        ("codelet", pa.string()),
        ("asker", pa.int32()),
        ("worker", pa.int32()),
        ("chosen", pa.bool_()),
        ("now_s", pa.float64()),
        ("length_s", pa.float64()),
        ("energy_j", pa.float64()),
        ("transfer_s", pa.float64()),
        ("available_s", pa.float64()),
        ("score", pa.float64()),
    ]
)
"""A row per candidate of each decision. `asker`: the idle worker of a pull policy, -1 for placement. Where no candidate
is chosen the asker was left idle, and `task` is the oldest one that it left."""

WINDOWS = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("last_epoch", pa.int32()),
        ("first_batch", pa.int32()),
        ("last_batch", pa.int32()),
        ("channel", pa.string()),
        ("in_total", pa.bool_()),
        ("seconds", pa.float64()),
        ("gross_j", pa.float64()),
        ("idle_j", pa.float64()),
        ("net_j", pa.float64()),
        ("bound_j", pa.float64()),
        ("quality", pa.string()),
        ("complete", pa.bool_()),
        ("resolvable", pa.bool_()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("start_t_mono_ns", pa.int64()),
        ("end_t_mono_ns", pa.int64()),
    ]
)
"""A row per window and channel. `start_s`, `end_s`: StarPU's clock; `_t_mono_ns`: `time.monotonic_ns`.

The window `epoch` is a block of the epochs from `epoch` to `last_epoch`; `batches` are mini-batches inside one."""

GUARD = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("last_epoch", pa.int32()),
        ("seconds", pa.float64()),
        ("foreign_cores", pa.float64()),
        ("foreign_cores_bound", pa.float64()),
        ("stolen_cores", pa.float64()),
        ("frequency_mhz", pa.float64()),
        ("throttles", pa.int64()),
        ("gpu_throttled_s", pa.float64()),
        ("gpu_power_limited_s", pa.float64()),
        ("disturbed", pa.bool_()),
    ]
)
"""A row per window: what else ran on the machine (`experiments.guard`)."""

BREAKDOWN = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("last_epoch", pa.int32()),
        ("compute_j", pa.float64()),
        ("polling_j", pa.float64()),
        ("sleep_j", pa.float64()),
        ("scheduling_j", pa.float64()),
        ("transfers_j", pa.float64()),
        ("base_j", pa.float64()),
        ("remainder_j", pa.float64()),
        ("total_j", pa.float64()),
        ("quality", pa.string()),
    ]
)
"""A row per window with tasks: its joules by what they went to (`energy.breakdown`); all but the total are modelled."""

TRANSFERS = pa.schema(
    [
        ("window", pa.string()),
        ("epoch", pa.int32()),
        ("last_epoch", pa.int32()),
        ("source", pa.int32()),
        ("target", pa.int32()),
        ("bytes", pa.int64()),
    ]
)
"""A row per window and pair of memory nodes between which data moved; node 0 is main memory, the others are GPUs'."""

POWER = pa.schema(
    [
        ("t_mono_ns", pa.int64()),
        ("channel", pa.string()),
        ("raw", pa.int64()),
        ("joules", pa.float64()),
        ("watts", pa.float64()),
        ("flags", pa.int64()),
    ]
)
"""A row per reading of a channel: joules since the one before and the mean watts of them (`energy.stream`)."""

EPOCH_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("epoch", pa.int32()),
    ("block", pa.int32()),
    ("images", pa.int64()),
    ("seconds", pa.float64()),
    ("cpu_s", pa.float64()),
    ("loss", pa.float64()),
    ("test_loss", pa.float64()),
    ("accuracy", pa.float64()),
    ("gross_j", pa.float64()),
    ("net_j", pa.float64()),
    ("bound_j", pa.float64()),
    ("quality", pa.string()),
    ("resolvable", pa.bool_()),
    ("bound_ratio", pa.float64()),
    ("bound_ratio_controllable", pa.float64()),
]
"""`cpu_s`: CPU time of all threads of the process, null in a simulation.

Joules are totals over the channels in the total; each channel's own follow as `<channel>_gross_j`...

An epoch that shares its block with others has none of its own: `windows` has the block's."""


def epoch_schema(channels: tuple[str, ...]) -> pa.Schema:
    """The columns of `epochs`, with those of each channel."""
    own = [
        (f"{channel}_{kind}_j", pa.float64()) for channel in channels for kind in ("gross", "net", "bound")
    ]
    return pa.schema(EPOCH_COLUMNS + own)


def energy_columns(energy: WindowEnergy | None, channels: Sequence[str]) -> dict[str, Any]:
    """What a window's joules add to its epoch's row; None for what is not known, or is not the epoch's own."""
    if energy is None:
        kinds = [f"{channel}_{kind}_j" for channel in channels for kind in ("gross", "net", "bound")]
        return dict.fromkeys(["gross_j", "net_j", "bound_j", "quality", "resolvable", *kinds])
    row: dict[str, Any] = {
        "gross_j": energy.total_j,
        "net_j": energy.total_net_j,
        "bound_j": energy.total_bound_j,
        "quality": energy.quality,
        "resolvable": energy.resolvable,
    }
    for name, channel in energy.channels.items():
        row[f"{name}_gross_j"] = channel.gross_j
        row[f"{name}_net_j"] = channel.net_j
        row[f"{name}_bound_j"] = channel.bound_j
    return row
