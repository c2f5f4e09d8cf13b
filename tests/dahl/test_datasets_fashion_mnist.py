import gzip
import hashlib
import struct
import threading

import numpy as np
import pytest

from dahl.datasets import DatasetError, FashionMnist
from dahl.datasets import fashion_mnist as module
from dahl.datasets.cache import fetch
from tests.dahl.serving import served

packaged = pytest.mark.skipif(
    not module.PACKAGED_ROOT.is_dir(), reason="the package dataset-fashion-mnist is not installed"
)

# From the README of https://github.com/zalandoresearch/fashion-mnist.
PUBLISHED_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
# When the published files were compressed, in seconds since 1970.
PUBLISHED_GZIP_TIME_S = {"train": 1504176606, "t10k": 1504176627}


@pytest.fixture(autouse=True)
def _direct_loopback(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def write_idx(path, array):
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    random = np.random.default_rng(0)
    for prefix, count in (("train", 12), ("t10k", 5)):
        write_idx(
            folder / f"{prefix}-images-idx3-ubyte.gz", random.integers(0, 256, (count, 4, 5), dtype=np.uint8)
        )
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return folder


@packaged
def test_the_packaged_set_has_its_published_sizes_and_statistics():
    data = FashionMnist().load()
    assert data.train.images.shape == (60_000, 1, 28, 28)
    assert data.test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    scaled = data.train.images / 255.0
    assert data.mean == pytest.approx([scaled.mean()], rel=1e-12)
    assert data.std == pytest.approx([scaled.std()], rel=1e-12)
    assert data.classes[data.train.labels[0]] == "Ankle boot"


def published_file(name: str) -> bytes:
    """The published file: the packaged one's stream behind a header with a name and another time."""
    stream = (module.PACKAGED_ROOT / name).read_bytes()[10:]
    time_s = PUBLISHED_GZIP_TIME_S[name.partition("-")[0]]
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", time_s) + b"\x00\x03"
    return header + name.removesuffix(".gz").encode() + b"\x00" + stream


@packaged
def test_the_published_files_are_downloaded_and_read_as_the_packaged_ones(tmp_path, monkeypatch, capfd):
    expected = FashionMnist().load()
    for name, md5 in PUBLISHED_MD5.items():
        content = published_file(name)
        assert hashlib.md5(content).hexdigest() == md5
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(module, "PACKAGED_ROOT", tmp_path / "absent")
    cache = tmp_path / "cache"
    with served(tmp_path) as (url, requested):
        source = FashionMnist(cache_dir=cache, url=url)
        assert not source.availability().found
        data = source.load()
        source.load()
    assert sorted(requested) == sorted(f"/{name}" for name in PUBLISHED_MD5)
    assert source.availability().found
    np.testing.assert_array_equal(data.train.images, expected.train.images)
    np.testing.assert_array_equal(data.test.labels, expected.test.labels)
    assert "100%" in capfd.readouterr().err
    assert sorted(path.name for path in (cache / "fashion-mnist").iterdir()) == [
        ".lock",
        *sorted(PUBLISHED_MD5),
    ]


def test_a_download_with_another_checksum_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACKAGED_ROOT", tmp_path / "absent")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    with (
        served(tmp_path) as (url, _),
        pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz: .*damaged.*dataset-fashion-mnist"),
    ):
        FashionMnist(cache_dir=tmp_path / "cache", url=url).load()
    assert [path.name for path in (tmp_path / "cache" / "fashion-mnist").iterdir()] == [".lock"]


def test_an_address_that_lacks_the_file_or_does_not_answer_is_named(tmp_path):
    with (
        served(tmp_path) as (url, _),
        pytest.raises(DatasetError, match=r"/absent\.gz: cannot be downloaded \(404"),
    ):
        fetch(f"{url}/absent.gz", tmp_path / "cache" / "absent.gz", "0" * 64)
    with pytest.raises(DatasetError, match=r"absent\.gz: cannot be downloaded"):
        fetch(f"{url}/absent.gz", tmp_path / "cache" / "absent.gz", "0" * 64)


def test_concurrent_loads_download_a_file_once(tmp_path):
    content = bytes(range(256)) * 4000
    (tmp_path / "data.bin").write_bytes(content)
    target = tmp_path / "cache" / "data.bin"
    with served(tmp_path) as (url, requested):
        arguments = (f"{url}/data.bin", target, hashlib.sha256(content).hexdigest())
        threads = [threading.Thread(target=fetch, args=arguments) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    assert target.read_bytes() == content
    assert requested == ["/data.bin"]


def test_uncompressed_files_are_read_too(root):
    compressed = FashionMnist(root=root).load()
    for path in list(root.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = FashionMnist(root=root).load()
    np.testing.assert_array_equal(plain.train.images, compressed.train.images)
    assert plain.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_a_given_root_that_lacks_a_file_is_not_replaced_by_a_download(root):
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    source = FashionMnist(root=root)
    with pytest.raises(DatasetError, match=r"root/t10k-labels-idx1-ubyte\.gz: no such file: .*dataset\.root"):
        source.load()
    entry = source.availability()
    assert not entry.found
    assert "t10k-labels-idx1-ubyte.gz" in entry.where
    assert "dataset-fashion-mnist" in entry.remedy


def test_images_and_labels_of_different_number_name_both_files(root):
    write_idx(root / "train-labels-idx1-ubyte.gz", np.zeros(11, np.uint8))
    with pytest.raises(
        DatasetError, match=r"train-images.* has 12 images, but .*train-labels.* has 11 labels"
    ):
        FashionMnist(root=root).load()


def test_a_label_out_of_range_is_named_with_its_position(root):
    write_idx(root / "t10k-labels-idx1-ubyte.gz", np.array([0, 1, 9, 10, 250], np.uint8))
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte\.gz: label 10 at position 3"):
        FashionMnist(root=root).load()


def test_swapped_images_and_labels_are_told_by_their_magic(root):
    images, labels = root / "train-images-idx3-ubyte.gz", root / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(images.read_bytes())
    with pytest.raises(DatasetError, match=r"train-labels-idx1-ubyte\.gz: bad magic 0x00000803"):
        FashionMnist(root=root).load()


def test_a_truncated_file_is_named(root):
    path = root / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz: .*truncated"):
        FashionMnist(root=root).load()


def test_a_file_without_images_is_an_empty_split(root):
    write_idx(root / "train-images-idx3-ubyte.gz", np.zeros((0, 4, 5), np.uint8))
    write_idx(root / "train-labels-idx1-ubyte.gz", np.zeros(0, np.uint8))
    with pytest.raises(DatasetError, match="train split is empty"):
        FashionMnist(root=root).load()
