"""Made-up images of any shape: a fixed random pattern per class, plus noise."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from dahl.datasets.base import Availability, Dataset, DatasetSource, Split, build_dataset

_BLOCK_PIXELS = 1 << 22


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic(DatasetSource):
    """Class prototypes of uniform pixels in 64 to 191, plus uniform integer noise, clipped to 0 to 255.

    Classes are as equally frequent as the sizes allow, in random order. Integers only,
    so that one seed gives the same bytes on every machine.
    """

    name: ClassVar[str] = "synthetic"

    channels: int = 1
    height: int = 28
    width: int = 28
    classes: int = 10
    train_size: int = 6000
    test_size: int = 1000

    noise: int = 64
    """Largest change of a pixel, in steps of 1/255; 0: every image is its class's prototype."""

    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {"classes": 2, "noise": 0, "seed": 0, "train_size": self.classes}
        for field in fields(self):
            value = getattr(self, field.name)
            if value < lowest.get(field.name, 1):
                raise ValueError(f"{field.name} must be at least {lowest.get(field.name, 1)}, got {value}")
        if self.noise > 255:
            raise ValueError(f"noise must be at most 255, got {self.noise}")

    def load(self) -> Dataset:
        """Images (N, channels, height, width); never fails on files, as there are none."""
        prototype_seed, train_seed, test_seed = np.random.SeedSequence(self.seed).spawn(3)
        shape = (self.classes, self.channels, self.height, self.width)
        prototypes = np.random.default_rng(prototype_seed).integers(64, 192, shape, dtype=np.int16)
        return build_dataset(
            self.name,
            self._split(prototypes, self.train_size, np.random.default_rng(train_seed)),
            self._split(prototypes, self.test_size, np.random.default_rng(test_seed)),
            tuple(f"class {index}" for index in range(self.classes)),
        )

    def availability(self) -> Availability:
        return Availability(self.name, True, "made in memory from its seed", "")

    def _split(self, prototypes: npt.NDArray[np.int16], size: int, random: np.random.Generator) -> Split:
        labels = random.permutation(np.arange(size, dtype=np.int32) % self.classes)
        images = np.empty((size, *prototypes.shape[1:]), np.uint8)
        step = max(1, _BLOCK_PIXELS // prototypes[0].size)
        for start in range(0, size, step):
            block = prototypes[labels[start : start + step]]
            block += random.integers(-self.noise, self.noise, block.shape, dtype=np.int16, endpoint=True)
            images[start : start + step] = block.clip(0, 255)
        return Split(images=images, labels=labels)
