"""Data sets: Fashion-MNIST, CIFAR-10, folders of images, and made-up ones.

A source holds the parameters; its `load()` returns a `Dataset`: uint8 images (N, C, H, W), int32 labels,
class names, and the mean and standard deviation that training normalises with.
"""

from __future__ import annotations

from pathlib import Path

from dahl.datasets.base import Availability, Dataset, DatasetError, DatasetSource, Split, channel_statistics
from dahl.datasets.cache import DEFAULT_CACHE_DIR
from dahl.datasets.cifar10 import Cifar10
from dahl.datasets.fashion_mnist import FashionMnist
from dahl.datasets.image_folder import ImageFolder
from dahl.datasets.synthetic import Synthetic

__all__ = [
    "Availability",
    "Cifar10",
    "Dataset",
    "DatasetError",
    "DatasetSource",
    "FashionMnist",
    "ImageFolder",
    "Split",
    "Synthetic",
    "availability",
    "channel_statistics",
]


def availability(cache_dir: Path | str = DEFAULT_CACHE_DIR) -> list[Availability]:
    """What is at hand with default parameters, one entry per data set; never raises and downloads nothing."""
    found = []
    for source in (FashionMnist(cache_dir=cache_dir), Cifar10(cache_dir=cache_dir), Synthetic()):
        try:
            found.append(source.availability())
        except OSError as error:
            found.append(Availability(source.name, False, str(error), f"make {error.filename} readable"))
    own = "set dataset=image_folder dataset.root=FOLDER (class folders of images, or a CSV of labels)"
    found.append(Availability(ImageFolder.name, False, "a folder of your own", own))
    return found
