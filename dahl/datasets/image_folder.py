"""Images of one's own: class folders or a CSV file of labels, decoded once into memory-mapped arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from dahl.datasets.base import Availability, Dataset, DatasetError, DatasetSource, Split, channel_statistics
from dahl.datasets.cache import DEFAULT_CACHE_DIR, make_folder_once
from dahl.datasets.image_decoding import PixelFormat, write_images
from dahl.datasets.image_listing import ImageListing, LabelledFile, list_class_folders, list_csv

# Part of the key: to be raised whenever the same files would give other pixels.
_LAYOUT = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolder(DatasetSource):
    """PNG and JPEG files, resized to one shape.

    The pixels are written once to the cache, under a key of the files (names, sizes, times of change) and the
    pixel format, and opened as read-only memory maps: a set larger than memory works.
    """

    name: ClassVar[str] = "image_folder"

    root: Path | str
    """Has train/<class>/ and test/<class>/, or <class>/; with `labels`, the folder that its files are in."""

    labels: Path | str | None = None
    """CSV file with the columns file, label and, if wanted, split (train or test); relative to `root`."""

    image_size: Sequence[int] = (32, 32)
    """(height, width) in pixels."""

    channels: int = 3
    """1: grey; 3: red, green, blue."""

    test_fraction: float = 0.2
    """Part of each class that is held out where the files come without a split, between 0 and 1."""

    seed: int = 0
    """Seed of that split."""

    cache_dir: Path | str = DEFAULT_CACHE_DIR
    """Where the decoded pixels are kept."""

    decode_threads: int | None = None
    """Threads that decode; None: one per core that this process may use."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", tuple(self.image_size))
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(f"image_size must be (height, width), both at least 1, got {self.image_size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction must be between 0 and 1, got {self.test_fraction}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if self.decode_threads is not None and self.decode_threads < 1:
            raise ValueError(f"decode_threads must be at least 1, got {self.decode_threads}")

    def load(self) -> Dataset:
        """Images (N, channels, height, width). Raises DatasetError, which names the file or line at fault."""
        listing = self._listing()
        folder = Path(self.cache_dir) / "image-folder" / self._key(listing)
        make_folder_once(folder, lambda partial: self._fill(partial, listing))
        mean, std = _read_statistics(folder / "statistics.json", self.channels)
        return Dataset(
            name=self.name,
            train=self._split(folder / "train.npy", listing, listing.train),
            test=self._split(folder / "test.npy", listing, listing.test),
            classes=listing.classes,
            mean=mean,
            std=std,
        )

    def availability(self) -> Availability:
        root = Path(self.root)
        needed = root / self.labels if self.labels is not None else root
        if needed.exists():
            return Availability(self.name, True, str(needed), "")
        return Availability(
            self.name, False, f"no {needed}", "set dataset.root (and dataset.labels) to your images"
        )

    def _listing(self) -> ImageListing:
        root = Path(self.root)
        try:
            if self.labels is not None:
                return list_csv(root, root / self.labels, self.test_fraction, self.seed)
            return list_class_folders(root, self.test_fraction, self.seed)
        except OSError as error:
            raise DatasetError(
                f"{error.filename or root}: cannot be read ({error.strerror or error})"
            ) from error

    def _pixel_format(self) -> PixelFormat:
        height, width = self.image_size
        return PixelFormat(channels=self.channels, height=height, width=width)

    def _key(self, listing: ImageListing) -> str:
        digest = hashlib.sha256(json.dumps([_LAYOUT, self.channels, *self.image_size]).encode())
        for split in (listing.train, listing.test):
            for file in split:
                digest.update(_fingerprint(file.path))
            digest.update(b"\n")
        return digest.hexdigest()[:24]

    def _fill(self, folder: Path, listing: ImageListing) -> None:
        threads = self.decode_threads or len(os.sched_getaffinity(0))
        for name, files in (("test", listing.test), ("train", listing.train)):
            write_images([file.path for file in files], folder / f"{name}.npy", self._pixel_format(), threads)
        mean, std = channel_statistics(np.load(folder / "train.npy", mmap_mode="r"))
        (folder / "statistics.json").write_text(json.dumps({"mean": mean, "std": std}), encoding="utf-8")

    def _split(self, path: Path, listing: ImageListing, files: Sequence[LabelledFile]) -> Split:
        images = _open_images(path, (len(files), self.channels, *self.image_size))
        return Split(images=images, labels=listing.label_indices(files))


def _fingerprint(path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    return f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape")


def _open_images(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: damaged ({error}): delete {path.parent} and run again") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise DatasetError(
            f"{path}: {images.dtype} of shape {images.shape}, expected uint8 of shape {shape}:"
            f" delete {path.parent} and run again"
        )
    return images


def _read_statistics(path: Path, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        statistics = json.loads(path.read_text(encoding="utf-8"))
        mean, std = (tuple(map(float, statistics[key])) for key in ("mean", "std"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: damaged ({error}): delete {path.parent} and run again") from error
    if len(mean) != channels or len(std) != channels:
        raise DatasetError(f"{path}: not {channels} channels: delete {path.parent} and run again")
    return mean, std
