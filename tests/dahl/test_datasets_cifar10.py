import hashlib
import io
import tarfile

import numpy as np
import pytest

from dahl.datasets import Cifar10, DatasetError
from tests.dahl.serving import served

RECORDS = 4
FILES = (*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin")


@pytest.fixture(autouse=True)
def _direct_loopback(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def batches():
    """For each file its labels and pixels, and the bytes that the format makes of them."""
    random = np.random.default_rng(0)
    made = {}
    for name in FILES:
        labels = random.integers(0, 10, RECORDS, dtype=np.uint8)
        pixels = random.integers(0, 256, (RECORDS, 3, 32, 32), dtype=np.uint8)
        records = [bytes([label]) + image.tobytes() for label, image in zip(labels, pixels, strict=True)]
        made[name] = (labels, pixels, b"".join(records))
    return made


def make_archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def members_of(batches):
    return [
        ("cifar-10-batches-bin/batches.meta.txt", b"airplane\n"),
        *((f"cifar-10-batches-bin/{name}", batches[name][2]) for name in FILES),
    ]


def load(tmp_path, sha256, archive="cifar.tar.gz"):
    with served(tmp_path) as (url, requested):
        source = Cifar10(
            cache_dir=tmp_path / "cache", url=f"{url}/{archive}", sha256=sha256, records_per_file=RECORDS
        )
        return source, source.load(), requested


@pytest.fixture
def root(tmp_path, batches):
    folder = tmp_path / "root"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(batches[name][2])
    return folder


def test_an_archive_is_downloaded_unpacked_once_and_read(tmp_path, batches):
    sha256 = make_archive(tmp_path / "cifar.tar.gz", members_of(batches))
    source, data, requested = load(tmp_path, sha256)
    np.testing.assert_array_equal(data.train.images, np.concatenate([batches[name][1] for name in FILES[:5]]))
    np.testing.assert_array_equal(data.train.labels, np.concatenate([batches[name][0] for name in FILES[:5]]))
    np.testing.assert_array_equal(data.test.images, batches["test_batch.bin"][1])
    scaled = data.train.images / 255.0
    np.testing.assert_allclose(data.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)
    assert requested == ["/cifar.tar.gz"]
    entry = source.availability()
    assert entry.found
    # The server is gone: this comes from the unpacked files.
    assert source.load().mean == data.mean
    (folder,) = (path for path in (tmp_path / "cache" / "cifar10").iterdir() if path.is_dir())
    assert entry.where == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_members_with_paths_that_lead_out_write_nothing_outside(tmp_path, batches):
    members = [("../../escaped.bin", b"x"), (str(tmp_path / "escaped-too.bin"), b"x"), *members_of(batches)]
    sha256 = make_archive(tmp_path / "cifar.tar.gz", members)
    load(tmp_path, sha256)
    assert list(tmp_path.rglob("*escaped*")) == []


def test_a_link_in_the_archive_is_not_followed(tmp_path, batches):
    secret = tmp_path / "secret"
    secret.write_bytes(batches["test_batch.bin"][2])
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as tar:
        for name, content in members_of(batches)[:-1]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    sha256 = hashlib.sha256((tmp_path / "cifar.tar.gz").read_bytes()).hexdigest()
    with pytest.raises(DatasetError, match=r"no test_batch\.bin"):
        load(tmp_path, sha256)


def test_an_archive_with_another_checksum_is_refused(tmp_path, batches):
    make_archive(tmp_path / "cifar.tar.gz", members_of(batches))
    with pytest.raises(DatasetError, match=r"cifar\.tar\.gz: .*damaged.*dataset\.root"):
        load(tmp_path, "0" * 64)


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_truncated_archive_leaves_nothing_behind(tmp_path, batches, kept):
    archive = tmp_path / "cifar.tar.gz"
    make_archive(archive, members_of(batches))
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * kept)])
    with pytest.raises(DatasetError, match=r"not a sound tar\.gz archive|has no test_batch"):
        load(tmp_path, hashlib.sha256(archive.read_bytes()).hexdigest())
    assert [path.name for path in (tmp_path / "cache" / "cifar10").iterdir()] == [".lock"]


def test_something_that_is_no_archive_is_an_error(tmp_path):
    (tmp_path / "cifar.tar.gz").write_bytes(b"<html>moved</html>")
    with pytest.raises(DatasetError, match=r"not a sound tar\.gz archive"):
        load(tmp_path, hashlib.sha256(b"<html>moved</html>").hexdigest())


def test_a_root_is_read_where_it_is(root, batches):
    data = Cifar10(root=root, records_per_file=RECORDS).load()
    np.testing.assert_array_equal(data.test.images, batches["test_batch.bin"][1])


def test_a_file_of_another_size_is_named_with_both_sizes(root, batches):
    (root / "data_batch_3.bin").write_bytes(batches["data_batch_3.bin"][2][:-1])
    with pytest.raises(DatasetError, match=r"data_batch_3\.bin: 12291 bytes, expected 12292"):
        Cifar10(root=root, records_per_file=RECORDS).load()


def test_a_label_out_of_range_is_named_with_its_record(root, batches):
    content = bytearray(batches["data_batch_2.bin"][2])
    content[2 * 3073] = 10
    (root / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(DatasetError, match=r"data_batch_2\.bin: label 10 in record 2"):
        Cifar10(root=root, records_per_file=RECORDS).load()


def test_a_missing_file_is_named_with_the_way_out(root):
    (root / "test_batch.bin").unlink()
    source = Cifar10(root=root, records_per_file=RECORDS)
    with pytest.raises(DatasetError, match=r"test_batch\.bin: cannot be read .*dataset\.root"):
        source.load()
    assert not source.availability().found


def test_records_per_file_must_be_positive():
    with pytest.raises(ValueError, match="records_per_file must be at least 1, got 0"):
        Cifar10(records_per_file=0)
