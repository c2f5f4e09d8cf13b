"""What a data set is: two splits of images with labels, and the statistics that normalise them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

_BLOCK_PIXELS = 1 << 18


class DatasetError(Exception):
    """A data set cannot be had: the message names the file or folder and what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels.

    images: uint8, (N, C, H, W), C-contiguous; may be read-only and may be a memory map.
    labels: int32, (N,), indices into the data set's classes.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or not images.flags.c_contiguous:
            raise ValueError(
                f"images must be C-contiguous uint8 (N, C, H, W), got {images.dtype} of shape {images.shape}"
            )
        if labels.dtype != np.int32 or labels.ndim != 1:
            raise ValueError(f"labels must be int32 (N,), got {labels.dtype} of shape {labels.shape}")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images and {len(labels)} labels: one label per image is needed")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A loaded data set.

    mean and std are per channel, of pixel / 255 over the train split; training normalises with them.
    Raises DatasetError for an empty split, splits of different image shape, a label outside of the classes,
    or a channel that never varies (it could not be normalised).
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for split_name, split in (("train", self.train), ("test", self.test)):
            self._check_split(split_name, split)
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DatasetError(
                f"{self.name}: train images are {_times(self.train.images.shape[1:])}"
                f" and test images {_times(self.test.images.shape[1:])} (channels x height x width)"
            )
        for channel, std in enumerate(self.std):
            if not std > 0:
                raise DatasetError(
                    f"{self.name}: channel {channel} has one value in every train pixel:"
                    " check the images and the number of channels"
                )

    def _check_split(self, split_name: str, split: Split) -> None:
        if split.images.size == 0:
            raise DatasetError(
                f"{self.name}: the {split_name} split is empty (images of shape {split.images.shape})"
            )
        lowest, highest = int(split.labels.min()), int(split.labels.max())
        if lowest < 0 or highest >= len(self.classes):
            raise DatasetError(
                f"{self.name}: the {split_name} labels run from {lowest} to {highest},"
                f" but there are {len(self.classes)} classes (0 to {len(self.classes) - 1})"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width


@dataclass(frozen=True)
class Availability:
    """Whether a data set is at hand: where it is, or what to do to get it."""

    name: str
    found: bool
    where: str
    remedy: str


class DatasetSource(ABC):
    """The parameters of a data set that can be loaded."""

    __slots__ = ()
    name: ClassVar[str]

    @abstractmethod
    def load(self) -> Dataset:
        """Read the data set, fetching it first where it can be fetched. Raises DatasetError."""

    @abstractmethod
    def availability(self) -> Availability:
        """Say whether load() would find its files, by looking at names only; downloads nothing."""


def build_dataset(name: str, train: Split, test: Split, classes: tuple[str, ...]) -> Dataset:
    """A Dataset with the statistics of its train split. Raises DatasetError as Dataset does."""
    mean, std = channel_statistics(train.images)
    return Dataset(name=name, train=train, test=test, classes=classes, mean=mean, std=std)


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of pixel / 255 for each channel of uint8 (N, C, H, W) images.

    Streams over blocks of a quarter of a mebipixel, so a memory-mapped set larger than memory works.
    The sums are exact: a block's sums of pixels and of their squares are integers that float64 holds
    without rounding, and blocks are added as Python integers. An empty array gives NaN.
    """
    count, channels, height, width = images.shape
    pixels = count * height * width
    if pixels == 0:
        return (math.nan,) * channels, (math.nan,) * channels
    step = max(1, _BLOCK_PIXELS // (height * width))
    totals = [0] * channels
    squares = [0] * channels
    for start in range(0, count, step):
        for channel in range(channels):
            block = images[start : start + step, channel].astype(np.float64).ravel()
            totals[channel] += int(block.sum())
            # Not by BLAS: its threads would wait for cores that others use.
            block *= block
            squares[channel] += int(block.sum())
    mean = tuple(total / (255 * pixels) for total in totals)
    std = tuple(
        math.sqrt(pixels * square - total * total) / (255 * pixels)
        for total, square in zip(totals, squares, strict=True)
    )
    return mean, std


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
