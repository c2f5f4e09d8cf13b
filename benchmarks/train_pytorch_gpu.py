"""One process of ``benchmarks.training --gpu``: images per second of PyTorch on a GPU. Takes its job as JSON.

Imports nothing of this project, so that an interpreter that has only PyTorch can run it.
Images, labels and order are on the GPU before the time is taken, and the loss stays there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from train_pytorch import network  # type: ignore[import-not-found]  # a script, which finds what is beside it

WARM_UP_BATCHES = 11
"""PyTorch asks for as many before a step is captured in a graph, and torch.compile builds in the first of them."""
Step = Callable[[torch.Tensor], None]


class Training:
    """A network, its optimiser, and data that are all on one device."""

    def __init__(self, model: str, images: int, way: str, device: str) -> None:
        torch.manual_seed(0)
        plain = way in ("eager", "graphs")
        self._format = torch.contiguous_format if plain else torch.channels_last
        net = network(model).to(device=device, memory_format=self._format)
        self._optimiser = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
        self._net: Any = torch.compile(net) if way.startswith("compiled") else net
        self._x = torch.randn(images, 1, 28, 28, device=device)
        self._y = torch.randint(0, 10, (images,), device=device)
        self._total = torch.zeros((), device=device)
        self.order = torch.randperm(images, device=device)

    def forward_and_back(self, index: torch.Tensor) -> None:
        """All of a step but clearing the gradients."""
        images = self._x[index].contiguous(memory_format=self._format)
        loss = nn.functional.cross_entropy(self._net(images), self._y[index])
        loss.backward()
        self._optimiser.step()
        self._total += loss.detach()

    def clear(self) -> None:
        """Forget the gradients."""
        self._optimiser.zero_grad(set_to_none=True)

    def step(self, index: torch.Tensor) -> None:
        """Train on some images."""
        self.clear()
        self.forward_and_back(index)

    def captured(self, batch: int) -> Step:
        """The same step as one CUDA graph, after PyTorch's own recipe for a whole network."""
        static = self.order[:batch].clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP_BATCHES):
                self.step(static)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        self.clear()
        with torch.cuda.graph(graph):
            self.forward_and_back(static)

        def step(index: torch.Tensor) -> None:
            static.copy_(index)
            graph.replay()

        return step

    def loss(self) -> float:
        """The sum of all steps' losses; waits for the device."""
        return float(self._total)


def images_per_s(model: str, images: int, epochs: int, batch: int, way: str, device: str) -> float:
    """Train some epochs of whole mini-batches. Raises ArithmeticError where the loss is no number."""
    training = Training(model, images, way, device)
    step = training.captured(batch) if way.endswith("graphs") else training.step
    parts = [training.order[first : first + batch] for first in range(0, images - batch + 1, batch)]
    for number in range(WARM_UP_BATCHES):
        step(parts[number % len(parts)])
    training.loss()
    start = time.perf_counter()
    for _ in range(epochs):
        for part in parts:
            step(part)
    loss = training.loss()
    seconds = time.perf_counter() - start
    if loss != loss:
        raise ArithmeticError(f"{model}, batch {batch}, {way}: the loss is not a number")
    return epochs * len(parts) * batch / seconds


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Images per second by ``model, batch; way``, with and without TF32 (PyTorch's own default for convolutions)."""
    found = {}
    for tf32 in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        for model, images in job["images"].items():
            for batch in job["batches"]:
                for way in job["ways"]:
                    key = f"{model}, batch {batch}; {way}{', TF32' if tf32 else ''}"
                    found[key] = images_per_s(model, images, job["epochs"], batch, way, job["device"])
    return found


def main() -> None:
    """Measure once and print the answer."""
    job = json.loads(sys.argv[1])
    if job["device"] == "cuda" and not torch.cuda.is_available():
        sys.exit(
            f"PyTorch {torch.__version__} sees no GPU: it needs a build for CUDA and a driver that fits it"
        )
    print(json.dumps(measure(job)))


if __name__ == "__main__":
    main()
