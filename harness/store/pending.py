"""Evaluations in progress, so that a process that dies leaves a record of the failure.

While an evaluation runs, a hidden file in the folder of records contains the record of its failure, and the process
holds a lock on it. The next reader of the store that can acquire the lock renames the file to a record.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from harness.types import Record, RecordFiles

_SUFFIX = ".pending"
_ERROR = "ProcessDied: the process ended without a result: it was killed, ran out of memory, or crashed"


class Pending:
    """An evaluation in progress, with the record to store if the process dies."""

    def __init__(self, root: Path, record: Record, stem: str) -> None:
        self._root, self._stem = root, stem
        self.path = _hidden(root, stem)
        self.update(record)

    def update(self, record: Record) -> None:
        """Replace the record to store if the process dies."""
        files = RecordFiles(record=f"records/{self._stem}.json")
        failed = record.model_copy(update={"status": "failed", "error": _ERROR, "files": files})
        _replace(self.path, failed)


@contextmanager
def pending(root: Path, record: Record, stem: str) -> Iterator[Pending]:
    """Mark an evaluation as in progress during the block.

    Args:
        root: The results folder.
        record: Stored as failed if the process dies in the block.
        stem: Path of the record below `records/`, without a suffix.
    """
    path = _hidden(root, stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock(path))
    with lock:
        try:
            yield Pending(root, record, stem)
        finally:
            path.unlink(missing_ok=True)
            Path(lock.lock_file).unlink(missing_ok=True)


def recover(root: Path, error: str | None = None, process: int | None = None) -> list[Path]:
    """Store failed records for the evaluations of dead processes; return the records' paths.

    Args:
        root: The results folder.
        error: The cause of the failure; None for a general message.
        process: Id of the only process whose evaluations are recovered; None for all dead processes.
    """
    recovered: list[Path] = []
    for path in (root / "records").rglob(f".*{'' if process is None else f'.{process}'}{_SUFFIX}"):
        lock = FileLock(_lock(path))
        with suppress(Timeout, OSError), lock.acquire(blocking=False):
            if path.exists() and (record := _store_failed(path, error)) is not None:
                recovered.append(record)
            Path(lock.lock_file).unlink(missing_ok=True)
    return recovered


def discard(root: Path, process: int) -> None:
    """Discard the evaluations in progress in `root` of the process `process`, which was ended on purpose."""
    for path in (root / "records").rglob(f".*.{process}{_SUFFIX}"):
        for file in (path, _lock(path)):
            file.unlink(missing_ok=True)


def _hidden(root: Path, stem: str) -> Path:
    """Return the hidden file of an evaluation in progress in this process."""
    path = root / "records" / stem
    return path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")


def _store_failed(path: Path, error: str | None) -> Path | None:
    """Rename the file of a dead process to a record; remove it and return None if it cannot be read."""
    try:
        record = Record.model_validate_json(path.read_bytes())
    except ValidationError:
        path.unlink()
        return None
    if error is not None:
        _replace(path, record.model_copy(update={"error": error}))
    return path.rename(path.with_name(f"{path.stem.removeprefix('.').rpartition('.')[0]}.json"))


def _replace(path: Path, record: Record) -> None:
    """Write a record atomically, replacing the present one."""
    temporary = path.with_suffix(".writing")
    temporary.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _lock(path: Path) -> Path:
    return path.with_suffix(".lock")
