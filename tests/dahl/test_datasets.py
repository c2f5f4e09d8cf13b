import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dahl import datasets
from dahl.datasets import Dataset, DatasetError, Split, Synthetic, channel_statistics
from dahl.datasets import base as base_module
from dahl.datasets.cache import make_folder_once

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "dataset").glob("*.yaml"))


def split_of(count: int, shape=(1, 2, 2), classes: int = 2) -> Split:
    images = np.arange(count * int(np.prod(shape)), dtype=np.uint8).reshape(count, *shape)
    return Split(images=images, labels=np.arange(count, dtype=np.int32) % classes)


def dataset_of(train: Split, test: Split, **changes) -> Dataset:
    fields = {"name": "toy", "classes": ("a", "b"), "mean": (0.5,), "std": (0.1,)} | changes
    return Dataset(train=train, test=test, **fields)


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=4, max_dims=4, max_side=7)), st.integers(1, 100))
def test_statistics_are_those_of_numpy_in_float64_whatever_the_block(images, block_pixels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_module, "_BLOCK_PIXELS", block_pixels)
        mean, std = channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=1e-12, atol=1e-15)


def test_statistics_of_a_set_of_many_blocks_need_no_float_copy_of_it():
    import tracemalloc

    images = np.random.default_rng(0).integers(0, 256, (3000, 3, 64, 64), dtype=np.uint8)
    tracemalloc.start()
    mean, std = channel_statistics(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scaled = images / 255.0
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)
    assert peak < images.nbytes * 8 / 10


def test_a_split_refuses_images_that_are_not_contiguous_bytes():
    labels = np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="uint8"):
        Split(images=np.zeros((2, 1, 2, 2), np.float32), labels=labels)
    with pytest.raises(ValueError, match="contiguous"):
        Split(images=np.zeros((2, 2, 2, 1), np.uint8).transpose(0, 3, 1, 2)[:, :, ::-1], labels=labels)
    with pytest.raises(ValueError, match="int32"):
        Split(images=np.zeros((2, 1, 2, 2), np.uint8), labels=labels.astype(np.int64))
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        Split(images=np.zeros((3, 1, 2, 2), np.uint8), labels=labels)


def test_a_data_set_refuses_what_cannot_be_trained_on():
    good = split_of(4)
    with pytest.raises(DatasetError, match="test split is empty"):
        dataset_of(good, split_of(0))
    with pytest.raises(DatasetError, match="train labels run from 0 to 2, but there are 2 classes"):
        dataset_of(split_of(4, classes=3), good)
    with pytest.raises(DatasetError, match="1 x 2 x 2 and test images 1 x 3 x 2"):
        dataset_of(good, split_of(4, shape=(1, 3, 2)))
    with pytest.raises(DatasetError, match="channel 0 has one value"):
        dataset_of(good, good, std=(0.0,))
    assert dataset_of(good, good).image_shape == (1, 2, 2)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 13), (5, 1, 2)])
def test_synthetic_has_any_shape_and_balanced_classes(shape):
    channels, height, width = shape
    data = Synthetic(
        channels=channels, height=height, width=width, classes=4, train_size=42, test_size=9
    ).load()
    assert data.train.images.shape == (42, *shape)
    assert data.test.images.shape == (9, *shape)
    assert data.image_shape == shape
    assert sorted(np.bincount(data.train.labels)) == [10, 10, 11, 11]
    assert sorted(np.bincount(data.test.labels, minlength=4)) == [2, 2, 2, 3]


def test_synthetic_depends_on_its_seed_alone():
    first, again, other = (Synthetic(seed=seed, train_size=100).load() for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.test.labels, again.test.labels)
    assert (first.train.images != other.train.images).mean() > 0.9


def test_synthetic_without_noise_is_one_image_per_class_in_both_splits():
    data = Synthetic(noise=0, classes=3, train_size=30, test_size=6).load()
    pixels = np.concatenate([data.train.images, data.test.images]).reshape(36, -1)
    labels = np.concatenate([data.train.labels, data.test.labels])
    assert len(np.unique(pixels, axis=0)) == 3
    for label in range(3):
        assert len(np.unique(pixels[labels == label], axis=0)) == 1


