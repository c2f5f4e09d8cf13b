"""Which image files make up a data set, and their labels: from class folders or a CSV file of labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dahl.datasets.base import DatasetError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class LabelledFile:
    """An image file with the name of its class."""

    path: Path
    label: str


@dataclass(frozen=True)
class ImageListing:
    """The files of both splits, and the classes: those of the train split, in order."""

    train: tuple[LabelledFile, ...]
    test: tuple[LabelledFile, ...]
    classes: tuple[str, ...]

    def label_indices(self, files: Sequence[LabelledFile]) -> npt.NDArray[np.int32]:
        """Each file's class as an index into `classes`, int32 (N,)."""
        index = {name: at for at, name in enumerate(self.classes)}
        return np.fromiter((index[file.label] for file in files), np.int32, len(files))


def list_class_folders(root: Path, test_fraction: float, seed: int) -> ImageListing:
    """List root/train/<class>/ and root/test/<class>/, or split root/<class>/ by a seed.

    Hidden files are skipped; any other file in a class folder must be a PNG or JPEG, so that none is lost
    unnoticed. Raises DatasetError.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder: set dataset.root to the folder of images")
    present = [name for name in _SPLITS if (root / name).is_dir()]
    if not present:
        return split_by_seed(root, _scan_classes(root), test_fraction, seed)
    if len(present) == 1:
        (absent,) = set(_SPLITS) - set(present)
        raise DatasetError(
            f"{root}: has {present[0]}/ but no {absent}/: add it,"
            f" or set dataset.root={root / present[0]} for a split by test_fraction"
        )
    return _checked(root, _scan_classes(root / "train"), _scan_classes(root / "test"))


def list_csv(root: Path, labels: Path, test_fraction: float, seed: int) -> ImageListing:
    """List the rows of a CSV file with the columns file (relative to `root`), label and, if given, split.

    `split` is train or test; without that column the split is by a seed.
    Raises DatasetError, which names the line.
    """
    rows = _read_rows(labels)
    seen: dict[str, int] = {}
    splits: dict[str, list[LabelledFile]] = {name: [] for name in _SPLITS}
    for line, row in rows:
        at = f"{labels}, line {line}"
        name = row["file"]
        if name in seen:
            raise DatasetError(f"{at}: {name!r} is already in line {seen[name]}")
        seen[name] = line
        if not row["label"]:
            raise DatasetError(f"{at}: the label is empty")
        split = row.get("split", "train")
        if split not in splits:
            raise DatasetError(f"{at}: unknown split {split!r}: it must be train or test")
        if not (root / name).is_file():
            raise DatasetError(f"{at}: no such file: {root / name}")
        splits[split].append(LabelledFile(root / name, row["label"]))
    if rows and "split" in rows[0][1]:
        return _checked(labels, splits["train"], splits["test"])
    return split_by_seed(labels, splits["train"], test_fraction, seed)


def split_by_seed(where: Path, files: list[LabelledFile], test_fraction: float, seed: int) -> ImageListing:
    """Take about `test_fraction` of each class (never all of it) for the test split; same seed, same split.

    A class's choice depends on the seed, its position among the classes and its number of files alone.
    """
    by_class: dict[str, list[LabelledFile]] = {}
    for file in files:
        by_class.setdefault(file.label, []).append(file)
    train: list[LabelledFile] = []
    test: list[LabelledFile] = []
    for index, name in enumerate(class_order(by_class)):
        members = by_class[name]
        test_count = min(round(len(members) * test_fraction), len(members) - 1)
        chosen = set(np.random.default_rng([seed, index]).permutation(len(members))[:test_count].tolist())
        for at, file in enumerate(members):
            (test if at in chosen else train).append(file)
    if files and not test:
        raise DatasetError(
            f"{where}: {len(files)} images in {len(by_class)} classes are too few for a test split of"
            f" {test_fraction:g}: raise dataset.test_fraction or add images"
        )
    return _checked(where, train, test)


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted by name, or by value where every name is a number (so that 10 comes after 9)."""
    distinct = set(names)
    if all(name.isascii() and name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def _checked(where: Path, train: Sequence[LabelledFile], test: Sequence[LabelledFile]) -> ImageListing:
    if not train and not test:
        raise DatasetError(f"{where}: there are no images")
    for name, files in zip(_SPLITS, (train, test), strict=True):
        if not files:
            raise DatasetError(f"{where}: there are no {name} images")
    classes = class_order(file.label for file in train)
    if len(classes) < 2:
        raise DatasetError(f"{where}: there is one class only ({classes[0]!r}): at least two are needed")
    stranger = next((file for file in test if file.label not in set(classes)), None)
    if stranger is not None:
        raise DatasetError(
            f"{stranger.path}: its class {stranger.label!r} is not among those of the train split:"
            f" {', '.join(classes)}"
        )
    return ImageListing(tuple(train), tuple(test), classes)


def _scan_classes(folder: Path) -> list[LabelledFile]:
    names = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise DatasetError(
            f"{folder}: there are no class folders: one folder of PNG or JPEG files per class is needed"
        )
    return [file for name in names for file in _scan_class(folder / name)]


def _scan_class(folder: Path) -> list[LabelledFile]:
    files = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if not entry.is_file():
            raise DatasetError(f"{path}: is not a file: a class folder may hold image files only")
        if path.suffix.lower() not in _SUFFIXES:
            raise DatasetError(f"{path}: is neither .png nor .jpg nor .jpeg: convert it or move it away")
        files.append(LabelledFile(path, folder.name))
    if not files:
        raise DatasetError(f"{folder}: the class folder is empty")
    return files


def _read_rows(labels: Path) -> list[tuple[int, dict[str, str]]]:
    import csv

    rows: list[tuple[int, dict[str, str]]] = []
    try:
        with labels.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = list(reader.fieldnames or [])
            _check_columns(labels, columns)
            for row in reader:
                if None in row or None in row.values():
                    raise DatasetError(
                        f"{labels}, line {reader.line_num}: expected {len(columns)} fields: {columns}"
                    )
                rows.append((reader.line_num, row))
    except OSError as error:
        raise DatasetError(f"{labels}: cannot be read ({error.strerror}): check dataset.labels") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{labels}: not a CSV file in UTF-8 ({error})") from error
    return rows


def _check_columns(labels: Path, columns: list[str]) -> None:
    known = ("file", "label", "split")
    for name in columns:
        if name not in known:
            raise DatasetError(
                f"{labels}: unknown column {name!r}: the columns are file, label and, if wanted, split"
            )
    for name in ("file", "label"):
        if columns.count(name) != 1:
            raise DatasetError(
                f"{labels}: exactly one column {name!r} is needed, found the columns {columns}"
            )
    if columns.count("split") > 1:
        raise DatasetError(f"{labels}: the column 'split' is there more than once")
