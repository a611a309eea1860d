"""The committed baseline: accepted records with their per-query scores, and why they were accepted.

results/baseline/baseline.json    what is in it, each file with its hash, and the reason; written last
results/baseline/records/...json  results/baseline/per_query/...parquet
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import ConfigError, StoreError, UndecidedError
from harness.gate.cells import alike, by_cell, key_of
from harness.store import Store, inside, read_record, write_atomic
from harness.types import PerQuery, Record, RecordFiles

log = logging.getLogger(__name__)

_FILE = "baseline.json"


class Files(BaseModel):
    """Something of each file of a cell."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    record: str
    per_query: str


class AcceptedCell(BaseModel):
    """One cell of a baseline: a retriever on a dataset, or on one part of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    retriever: str
    dataset: str
    metrics: dict[str, float]
    """Means."""
    cell: str
    """The record's hash of config, dataset, k, seed and metric version."""
    fingerprint: str | None
    """Of the collection."""
    files: Files
    """Paths in the baseline's folder."""
    hashes: Files
    """BLAKE2b of each file, 32 hex digits."""


class Manifest(BaseModel):
    """baseline.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    accepted: datetime
    reason: str
    harness: str
    revision: str | None = None
    cells: list[AcceptedCell]


@dataclass(frozen=True)
class Baseline:
    """What was accepted."""

    records: Sequence[Record]
    scores: Mapping[str, PerQuery]

    @property
    def names(self) -> list[str]:
        """Its cells as `retriever/dataset`."""
        return sorted({"/".join(key_of(record)) for record in self.records})

    def only(self, wanted: Callable[[Record], bool]) -> "Baseline":
        """Without the records that are not wanted."""
        return replace(self, records=[record for record in self.records if wanted(record)])


def read(root: Path) -> Baseline:
    """The baseline of a folder, every file checked. Raises `UndecidedError` when there is none or it is damaged."""
    manifest = _manifest(root)
    if manifest is None:
        raise UndecidedError(f'there is no baseline in {root}/; make one: harness accept --reason "..."')
    for cell in manifest.cells:
        _check(root, cell)
    store = Store(root)
    try:
        records = [store.with_absolute_paths(read_record(root / cell.files.record)) for cell in manifest.cells]
        return Baseline(records, store.scores(records))
    except StoreError as error:
        raise UndecidedError(_damaged(root, str(error))) from None


@dataclass(frozen=True)
class Change:
    """What accepting does to one cell's metric; None on a side that lacks it."""

    retriever: str
    dataset: str
    metric: str
    before: float | None
    after: float | None
    kept: bool = False
    """It was not measured and stays as it is."""
    collection_changed: bool = False


def accept(
    root: Path, store: Store, records: Sequence[Record], about: Mapping[str, Any], prune: bool = False
) -> list[Change]:
    """Make the newest of these records the baseline in `root`; `about` is its time, reason and revision.

    Of the newest code a record with one thread is taken, whose costs can be gated, where there is one. Cells that were
    not measured stay, or go with `prune`. Raises `UndecidedError` when the newest try of one failed or a file is
    missing, `ConfigError` for a folder of results.
    """
    if (root / "records").exists() and not (root / _FILE).exists():
        raise ConfigError(f"{root}/ holds results and is no baseline; name another folder: --baseline DIR")
    old, lost = _replaced(root)
    chosen = [
        _accepted(alike(own, k=own[0].k, threads=1)) for parts in by_cell(records).values() for own in parts.values()
    ]
    new = {(cell.retriever, cell.dataset): (cell, contents) for cell, contents in (_kept(store, own) for own in chosen)}
    stay = [] if prune else [cell for cell in old if (cell.retriever, cell.dataset) not in new]
    for cell in stay:
        _check(root, cell)
    for _, contents in new.values():
        for path, content in contents.items():
            write_atomic(root / path, content)
    cells = sorted([*(cell for cell, _ in new.values()), *stay], key=lambda cell: (cell.retriever, cell.dataset))
    write_atomic(root / _FILE, Manifest(cells=cells, **about).model_dump_json(indent=2).encode() + b"\n")
    _forget(root, {*_paths(old), *lost} - {*_paths(cells)})
    return _changes(old, cells, set(new))


