"""CIFAR-10, binary version: 50,000 + 10,000 colour images of 32 x 32 in 10 classes.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.
A record is one label byte, then 1,024 bytes each of red, green, blue.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from dahl.datasets.base import Availability, Dataset, DatasetError, DatasetSource, Split, build_dataset
from dahl.datasets.cache import DEFAULT_CACHE_DIR, download, make_folder_once

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# Of the archive whose MD5 sum the authors publish, c32a1d4ab5d03f1284b67883e8d87530 (170,052,171 bytes).
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
RECORDS_PER_FILE = 10_000

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_TRAIN_FILES = tuple(f"data_batch_{index}.bin" for index in range(1, 6))
_TEST_FILES = ("test_batch.bin",)
_SHAPE = (3, 32, 32)
_RECORD_BYTES = 1 + 3 * 32 * 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar10(DatasetSource):
    """CIFAR-10 from a folder of its binary files, or downloaded (170 MB) and unpacked into the cache."""

    name: ClassVar[str] = "cifar10"

    root: Path | str | None = None
    """Folder with data_batch_1.bin to data_batch_5.bin and test_batch.bin; None: the cache's."""

    cache_dir: Path | str = DEFAULT_CACHE_DIR
    """Where the unpacked files are kept."""

    url: str = URL
    """Where the archive is downloaded from."""

    sha256: str = SHA256
    """What the archive's checksum must be."""

    records_per_file: int = RECORDS_PER_FILE
    """Images in each of the six files."""

    def __post_init__(self) -> None:
        if self.records_per_file < 1:
            raise ValueError(f"records_per_file must be at least 1, got {self.records_per_file}")

    def load(self) -> Dataset:
        """Images (N, 3, 32, 32). Raises DatasetError, which names the file that is missing or damaged."""
        folder = self._folder()
        if self.root is None:
            make_folder_once(folder, self._download_into)
        train, test = self._split(folder, _TRAIN_FILES), self._split(folder, _TEST_FILES)
        return build_dataset(self.name, train, test, CLASSES)

    def availability(self) -> Availability:
        folder = self._folder()
        missing = [name for name in (*_TRAIN_FILES, *_TEST_FILES) if not (folder / name).is_file()]
        if not missing:
            return Availability(self.name, True, str(folder), "")
        remedy = "set dataset.root to a folder that has the binary version's six .bin files"
        if self.root is None:
            remedy += " (or let the first run with dataset=cifar10 download 170 MB)"
        return Availability(self.name, False, f"no {missing[0]} in {folder}", remedy)

    def _folder(self) -> Path:
        return (
            Path(self.root) if self.root is not None else Path(self.cache_dir) / "cifar10" / self.sha256[:16]
        )

    def _download_into(self, folder: Path) -> None:
        archive = folder / "cifar-10-binary.tar.gz"
        try:
            download(self.url, archive, self.sha256)
        except DatasetError as error:
            raise DatasetError(
                f"{error}: or set dataset.root to a folder that has the binary version's six .bin files"
            ) from error
        extract_members(archive, (*_TRAIN_FILES, *_TEST_FILES), folder)
        archive.unlink()

    def _split(self, folder: Path, names: tuple[str, ...]) -> Split:
        count = self.records_per_file
        images = np.empty((count * len(names), *_SHAPE), np.uint8)
        labels = np.empty(count * len(names), np.int32)
        for index, name in enumerate(names):
            records = self._records(folder / name)
            at = slice(index * count, (index + 1) * count)
            labels[at] = records[:, 0]
            images[at] = records[:, 1:].reshape(count, *_SHAPE)
        return Split(images=images, labels=labels)

    def _records(self, path: Path) -> np.ndarray:
        try:
            data = np.fromfile(path, np.uint8)
        except OSError as error:
            hint = (
                "set dataset.root to the folder that has it"
                if self.root
                else f"delete {path.parent} and run again"
            )
            raise DatasetError(f"{path}: cannot be read ({error.strerror or error}): {hint}") from error
        needed = self.records_per_file * _RECORD_BYTES
        if data.size != needed:
            raise DatasetError(
                f"{path}: {data.size} bytes, expected {needed}"
                f" ({self.records_per_file} records of {_RECORD_BYTES})"
            )
        records = data.reshape(-1, _RECORD_BYTES)
        wrong = np.flatnonzero(records[:, 0] >= len(CLASSES))
        if wrong.size:
            raise DatasetError(
                f"{path}: label {records[wrong[0], 0]} in record {wrong[0]} is out of range 0 to 9"
            )
        return records


def extract_members(archive: Path, names: tuple[str, ...], folder: Path) -> None:
    """Copy the regular files of these base names out of a .tar.gz into `folder`; nothing else is written.

    No path of the archive is used, so none can lead out of the folder.
    Raises DatasetError where the archive is damaged or lacks one of them.
    """
    import tarfile
    import zlib

    missing = set(names)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                source = tar.extractfile(member) if member.isreg() and name in missing else None
                if source is not None:
                    with source, (folder / name).open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    missing.remove(name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DatasetError(f"{archive.name}: not a sound tar.gz archive ({error})") from error
    if missing:
        raise DatasetError(f"{archive.name}: the archive has no {', '.join(sorted(missing))}")
