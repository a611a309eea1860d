"""Files that are either whole or not there, whenever the process is killed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import StoreError

# what file systems without unnamed files, or without /proc, answer
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EXDEV, errno.EPERM, errno.EEXIST}


def inside(root: Path, path: str) -> Path:
    """The path in a folder. Raises `StoreError` for one that leads out of it."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise StoreError(f"{path!r} leads out of {root}/")
    return root / path


def write(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there, whenever the process is killed. Raises `StoreError`."""
    try:
        _write(path, content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _write_unnamed(path, content):
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with beside.open("wb") as file:
            _fill(file.fileno(), content)
        beside.replace(path)
    if os.name == "posix":
        with _opened(path.parent, os.O_RDONLY) as folder:
            os.fsync(folder)


def _write_unnamed(path: Path, content: bytes) -> bool:
    """On Linux the file gets its name when it is complete, so that a kill leaves nothing behind."""
    if not hasattr(os, "O_TMPFILE") or path.exists():
        return False
    try:
        with _opened(path.parent, os.O_TMPFILE | os.O_WRONLY) as handle, _opened(path.parent, os.O_RDONLY) as folder:
            _fill(handle, content)
            # with a folder's handle given, Python calls linkat, which can follow /proc's link to the open file
            os.link(f"/proc/self/fd/{handle}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    except OSError as error:
        if error.errno in _NO_UNNAMED:
            return False
        raise
    return True


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _fill(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)
