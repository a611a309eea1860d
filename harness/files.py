"""Atomic file writes, temporary files and folders, and locks between processes."""

import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import StoreError

log = logging.getLogger(__name__)

TEMPORARIES = ".harness-*.tmp"
"""Names of temporary files."""
_LEFTOVER_AGE_S = 86_400.0


def inside(root: Path, path: str) -> Path:
    """Return the relative `path` in the folder `root`. Raises `StoreError` if it is absolute or contains `..`."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise StoreError(f"{path!r} leads out of {root}/")
    return root / path


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that the file is complete or unchanged, even if the process is killed.

    Raises:
        StoreError: The file cannot be written.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files atomically; they are renamed in this order, once all are on disk.

    If the last file exists, all of them do.

    Raises:
        StoreError: A file cannot be written.
    """
    path = Path()
    try:
        with ExitStack() as stack:
            temporaries = {}
            for path, content in contents.items():
                temporaries[path] = stack.enter_context(temporary_file(path.parent))
                temporaries[path].write_bytes(content)
                _sync(temporaries[path])
            for path, temporary in temporaries.items():
                temporary.replace(path)
                _sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def publish(temporary: Path, path: Path) -> Path:
    """Sync the complete file `temporary` to disk, rename it to `path` in the same folder, and return `path`.

    Raises:
        OSError: The file cannot be synced or renamed.
    """
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)
    return path


@contextmanager
def temporary_file(folder: Path, pattern: str = TEMPORARIES) -> Iterator[Path]:
    """Yield the path of a new file to write and then rename; it is removed if it still exists afterwards.

    Args:
        folder: The file's folder, which is created. The first call for it in a process removes its `leftovers`.
        pattern: Pattern of the leftovers' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder, pattern)
    path = folder / TEMPORARIES.replace("*", secrets.token_hex(8))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield this folder, emptied, and remove it afterwards. Use it inside `exclusive`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(folder: Path, pattern: str = TEMPORARIES) -> list[Path]:
    """List the temporary files of killed processes in a `folder`: those named as `pattern`, unmodified for a day."""
    return [path for path in sorted(folder.glob(pattern)) if _idle_s(path) > _LEFTOVER_AGE_S]


@contextmanager
def exclusive(lock: Path, activity: str) -> Iterator[None]:
    """Hold a lock between processes during the block; wait while another process holds it.

    Args:
        lock: The lock file.
        activity: The holder's activity, such as "downloading URL", for a warning after one second of waiting.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file_lock = FileLock(lock)
    try:
        acquired = file_lock.acquire(timeout=1)
    except Timeout:
        log.warning("waiting for another process that is %s", activity)
        acquired = file_lock.acquire()
    with acquired:
        yield


@lru_cache(maxsize=1024)
def _remove_leftovers(folder: Path, pattern: str) -> None:
    for path in leftovers(folder, pattern):
        with suppress(OSError):
            path.unlink()


def _idle_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # renamed or removed in the meantime
        return 0.0


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk. Windows has no way to sync a folder."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)  # Windows syncs writable files only
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
