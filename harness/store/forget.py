"""Move records out of the way: `forget(store, records)`. Nothing is deleted."""

from collections.abc import Iterable
from pathlib import Path

from harness.errors import StoreError
from harness.files import inside
from harness.store.folder import Store
from harness.types import Record

FOLDER = "forgotten"
"""Folder of the records that were moved, inside the results folder, with the same structure."""


def forget(store: Store, records: Iterable[Record]) -> list[Path]:
    """Move records, with their runs, scores and rankings, into the folder `forgotten` of the results folder.

    Moved back to their places, they are part of the results again.

    Args:
        store: The results folder.
        records: Records of this store.

    Returns:
        The new path of each record.

    Raises:
        StoreError: A file cannot be moved.
    """
    moved = []
    for record in records:
        files = record.files
        paths = [path for path in (files.record, files.run, files.per_query, files.rankings) if path]
        for path in paths:  # the record first: no record may name missing files
            _move(inside(store.root, path), store.root / FOLDER / path)
        moved.append(store.root / FOLDER / paths[0])
    return moved


def _move(source: Path, target: Path) -> None:
    try:
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    except OSError as error:
        raise StoreError(f"{source} cannot be moved to {target}: {error.strerror}") from None
