"""Image files to one .npy file of uint8 pixels, decoded and resized in parallel."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dahl.datasets.base import DatasetError

if TYPE_CHECKING:
    from PIL import Image

_BLOCK_BYTES = 1 << 22
_BLOCK_IMAGES = 64
# Pillow's other modes (16-bit grey, floats) would be clipped to 255 by a conversion to 8 bits.
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


@dataclass(frozen=True)
class PixelFormat:
    """What every image becomes: uint8 (channels, height, width); 1 channel is luma, 3 are RGB."""

    channels: int
    height: int
    width: int

    @property
    def image_bytes(self) -> int:
        return self.channels * self.height * self.width

    @property
    def block_images(self) -> int:
        """How many images a thread decodes at a time."""
        return max(1, min(_BLOCK_IMAGES, _BLOCK_BYTES // self.image_bytes))


def write_images(paths: Sequence[Path], target: Path, pixel_format: PixelFormat, workers: int) -> None:
    """Decode `paths` into `target`, a .npy file of uint8 (N, channels, height, width), with a progress bar.

    Threads rather than processes: Pillow frees the GIL while it decodes and resizes, which is where the time
    of a photograph goes, and neither a fork under StarPU's threads nor a second start of the user's script is
    safe. (Images of some 50 x 50 pixels spend their 0.2 ms in Python and gain nothing.) Each thread writes
    its blocks in place, so that memory holds a block per thread whatever the number of images.
    Raises DatasetError for an image that cannot be decoded, OSError where the file cannot be written.
    """
    from tqdm import tqdm

    shape = (len(paths), pixel_format.channels, pixel_format.height, pixel_format.width)
    step = pixel_format.block_images
    with target.open("wb") as stream, ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.flush()
        offset = stream.tell()
        # Reserved before it is written, so that a full disk is an error at once.
        os.posix_fallocate(stream.fileno(), 0, offset + len(paths) * pixel_format.image_bytes)
        futures = {
            pool.submit(
                _write_block,
                paths[start : start + step],
                stream.fileno(),
                offset + start * pixel_format.image_bytes,
                pixel_format,
            )
            for start in range(0, len(paths), step)
        }
        try:
            with tqdm(total=len(paths), unit="image", desc=target.stem, disable=None) as bar:
                for future in as_completed(futures):
                    bar.update(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_block(paths: Sequence[Path], descriptor: int, offset: int, pixel_format: PixelFormat) -> int:
    block = np.empty((len(paths), pixel_format.channels, pixel_format.height, pixel_format.width), np.uint8)
    for at, path in enumerate(paths):
        block[at] = decode_image(path, pixel_format)
    data = block.reshape(-1).data
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
    return len(paths)


def decode_image(path: Path, pixel_format: PixelFormat) -> npt.NDArray[np.uint8]:
    """One PNG or JPEG file as uint8 (channels, height, width).

    Turned upright as its EXIF data say, stretched to the size with an antialiased bilinear filter;
    transparency is dropped. Raises DatasetError, which names the file, for one that is damaged, of another
    kind or not 8 bits deep.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                raise DatasetError(
                    f"{path}: pixels of mode {image.mode}, not 8 bits deep: convert the image first"
                )
            image.load()
            upright = _without_palette(ImageOps.exif_transpose(image))
            converted = upright.convert("L" if pixel_format.channels == 1 else "RGB")
            size = (pixel_format.width, pixel_format.height)
            pixels = np.asarray(converted.resize(size, Image.Resampling.BILINEAR))
    except Image.UnidentifiedImageError as error:
        raise DatasetError(f"{path}: not a PNG or JPEG image") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: the image cannot be decoded ({error})") from error
    return pixels[np.newaxis] if pixel_format.channels == 1 else pixels.transpose(2, 0, 1)


def _without_palette(image: Image.Image) -> Image.Image:
    # A palette with transparency converts through RGBA; straight to RGB, Pillow warns.
    return image.convert("RGBA") if image.mode in ("P", "PA") and "transparency" in image.info else image
