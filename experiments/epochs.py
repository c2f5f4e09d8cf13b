"""Epochs in blocks that are long enough for the counters, each evaluated outside of its block.

An epoch can be shorter than a few periods of a counter. Then epochs follow one another without a break until their
block is at least `energy.min_window_s` long; they are evaluated after it, with the weights that each of them left.
Where no counter is read every epoch is a block of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dahl.training import BatchProgress, EpochResult, Evaluation, Trainer
from energy import WindowEnergy
from experiments.accounting import BatchRange, Mark, Meter, OpenWindow
from experiments.bounds import EpochWork
from experiments.engine import Engine
from experiments.events import EventWriter
from experiments.graph_runner import GraphRunner
from experiments.schemas import energy_columns
from experiments.tables import TableStream
from experiments.workload import Workload

if TYPE_CHECKING:  # PyTorch need not be there
    from experiments.torch_trainer import TorchTrainer

Weights = list[np.ndarray]


@dataclass(frozen=True)
class _Epoch:
    """An epoch and the CPU time of all threads in it; None in a simulation, which computes nothing."""

    result: EpochResult
    cpu_s: float | None


@dataclass
class _Block:
    """Epochs that share a window."""

    opened: OpenWindow
    done: list[tuple[_Epoch, Weights | None]] = field(default_factory=list)
    """Each with the weights that it left; None where they are the trainer's own."""


class Epochs:
    """Trains and evaluates the epochs of a trial, and writes their rows."""

    def __init__(
        self,
        runtime: Engine,
        trainer: Trainer | TorchTrainer | GraphRunner,
        meter: Meter,
        workload: Workload,
        events: EventWriter,
        table: TableStream,
        work: EpochWork | None = None,
    ) -> None:
        self._runtime, self._trainer, self._meter = runtime, trainer, meter
        self._workload, self._events, self._table = workload, events, table
        self._work = work
        energy = workload.config["energy"]
        self._min_block_s = float(energy.get("min_window_s", 0.0)) if meter.counts else 0.0
        self._range_batches = energy.get("window_batches")
        self._evaluates = bool(workload.config["evaluate"]) and not workload.simulated

    def run(self) -> None:
        """Train every epoch of the configuration."""
        total, first = int(self._workload.config["epochs"]), 1
        while first <= total:
            first += self._run_block(first, total)

    def _run_block(self, first: int, total: int) -> int:
        """Train, count and evaluate a block of epochs from `first` on; returns how many they were."""
        block = _Block(self._meter.open("epoch", first))
        try:
            for epoch in range(first, total + 1):
                trained = self._run_epoch(epoch, block.opened)
                ends = self._ends(block.opened, len(block.done) + 1, total - epoch)
                alone = ends and not block.done
                weights = None
                if self._evaluates and not alone and not isinstance(self._trainer, GraphRunner):
                    weights = [parameter.value.numpy() for parameter in self._trainer.parameters]
                block.done.append((trained, weights))
                if ends:
                    break
        except BaseException:
            # The epochs that ended stay on record; their joules are those of a window that did not end.
            for trained, _ in block.done:
                self._write(first, trained, None, None)
            raise
        energy = self._meter.close_window(block.opened)
        own = energy if len(block.done) == 1 else None
        for trained, weights in block.done:
            self._write(first, trained, self._evaluate(trained.result.epoch, weights), own)
        return len(block.done)

    def _ends(self, opened: OpenWindow, epochs: int, left: int) -> bool:
        """Whether a block of so many epochs is long enough; what is left for another one has to be, too."""
        seconds = self._runtime.now_s() - opened.start_s
        return not left or (seconds >= self._min_block_s <= seconds / epochs * left)

    def _run_epoch(self, epoch: int, opened: OpenWindow) -> _Epoch:
        self._events.emit("epoch_start", epoch=epoch)
        opened.epoch_starts_s.append(self._runtime.now_s())
        used_s = time.process_time()
        result = self._trainer.run_epoch(epoch, self._on_batch(epoch, opened))
        return _Epoch(result, None if self._workload.simulated else time.process_time() - used_s)

    def _on_batch(self, epoch: int, opened: OpenWindow) -> Callable[[BatchProgress], None]:
        batch_size = int(self._workload.config["batch_size"])
        begin: list[tuple[int, Mark]] = [(0, self._meter.mark())] if self._range_batches else []

        def on_batch(progress: BatchProgress) -> None:
            self._meter.note_cpu_time()
            if begin:
                done = -(-progress.images // batch_size)
                ended = progress.images == progress.images_total
                if done - begin[0][0] >= self._range_batches or (ended and done > begin[0][0]):
                    end = self._meter.mark()
                    opened.ranges.append(BatchRange(epoch, begin[0][0] + 1, done, begin[0][1], end))
                    begin[0] = done, end
            if self._events.batch_is_due():
                self._events.batch(
                    epoch=epoch,
                    images=progress.images,
                    seconds=progress.seconds,
                    loss=None if self._workload.simulated else progress.loss,
                    watts=self._meter.live_w(),
                )

        return on_batch

    def _evaluate(self, epoch: int, weights: Weights | None) -> Evaluation | None:
        if not self._evaluates:
            return None
        assert not isinstance(self._trainer, GraphRunner)  # a graph has nothing to evaluate
        if weights is not None:
            parameters: Sequence[Any] = self._trainer.parameters
            for parameter, values in zip(parameters, weights, strict=True):
                parameter.value.write(values)
        with self._meter.window("evaluation", epoch):
            evaluation = self._trainer.evaluate()
        self._events.emit("evaluated", epoch=epoch, loss=evaluation.loss, accuracy=evaluation.accuracy)
        return evaluation

    def _write(
        self, block: int, trained: _Epoch, evaluation: Evaluation | None, energy: WindowEnergy | None
    ) -> None:
        """Write an epoch's row; a simulation computes nothing, so that it has no loss and no accuracy."""
        result = trained.result
        row: dict[str, Any] = {
            "epoch": result.epoch,
            "block": block,
            "images": result.images,
            "seconds": result.seconds,
            "cpu_s": trained.cpu_s,
            "loss": None if self._workload.simulated else result.loss,
            "test_loss": None if evaluation is None else evaluation.loss,
            "accuracy": None if evaluation is None else evaluation.accuracy,
            **energy_columns(energy, self._meter.channels),
        }
        ratios = self._work.ratios(row["gross_j"]) if self._work else {}
        row |= {name: ratios.get(name) for name in ("bound_ratio", "bound_ratio_controllable")}
        self._table.append_row(row)
        self._events.emit("epoch_end", **row)
