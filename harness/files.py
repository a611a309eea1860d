"""Files that are whole or not there, whenever the process is killed; and work that one process does at a time."""

import errno
import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import StoreError

log = logging.getLogger(__name__)

Pieces = Sequence[bytes | memoryview]

# what file systems without unnamed files, or without /proc, answer
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EXDEV, errno.EPERM}
_TEMPORARIES = ".*.tmp"


def inside(root: Path, path: str) -> Path:
    """The path in a folder. Raises `StoreError` for one that leads out of it."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise StoreError(f"{path!r} leads out of {root}/")
    return root / path


def write(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there, whenever the process is killed. Raises `StoreError`."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """As `write`, several files: they get their names in this order, in a moment, once all are complete."""
    try:
        _put({path: [content] for path, content in contents.items()})
    except OSError as error:
        raise StoreError(f"{error.filename or next(iter(contents))} cannot be written: {error.strerror}") from None


def put(path: Path, pieces: Pieces) -> None:
    """As `write`, from pieces one after another, for content that is not held twice. Raises `OSError`."""
    _put({path: pieces})


def abandoned(folder: Path) -> list[Path]:
    """What a process that was killed while it wrote left in a folder: a writer that lives holds a lock on its file."""
    return [path for path in sorted(folder.glob(_TEMPORARIES)) if _lockable(path)]


@contextmanager
def alone(lock: Path, doing: str) -> Iterator[None]:
    """Wait until no other process is `doing` the same under this lock file, which says so after a second."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=1, poll_interval=0.02)
    except Timeout:
        log.warning("waiting for another process that is %s", doing)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A new file in a folder for the block to fill and rename; gone when it does not. What was abandoned goes first."""
    _tidy(folder)
    path = folder / f".{secrets.token_hex(8)}.tmp"
    with _held(path):
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder for the block, gone afterwards; what a killed process left there goes first. Under `alone`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1024)
def _tidy(folder: Path) -> None:
    """Once in each process: remove what was abandoned in a folder."""
    for path in folder.glob(_TEMPORARIES):
        with suppress(OSError), _opened(path, os.O_RDWR) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()  # under the lock: its writer, if one is about to take it, sees that it is gone


def _put(contents: Mapping[Path, Pieces]) -> None:
    folders = list(dict.fromkeys(path.parent for path in contents))
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
    if not _put_unnamed(contents):
        for path, pieces in contents.items():
            _put_beside(path, pieces)
    for folder in folders:
        with _opened(folder, os.O_RDONLY) as handle:
            os.fsync(handle)


def _put_unnamed(contents: Mapping[Path, Pieces]) -> bool:
    """On Linux files get their names when they are complete, so that a kill leaves nothing behind."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        with ExitStack() as lasting:
            complete = [(path, lasting.enter_context(_unnamed(path, pieces))) for path, pieces in contents.items()]
            for path, handle in complete:
                _name(path, handle)
    except OSError as error:
        if error.errno in _NO_UNNAMED and not any(path.is_dir() for path in contents):
            return False
        raise
    return True


@contextmanager
def _unnamed(path: Path, pieces: Pieces) -> Iterator[int]:
    with _opened(path.parent, os.O_TMPFILE | os.O_WRONLY) as handle:
        fill(handle, pieces)
        yield handle


def _name(path: Path, handle: int) -> None:
    """Give an unnamed file its name, in the place of what has it."""
    with _opened(path.parent, os.O_RDONLY) as folder:
        try:
            _link(handle, folder, path.name)
        except FileExistsError:
            _hold(handle)
            with _renamed_to(path) as beside:
                _link(handle, folder, beside.name)


def _put_beside(path: Path, pieces: Pieces) -> None:
    with ExitStack() as lasting, _renamed_to(path) as beside:  # held until it is renamed
        fill(lasting.enter_context(_held(beside)), pieces)


def _link(handle: int, folder: int, name: str) -> None:
    # with a folder's handle given, Python calls linkat, which can follow /proc's link to the open file
    os.link(f"/proc/self/fd/{handle}", name, dst_dir_fd=folder, follow_symlinks=True)


@contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """A name beside the path for the block to fill, then put in the path's place; gone when the block fails."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """A new file, open and locked. Another process may take it for abandoned before it is locked: then once more."""
    with _opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY) as handle:
        _hold(handle)
        if os.fstat(handle).st_nlink:
            yield handle
            return
    with _held(path) as handle:
        yield handle


def _hold(handle: int) -> None:
    with suppress(OSError):  # a file system without locks: nothing there is ever taken for abandoned
        fcntl.flock(handle, fcntl.LOCK_EX)


def _lockable(path: Path) -> bool:
    try:
        with _opened(path, os.O_RDWR) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def fill(handle: int, pieces: Pieces) -> None:
    """Write pieces to an open file; they are on disk when this ends. Raises `OSError`."""
    for piece in pieces:
        view = memoryview(piece).cast("B")
        while view:
            view = view[os.write(handle, view) :]
    os.fsync(handle)
