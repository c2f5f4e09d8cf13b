import errno
import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from dahl.datasets import DatasetError, ImageFolder
from dahl.datasets.image_decoding import PixelFormat, decode_image
from dahl.datasets.image_listing import class_order


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(seed, height=6, width=5, channels=3):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def split_root(tmp_path):
    """3 + 2 train and 1 + 1 test images of 6 x 5, in the classes cat and dog."""
    root = tmp_path / "photos"
    for seed, name in enumerate(["train/cat/0", "train/cat/1", "train/cat/2", "train/dog/0", "train/dog/1"]):
        save(root / f"{name}.png", noise(seed))
    save(root / "test" / "cat" / "0.PNG", noise(10))
    save(root / "test" / "dog" / "0.png", noise(11))
    (root / "train" / "cat" / ".hidden").touch()
    (root / "README.txt").touch()
    return root


@pytest.fixture
def flat_root(tmp_path):
    root = tmp_path / "flat"
    for label, count in (("a", 10), ("b", 5), ("c", 1)):
        for index in range(count):
            save(root / label / f"{index}.png", noise([ord(label), index]))
    return root


def source(root, **changes):
    defaults = {"image_size": (6, 5), "cache_dir": root.parent / "cache", "decode_threads": 2}
    return ImageFolder(root=root, **(defaults | changes))


