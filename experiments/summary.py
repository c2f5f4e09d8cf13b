"""`summary.json`: one flat record for each trial, whatever became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from experiments.identity import identity
from experiments.records import RECORD_VERSION

QUALITIES = ("measured", "estimated", "simulated", "modelled")


def summarise(
    config: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    blocks: Sequence[Mapping[str, Any]] = (),
    whole: Mapping[str, Any] = MappingProxyType({}),
    *,
    status: str,
    error: str | None = None,
    simulated: bool | None = None,
    weights_sha256: str | None = None,
    idle_drifted: bool | None = None,
    energy_trouble: str | None = None,
    moved_bytes: int | None = None,
) -> dict[str, Any]:
    """The summary of a trial from its configuration, the rows of its `epochs` table and its blocks of epochs.

    A block has `epoch`, `last_epoch`, joules and their quality; without any each epoch is one.

    `seconds_per_epoch`, `images_per_second` and the joules are means over the epochs that ended; accuracy and
    loss are those of the last one. What was not recorded is None, never 0; joules are None unless every epoch
    is in a block that has them. `idle_drifted` is None where the idle baseline was not checked.
    `tasks_recorded` is False where there is no `tasks.parquet`: PyTorch has no tasks, or `trace` is false.
    The ratios to the bound are there for simulated runs (see `experiments.bounds`).
    `whole` is the window around all of them: `foreign_cores` is the load of others in it, `disturbed` whether that or
    a block's was too much; None where nothing is known (see `experiments.guard`).
    `moved_bytes` are those between main memory and GPUs in all epochs; None without GPUs.
    `energy_trouble` says what went wrong with the counters of a trial that went on without them.
    """
    blocks = blocks or epochs
    in_blocks = sum(row["last_epoch"] - row["epoch"] + 1 if "last_epoch" in row else 1 for row in blocks)
    counted = blocks if in_blocks == len(epochs) else []
    last = epochs[-1] if epochs else {}
    seconds = _sum(epochs, "seconds")
    images = _sum(epochs, "images")
    qualities = {row["quality"] for row in counted if row.get("quality") is not None}
    return {
        "record_version": RECORD_VERSION,
        "status": status,
        "error": error,
        "identity": identity(config),
        "label": config.get("label"),
        "scheduler": scheduler_name(config),
        "framework": config["framework"]["name"],
        "workload": config["choices"]["workload"],
        "model": config["choices"]["model"],
        "dataset": config["choices"]["dataset"],
        "platform": config["choices"]["platform"],
        "simulated": simulated,
        "tasks_recorded": bool(config["trace"]) and config["framework"]["name"] == "starpu",
        "epochs": len(epochs),
        "accuracy": last.get("accuracy"),
        "loss": last.get("loss"),
        "weights_sha256": weights_sha256,
        "seconds_per_epoch": _mean(seconds, epochs),
        "cpu_seconds_per_epoch": _mean(_sum(epochs, "cpu_s"), epochs),
        "images_per_second": images / seconds if images and seconds else None,
        "joules_per_epoch": _mean(_sum(counted, "gross_j"), epochs),
        "joules_per_epoch_net": _mean(_sum(counted, "net_j"), epochs),
        "transferred_bytes_per_epoch": None if moved_bytes is None else _mean(float(moved_bytes), epochs),
        "energy_trouble": energy_trouble,
        "foreign_cores": whole.get("foreign_cores"),
        "disturbed": True if any(row.get("disturbed") for row in blocks) else whole.get("disturbed"),
        "energy_quality": max(qualities, key=QUALITIES.index) if qualities else None,
        "idle_drifted": idle_drifted,
        "bound_ratio": _mean(_sum(epochs, "bound_ratio"), epochs),
        "bound_ratio_controllable": _mean(_sum(epochs, "bound_ratio_controllable"), epochs),
    }


def scheduler_name(config: Mapping[str, Any]) -> str:
    """The scheduler as results name it: its file in the group.

    For `scheduler=starpu` it is StarPU's name, for `scheduler=own` the class. PyTorch, which has none, stands there by
    its own name and the options that are not its defaults, such as `torch+channels_last`.
    """
    framework = config["framework"]
    if framework["name"] == "torch":
        chosen = {
            "channels_last": framework["memory_format"] == "channels_last",
            "compile": framework["compile"],
            "normalised_once": framework["normalise"] == "once",
        }
        return "+".join(["torch", *(name for name, is_chosen in chosen.items() if is_chosen)])
    choice, scheduler = config["choices"]["scheduler"], config["scheduler"]
    if choice == "own":
        return str(scheduler["_target_"]).rpartition(".")[2]
    return str(scheduler["name"] if choice == "starpu" else choice)


def _sum(epochs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [row.get(key) for row in epochs]
    if not values or any(value is None for value in values):
        return None
    return sum(value for value in values if value is not None)


def _mean(total: float | None, epochs: Sequence[Mapping[str, Any]]) -> float | None:
    return None if total is None else total / len(epochs)