def test_a_linear_softmax_learns_the_synthetic_classes():
    data = Synthetic(train_size=600, test_size=200, noise=128).load()

    def design(split):
        pixels = (split.images / 255.0 - data.mean[0]) / data.std[0]
        return pixels.reshape(len(pixels), -1)

    images, labels = design(data.train), data.train.labels
    weights = np.zeros((images.shape[1], 10))
    losses = []
    for _ in range(30):
        scores = images @ weights
        scores -= scores.max(axis=1, keepdims=True)
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        losses.append(-np.log(probabilities[np.arange(600), labels]).mean())
        probabilities[np.arange(600), labels] -= 1
        weights -= 0.01 * images.T @ probabilities / 600
    assert losses[0] == pytest.approx(np.log(10))
    assert losses[-1] < 0.5 * losses[0]
    assert ((design(data.test) @ weights).argmax(axis=1) == data.test.labels).mean() > 0.8


@pytest.mark.parametrize(
    ("field", "value"), [("classes", 1), ("train_size", 9), ("channels", 0), ("noise", -1), ("noise", 256)]
)
def test_synthetic_names_a_parameter_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"{field} must be at"):
        Synthetic(**{field: value})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_holds_the_defaults_of_its_class(path):
    config = yaml.safe_load(path.read_text())
    module, _, name = config.pop("_target_").rpartition(".")
    source = getattr(importlib.import_module(module), name)
    assert source.name == path.stem
    if path.stem == "image_folder":
        assert config.pop("root") == "???"
        expected = source(root="photos")
    else:
        expected = source()
    values = dataclasses.asdict(
        source(**({"root": "photos"} if path.stem == "image_folder" else {}), **config)
    )
    assert set(config) <= set(values)
    assert {**values, "cache_dir": None} == {**dataclasses.asdict(expected), "cache_dir": None}
    fields = {field.name for field in dataclasses.fields(source)} - {"root"}
    assert fields == set(config) - {"root"}
    if "cache_dir" in config:
        assert Path(config["cache_dir"]) == expected.cache_dir


def test_every_data_set_has_a_config():
    sources = {
        cls.name for cls in datasets.DatasetSource.__subclasses__() if cls.__module__.startswith("dahl.")
    }
    assert sources == {path.stem for path in CONFIGS}


def test_availability_says_where_or_how_and_makes_nothing(tmp_path):
    entries = {entry.name: entry for entry in datasets.availability(tmp_path / "cache")}
    assert set(entries) == {path.stem for path in CONFIGS}
    assert entries["synthetic"].found
    assert not entries["cifar10"].found
    assert "dataset.root" in entries["cifar10"].remedy
    assert "data_batch_1.bin" in entries["cifar10"].where
    assert "dataset.root=FOLDER" in entries["image_folder"].remedy
    assert list(tmp_path.iterdir()) == []


def test_availability_does_not_raise_for_a_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse)
    (cifar,) = [entry for entry in datasets.availability(tmp_path) if entry.name == "cifar10"]
    assert not cifar.found
    assert "readable" in cifar.remedy


def test_importing_the_package_loads_neither_pooch_nor_pillow_nor_tqdm():
    code = (
        "import sys, dahl.datasets;"
        "print([name for name in ('pooch', 'PIL', 'tqdm', 'requests', 'tarfile') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_folder_that_is_not_finished_is_not_published(tmp_path):
    def interrupted(partial):
        (partial / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_folder_once(tmp_path / "entry", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_a_killed_process_left_is_removed_and_a_finished_folder_is_kept(tmp_path):
    (tmp_path / "entry.partial").mkdir()
    (tmp_path / "entry.partial" / "stale").touch()
    for _ in range(2):
        make_folder_once(tmp_path / "entry", lambda partial: (partial / "whole").touch(exist_ok=False))
    assert [path.name for path in (tmp_path / "entry").iterdir()] == ["whole"]


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"file/cache: cannot be written .* cache_dir"):
        make_folder_once(tmp_path / "file" / "cache" / "entry", lambda partial: None)