def _replaced(root: Path) -> tuple[list[AcceptedCell], list[str]]:
    """The cells of the baseline so far; of one whose manifest cannot be read none, and the files that go with it."""
    try:
        manifest = _manifest(root)
        return (manifest.cells if manifest else []), []
    except UndecidedError as error:
        log.warning("%s; it is replaced", error)
        held = [path for kind in ("records", "per_query") for path in (root / kind).rglob("*") if path.is_file()]
        return [], [path.relative_to(root).as_posix() for path in held]


def _accepted(record: Record) -> Record:
    if record.status == "ok":
        return record
    raise UndecidedError(
        f"the newest try of {record.retriever.label} on {record.dataset.label} failed: "
        f"{(record.error or '').partition(chr(10))[0]}; measure it again: {record.command}"
    )


def _kept(store: Store, record: Record) -> tuple[AcceptedCell, dict[str, bytes]]:
    """The cell, and its files by their paths in the baseline: the record without what stays behind, and its scores."""
    try:
        scores = (store.root / (record.files.per_query or "")).read_bytes()
    except OSError:
        raise UndecidedError(
            f"{record.files.record} has no per-query scores; measure it again: {record.command} resume=false"
        ) from None
    files = Files(record=record.files.record or "", per_query=record.files.per_query or "")
    slim = (
        record.model_copy(update={"files": RecordFiles(**files.model_dump())}).model_dump_json(indent=2).encode()
        + b"\n"
    )
    cell = AcceptedCell(
        retriever=record.retriever.label,
        dataset=record.dataset.label,
        metrics=record.metrics,
        cell=record.id,
        fingerprint=record.dataset.fingerprint,
        files=files,
        hashes=Files(record=_hash(slim), per_query=_hash(scores)),
    )
    return cell, {files.record: slim, files.per_query: scores}


def _changes(
    old: Sequence[AcceptedCell], new: Sequence[AcceptedCell], measured: Collection[tuple[str, str]]
) -> list[Change]:
    before, after = ({(cell.retriever, cell.dataset): cell for cell in cells} for cells in (old, new))
    return [
        Change(
            *(*place, metric, was.metrics.get(metric) if was else None, now.metrics.get(metric) if now else None),
            kept=place not in measured and now is not None,
            collection_changed=was is not None and now is not None and was.fingerprint != now.fingerprint,
        )
        for place in sorted({*before, *after})
        for was, now in [(before.get(place), after.get(place))]
        for metric in dict.fromkeys([*(now.metrics if now else ()), *(was.metrics if was else ())])
    ]


def _paths(cells: Iterable[AcceptedCell]) -> list[str]:
    return [path for cell in cells for path in cell.files.model_dump().values()]


def _forget(root: Path, paths: Iterable[str]) -> None:
    """Remove files that the baseline had, and the folders that are empty without them."""
    for path in paths:
        place = inside(root, path)
        place.unlink(missing_ok=True)
        for folder in place.parents:
            if folder == root or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def _manifest(root: Path) -> Manifest | None:
    path = root / _FILE
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
        for each in _paths(manifest.cells):
            inside(root, each)
        return manifest
    except (ValidationError, OSError, StoreError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UndecidedError(_damaged(root, f"{path}: {said}")) from None


def _check(root: Path, cell: AcceptedCell) -> None:
    """Raises `UndecidedError` unless the cell's files are what was accepted."""
    for path, hashed in zip(cell.files.model_dump().values(), cell.hashes.model_dump().values(), strict=True):
        try:
            content = (root / path).read_bytes()
        except OSError as error:
            raise UndecidedError(_damaged(root, f"{root / path}: {error.strerror}")) from None
        if _hash(content) != hashed:
            raise UndecidedError(_damaged(root, f"{root / path}: its content is not what was accepted"))


def _damaged(root: Path, said: str) -> str:
    return (
        f"the baseline is damaged: {said}; restore it: git checkout -- {root}, "
        'or measure and accept all of it anew: harness accept --prune --reason "..."'
    )


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
