"""One process of ``benchmarks.training``: images per second of PyTorch on the CPU. Takes its job as JSON.

Imports nothing of this project, so that an interpreter that has only PyTorch can run it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from torch import nn

WARM_UP_BATCHES = 5


def network(model: str) -> nn.Module:
    """The same layers as in dahl/models, on images of 1x28x28."""
    if model == "basic_cnn":
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(676, 10))
    if model == "lenet":
        first = (nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2))
        second = (nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2))
        linears = (nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10))
        return nn.Sequential(*first, *second, *linears)
    raise ValueError(f"no model {model!r} here; there are basic_cnn and lenet")


def train(
    net: Any, x: torch.Tensor, y: torch.Tensor, batch: int, memory_format: torch.memory_format
) -> float:
    """Train one epoch and return its seconds; SGD with momentum, as this project does."""
    optimiser = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    order = torch.randperm(len(x))
    total = torch.zeros(())
    for timed in (False, True):
        start = time.perf_counter()
        for number, first in enumerate(range(0, len(x), batch)):
            if not timed and number == WARM_UP_BATCHES:
                break
            index = order[first : first + batch]
            images = x[index].contiguous(memory_format=memory_format)
            optimiser.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(net(images), y[index])
            loss.backward()
            optimiser.step()
            total += loss.detach()
    return time.perf_counter() - start


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Images per second by ``model, batch; memory format``."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    formats = {"eager": torch.contiguous_format, "channels_last": torch.channels_last}
    if job["compile"]:
        formats = {"compiled": torch.channels_last}
    found = {}
    for model, images in job["images"].items():
        x, y = torch.randn(images, 1, 28, 28), torch.randint(0, 10, (images,))
        for batch in job["batches"]:
            for name, memory_format in formats.items():
                net = network(model).to(memory_format=memory_format)
                if job["compile"]:
                    net = torch.compile(net)
                found[f"{model}, batch {batch}; {name}"] = images / train(net, x, y, batch, memory_format)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