def test_class_folders_are_read_pixel_for_pixel_at_their_own_size(split_root):
    data = source(split_root).load()
    expected = np.stack([noise(seed).transpose(2, 0, 1) for seed in range(5)])
    np.testing.assert_array_equal(data.train.images, expected)
    np.testing.assert_array_equal(data.test.images, np.stack([noise(s).transpose(2, 0, 1) for s in (10, 11)]))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert data.classes == ("cat", "dog")
    scaled = expected / 255.0
    np.testing.assert_allclose(data.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_the_images_are_a_read_only_memory_map(split_root):
    images = source(split_root).load().train.images
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert images.flags.c_contiguous


def test_resizing_to_one_pixel_averages_the_image_under_a_bilinear_window(tmp_path):
    # Down to 1 x 1, a triangle as wide as twice the image weighs the pixels: a linear ramp keeps its middle.
    ramp = np.repeat(np.arange(0, 101, 10, dtype=np.uint8)[np.newaxis], 11, axis=0)
    path = save(tmp_path / "ramp.png", ramp)
    assert decode_image(path, PixelFormat(1, 1, 1)).tolist() == [[[50]]]


def test_channels_convert_colour_to_luma_and_grey_to_three_equal_channels(tmp_path):
    colour = save(tmp_path / "colour.png", np.full((4, 4, 3), (200, 100, 50), np.uint8))
    luma = decode_image(colour, PixelFormat(1, 4, 4))
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
    assert luma.shape == (1, 4, 4)
    assert abs(int(luma[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1
    grey = save(tmp_path / "grey.png", noise(0, channels=1))
    np.testing.assert_array_equal(
        decode_image(grey, PixelFormat(3, 6, 5)), np.stack([noise(0, channels=1)] * 3)
    )


def test_jpeg_comes_close_to_its_pixels(tmp_path):
    smooth = np.add.outer(np.arange(16) * 4, np.arange(16) * 8).astype(np.uint8)
    path = save(tmp_path / "smooth.jpg", smooth, quality=95)
    decoded = decode_image(path, PixelFormat(1, 16, 16))[0]
    assert np.abs(decoded.astype(int) - smooth).max() <= 4


def test_an_image_is_turned_upright_as_its_exif_says(tmp_path):
    pixels = noise(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = save(tmp_path / "turned.png", pixels, exif=exif)
    turned = np.rot90(pixels, k=-1).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(path, PixelFormat(3, 5, 6)), turned)


def test_palettes_with_transparency_decode_without_a_warning(tmp_path):
    image = Image.new("P", (3, 2))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    assert decode_image(tmp_path / "palette.png", PixelFormat(3, 2, 3))[:, 0, 0].tolist() == [10, 20, 30]


def test_a_16_bit_image_is_refused_rather_than_clipped(tmp_path):
    path = save(tmp_path / "deep.png", np.full((4, 4), 1000, np.uint16))
    with pytest.raises(DatasetError, match=r"deep\.png: pixels of mode I;16, not 8 bits deep"):
        decode_image(path, PixelFormat(1, 4, 4))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_cut_anywhere_is_an_error_that_names_it(tmp_path, suffix):
    path = save(tmp_path / f"cut.{suffix}", noise(0, 40, 40))
    whole = path.read_bytes()
    for kept in range(0, len(whole) - 40, 97):
        path.write_bytes(whole[:kept])
        with pytest.raises(DatasetError, match=rf"cut\.{suffix}"):
            decode_image(path, PixelFormat(3, 8, 8))


def test_another_format_under_the_name_of_a_png_is_an_error(tmp_path):
    path = save(tmp_path / "really.png", noise(0), format="GIF")
    with pytest.raises(DatasetError, match=r"really\.png: not a PNG or JPEG image"):
        decode_image(path, PixelFormat(3, 8, 8))


def test_an_undecodable_image_ends_the_load_and_leaves_no_cache(split_root):
    bad = split_root / "train" / "dog" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"train/dog/1\.png"):
        source(split_root).load()
    assert [path.name for path in (split_root.parent / "cache" / "image-folder").iterdir()] == [".lock"]


def test_many_blocks_on_many_threads_keep_their_order(tmp_path):
    root = tmp_path / "many"
    for index in range(300):
        for split in ("train", "test"):
            pixels = np.full((2, 2), index % 256 if split == "train" else 255 - index % 256, np.uint8)
            save(root / split / f"{index % 2}" / f"{index:03}.png", pixels)
    data = source(root, image_size=(2, 2), channels=1, decode_threads=8).load()
    expected = [index % 256 for parity in (0, 1) for index in range(parity, 300, 2)]
    assert data.train.images[:, 0, 1, 1].tolist() == expected
    assert data.test.images[:, 0, 0, 0].tolist() == [255 - value for value in expected]


def test_decoding_and_statistics_hold_a_fraction_of_the_set_in_memory(tmp_path):
    root = tmp_path / "large"
    for index in range(80):
        save(root / f"{index % 2}" / f"{index}.png", noise(index, 3, 3))
    tracemalloc.start()
    data = source(root, image_size=(512, 512)).load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.train.images.nbytes == 64 * 3 * 512 * 512
    assert peak < data.train.images.nbytes / 2


def test_a_full_disk_ends_the_load_with_the_way_out_and_leaves_no_cache(split_root, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DatasetError, match=r"No space left on device.*: set cache_dir to another folder"):
        source(split_root).load()
    assert [path.name for path in (split_root.parent / "cache" / "image-folder").iterdir()] == [".lock"]


def test_a_second_load_decodes_nothing(split_root, monkeypatch):
    first = source(split_root).load()
    monkeypatch.setattr("dahl.datasets.image_folder.write_images", lambda *_: pytest.fail("decoded again"))
    again = source(split_root).load()
    np.testing.assert_array_equal(again.train.images, first.train.images)
    assert (again.mean, again.std) == (first.mean, first.std)


def test_a_changed_file_and_other_parameters_are_decoded_anew(split_root):
    source(split_root).load()
    path = save(split_root / "train" / "cat" / "0.png", noise(99))
    os.utime(path, ns=(1, 1))
    assert (source(split_root).load().train.images[0] == noise(99).transpose(2, 0, 1)).all()
    assert source(split_root, image_size=(3, 4)).load().image_shape == (3, 3, 4)
    assert source(split_root, channels=1).load().image_shape == (1, 6, 5)


def test_a_damaged_cache_is_named_with_the_way_out(split_root):
    source(split_root).load()
    (file,) = (split_root.parent / "cache" / "image-folder").glob("*/train.npy")
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 1)
    with pytest.raises(DatasetError, match=r"train\.npy: damaged .* delete .* and run again"):
        source(split_root).load()


def test_a_seeded_split_is_stratified_reproducible_and_whole(flat_root):
    first, again, other = (source(flat_root, seed=seed).load() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert np.bincount(first.train.labels).tolist() == [8, 4, 1]
    assert np.bincount(first.test.labels).tolist() == [2, 1]
    assert not np.array_equal(first.test.images, other.test.images)
    pixels = np.concatenate([first.train.images, first.test.images])
    assert len(np.unique(pixels.reshape(16, -1), axis=0)) == 16


def test_a_class_is_never_held_out_whole(flat_root):
    data = source(flat_root, test_fraction=0.99).load()
    assert np.bincount(data.train.labels).tolist() == [1, 1, 1]


def test_a_fraction_too_small_for_one_test_image_is_an_error(flat_root):
    with pytest.raises(DatasetError, match=r"too few for a test split of 0\.01"):
        source(flat_root, test_fraction=0.01).load()


def test_classes_that_are_numbers_are_ordered_by_value():
    assert class_order(["10", "9", "1"]) == ("1", "9", "10")
    assert class_order(["10", "9", "x"]) == ("10", "9", "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train" / "cat" / "notes.txt").touch(), r"cat/notes\.txt: is neither \.png"),
        (lambda root: (root / "train" / "cat" / "deeper").mkdir(), r"cat/deeper: is not a file"),
        (lambda root: (root / "train" / "eel").mkdir(), r"train/eel: the class folder is empty"),
        (lambda root: (root / "train").rename(root / "training"), r"has test/ but no train/"),
        (lambda root: save(root / "test" / "eel" / "0.png", noise(0)), r"'eel' is not among .*: cat, dog"),
    ],
)
def test_a_folder_that_is_laid_out_wrongly_is_named(split_root, change, message):
    change(split_root)
    with pytest.raises(DatasetError, match=message):
        source(split_root).load()


