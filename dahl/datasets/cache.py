"""Files that are fetched or made once and kept: checksums, a lock, and publishing by rename."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dahl.datasets.base import DatasetError

DEFAULT_CACHE_DIR = Path(".cache/datasets")
_STALL_S = 30.0


def fetch(url: str, destination: Path, sha256: str) -> Path:
    """Download `url` to `destination`, with a progress bar on standard error, unless it is there already.

    The file appears under its name only whole and with the right checksum, so a file that is there is not
    checked again. Concurrent processes download once: the others wait.
    Raises DatasetError where the address cannot be reached, the checksum differs or the folder cannot be
    written.
    """
    if destination.is_file():
        return destination
    with locked(destination.parent):
        if not destination.is_file():
            download(url, destination, sha256)
    return destination


def download(url: str, destination: Path, sha256: str) -> None:
    """`fetch` without the lock, for a folder that no other process sees. Raises DatasetError."""
    import pooch
    import requests

    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}",
            fname=destination.name,
            path=destination.parent,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=_STALL_S),
        )
    except requests.RequestException as error:
        raise DatasetError(f"{url}: cannot be downloaded ({error})") from error
    except ValueError as error:
        # The only way in which pooch says that a checksum differs.
        raise DatasetError(f"{url}: the download is damaged or has changed ({error})") from error
    except OSError as error:
        raise DatasetError(f"{destination}: cannot be written ({error})") from error


def make_folder_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """`folder`, made by `fill(temporary folder)` if it is not there yet, and published whole by a rename.

    Whatever ends `fill` early (Ctrl-C included) leaves nothing behind; a process killed outright leaves a
    `.partial` folder, which the next call removes. Raises DatasetError where the folder cannot be written.
    """
    if folder.is_dir():
        return folder
    with locked(folder.parent):
        if folder.is_dir():
            return folder
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            fill(partial)
            partial.rename(folder)
        except OSError as error:
            raise DatasetError(
                f"{folder}: cannot be written ({error}): set cache_dir to another folder"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache folder, which is made if need be; the system frees it if the process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise DatasetError(
            f"{folder}: cannot be written ({error.strerror}): set cache_dir to another folder"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
