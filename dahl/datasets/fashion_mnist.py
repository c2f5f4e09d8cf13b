"""Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28 in 10 classes.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, https://github.com/zalandoresearch/fashion-mnist (MIT).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from dahl.datasets.base import Availability, Dataset, DatasetError, DatasetSource, Split, build_dataset
from dahl.datasets.cache import DEFAULT_CACHE_DIR, fetch
from dahl.datasets.idx import read_idx

PACKAGED_ROOT = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's and Ubuntu's package dataset-fashion-mnist puts the files."""

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# Of the files whose MD5 sums the project publishes in its README. The package's files differ from these
# only in the gzip header (no file name, another time), so their checksums are not these.
SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}

_REMEDY = "install the package dataset-fashion-mnist, or set dataset.root to a folder that has the four files"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FashionMnist(DatasetSource):
    """Fashion-MNIST from a folder, from the distribution's package, or downloaded (30 MB), in this order."""

    name: ClassVar[str] = "fashion_mnist"

    root: Path | str | None = None
    """Folder with the four IDX files, gzip-compressed or not; None: the package's, else the cache's."""

    cache_dir: Path | str = DEFAULT_CACHE_DIR
    """Where downloads are kept."""

    url: str = URL
    """Where the files are downloaded from."""

    def load(self) -> Dataset:
        """Images (N, 1, 28, 28). Raises DatasetError, which names the file that is missing or damaged."""
        train, test = self._split("train"), self._split("t10k")
        return build_dataset(self.name, train, test, CLASSES)

    def availability(self) -> Availability:
        folder = self._local_folder()
        missing = [name for name in SHA256 if _find(folder, name) is None]
        if not missing:
            return Availability(self.name, True, str(folder), "")
        fetched = " (or let the first run download 30 MB)" if folder == self._cache_folder() else ""
        return Availability(self.name, False, f"no {missing[0]} in {folder}", _REMEDY + fetched)

    def _split(self, prefix: str) -> Split:
        images_path = self._file(f"{prefix}-images-idx3-ubyte.gz")
        labels_path = self._file(f"{prefix}-labels-idx1-ubyte.gz")
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DatasetError(
                f"{images_path} has {len(images)} images, but {labels_path} has {len(labels)} labels"
            )
        if len(labels) and labels.max() >= len(CLASSES):
            at = int(np.argmax(labels >= len(CLASSES)))
            raise DatasetError(f"{labels_path}: label {labels[at]} at position {at} is out of range 0 to 9")
        return Split(images=images[:, np.newaxis], labels=labels.astype(np.int32))

    def _file(self, name: str) -> Path:
        folder = self._local_folder()
        path = _find(folder, name)
        if path is not None:
            return path
        if folder != self._cache_folder():
            raise DatasetError(f"{folder / name}: no such file: {_REMEDY}")
        try:
            return fetch(f"{self.url.rstrip('/')}/{name}", folder / name, SHA256[name])
        except DatasetError as error:
            raise DatasetError(f"{error}: {_REMEDY}") from error

    def _local_folder(self) -> Path:
        if self.root is not None:
            return Path(self.root)
        return PACKAGED_ROOT if PACKAGED_ROOT.is_dir() else self._cache_folder()

    def _cache_folder(self) -> Path:
        return Path(self.cache_dir) / "fashion-mnist"


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / name.removesuffix(".gz"))
    return next((path for path in candidates if path.is_file()), None)