def test_missing_empty_and_one_class_folders_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"absent: no such folder: set dataset\.root"):
        source(tmp_path / "absent").load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: there are no class folders"):
        source(tmp_path / "empty").load()
    for index in range(5):
        save(tmp_path / "one" / "cat" / f"{index}.png", noise(index))
    with pytest.raises(DatasetError, match="one: there is one class only \\('cat'\\)"):
        source(tmp_path / "one").load()


def test_a_csv_of_labels_with_splits_is_followed(split_root):
    (split_root / "labels.csv").write_text(
        "file,label,split\ntrain/dog/0.png,10,train\ntrain/cat/1.png,9,train\ntest/cat/0.PNG,9,test\n"
    )
    data = source(split_root, labels="labels.csv").load()
    assert data.classes == ("9", "10")
    assert data.train.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(data.train.images[1], noise(1).transpose(2, 0, 1))
    np.testing.assert_array_equal(data.test.images[0], noise(10).transpose(2, 0, 1))


def test_a_csv_without_splits_is_split_by_the_seed(flat_root):
    names = [f"{label}/{index}.png" for label, count in (("a", 10), ("b", 5)) for index in range(count)]
    (flat_root / "labels.csv").write_text("label,file\n" + "".join(f"{name[0]},{name}\n" for name in names))
    data = source(flat_root, labels="labels.csv").load()
    assert np.bincount(data.train.labels).tolist() == [8, 4]
    np.testing.assert_array_equal(data.train.images, source(flat_root).load().train.images[:12])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\ntrain/cat/0.png,a\nabsent.png,b\n",
            r"labels\.csv, line 3: no such file: .*absent\.png",
        ),
        ("file,label,colour\n", "unknown column 'colour'"),
        ("file,split\n", "exactly one column 'label' is needed"),
        ("file,file,label\n", "exactly one column 'file' is needed"),
        ("", "exactly one column 'file' is needed"),
        ("file,label\n", "there are no images"),
        ("file,label\ntrain/cat/0.png\n", "line 2: expected 2 fields"),
        ("file,label\ntrain/cat/0.png,a,b\n", "line 2: expected 2 fields"),
        ("file,label\ntrain/cat/0.png,\n", "line 2: the label is empty"),
        ("file,label,split\ntrain/cat/0.png,a,dev\n", "line 2: unknown split 'dev'"),
        ("file,label,split\ntrain/cat/0.png,a,train\n", "there are no test images"),
        ("file,label\ntrain/cat/0.png,a\ntrain/cat/0.png,b\n", "line 3: .* is already in line 2"),
        ('file,label\n"train/cat/0.png,a\n', "not a CSV file"),
        ("file,label\ntrain/cat/0.png,\udcff\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_wrong_csv_is_named_with_its_line(split_root, text, message):
    (split_root / "labels.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(DatasetError, match=message):
        source(split_root, labels="labels.csv").load()


def test_an_absent_csv_is_named(split_root):
    with pytest.raises(DatasetError, match=r"none\.csv: cannot be read .*dataset\.labels"):
        source(split_root, labels="none.csv").load()


def test_availability_of_a_folder_looks_at_its_root(split_root):
    assert source(split_root).availability().found
    missing = source(split_root, labels="none.csv").availability()
    assert not missing.found
    assert "none.csv" in missing.where


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", (0, 5)),
        ("image_size", (5,)),
        ("channels", 2),
        ("test_fraction", 0),
        ("test_fraction", 1.0),
        ("seed", -1),
        ("decode_threads", 0),
    ],
)
def test_a_parameter_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        ImageFolder(root="photos", **{field: value})
