"""Evaluations in progress, so that the death of a process leaves a record of the failure.

While an evaluation runs, the record of its failure lies beside the records in a hidden file, whose lock the process
holds. Whoever reads the store later finds the file without a holder and gives it its name as a record.
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
    """An evaluation in progress: the record that is left if the process dies now."""

    def __init__(self, root: Path, record: Record, place: str) -> None:
        self._root, self._place = root, place
        self.path = _hidden(root, place)
        self.update(record)

    def update(self, record: Record) -> None:
        """Replace the record that is left if the process dies."""
        files = RecordFiles(record=f"records/{self._place}.json")
        left = record.model_copy(update={"status": "failed", "error": _ERROR, "files": files})
        _replace(self.path, left)


@contextmanager
def pending(root: Path, record: Record, place: str) -> Iterator[Pending]:
    """Mark an evaluation as in progress during the block."""
    path = _hidden(root, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock(path))
    with lock:
        try:
            yield Pending(root, record, place)
        finally:
            path.unlink(missing_ok=True)
            Path(lock.lock_file).unlink(missing_ok=True)


def recover(root: Path, error: str | None = None, process: int | None = None) -> list[Path]:
    """Turn what dead processes left into records of their failure; return the records' paths.

    Args:
        root: The results folder.
        error: What is known of the death, in place of a general sentence.
        process: Only what this process left.
    """
    recovered: list[Path] = []
    for path in (root / "records").rglob(f".*{'' if process is None else f'.{process}'}{_SUFFIX}"):
        lock = FileLock(_lock(path))
        with suppress(Timeout, OSError), lock.acquire(blocking=False):
            if path.exists() and (record := _named(path, error)) is not None:
                recovered.append(record)
            Path(lock.lock_file).unlink(missing_ok=True)
    return recovered


def discard(root: Path, process: int) -> None:
    """Forget what a process that was ended on purpose had in progress."""
    for path in (root / "records").rglob(f".*.{process}{_SUFFIX}"):
        for left in (path, _lock(path)):
            left.unlink(missing_ok=True)


def _hidden(root: Path, place: str) -> Path:
    """Return the path of an evaluation in progress in this process."""
    path = root / "records" / place
    return path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")


def _named(path: Path, error: str | None) -> Path | None:
    """Give what a dead process left its name as a record; None, and nothing is left, where it cannot be read."""
    try:
        record = Record.model_validate_json(path.read_bytes())
    except ValidationError:
        path.unlink()
        return None
    if error is not None:
        _replace(path, record.model_copy(update={"error": error}))
    return path.rename(path.with_name(f"{path.stem.removeprefix('.').rpartition('.')[0]}.json"))


def _replace(path: Path, record: Record) -> None:
    """Write a record in the place of what is there, in one step."""
    beside = path.with_suffix(".writing")
    beside.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def _lock(path: Path) -> Path:
    return path.with_suffix(".lock")
