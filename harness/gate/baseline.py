"""The committed baseline: accepted records with their per-query scores, and the reason why they were accepted.

results/baseline/baseline.json    manifest: each file with its hash, and the reason; written last
results/baseline/records/...json  results/baseline/per_query/...parquet
"""

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from harness.errors import ConfigError, StoreError, UndecidedError
from harness.gate.matching import Key, group_by_evaluation, key_of, select_newest
from harness.gate.turnover import sample_ids
from harness.store import Store, inside, read_record, write_atomic
from harness.types import PerQuery, Record, RecordFiles

log = logging.getLogger(__name__)

_FILE = "baseline.json"


class AcceptedFiles(BaseModel):
    """A path, or a hash, for each of the two files of an evaluation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    record: str
    per_query: str


class AcceptedEvaluation(BaseModel):
    """One retriever on one dataset, or on one part of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    retriever: str
    dataset: str
    metrics: dict[str, float]
    """Means over the queries."""
    record_id: str = Field(validation_alias=AliasChoices("record_id", "cell"))
    """Hash of config, dataset, k, seed and metric version; called `cell` in version 1."""
    fingerprint: str | None
    """Fingerprint of the dataset."""
    files: AcceptedFiles
    """Paths in the baseline's folder."""
    hashes: AcceptedFiles
    """BLAKE2b of each file, 32 hex digits."""
    ranked_ids: str = ""
    """A sample of the ranked documents' ids, separated by spaces; empty if no run was stored."""

    @property
    def key(self) -> Key:
        """Retriever and dataset."""
        return self.retriever, self.dataset


class Manifest(BaseModel):
    """Content of baseline.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1, 2] = 2
    accepted: datetime
    reason: str
    harness: str
    revision: str | None = None
    evaluations: list[AcceptedEvaluation] = Field(validation_alias=AliasChoices("evaluations", "cells"))
    """Called `cells` in version 1."""


@dataclass(frozen=True)
class Baseline:
    """Accepted records and their per-query scores."""

    records: Sequence[Record]
    scores: Mapping[str, PerQuery]
    ranked_ids: Mapping[Key, Sequence[str]] = field(default_factory=dict)
    """By labels of retriever and dataset: a sample of the ranked documents' ids."""

    @property
    def names(self) -> list[str]:
        """Its evaluations as `retriever/dataset`."""
        return sorted({"/".join(key_of(record)) for record in self.records})


def read(root: Path) -> Baseline:
    """Read the baseline of a folder and check the hash of every file.

    Raises:
        UndecidedError: There is no baseline, or it is damaged.
    """
    manifest = _read_manifest(root)
    if manifest is None:
        raise UndecidedError(f'there is no baseline in {root}/; make one: harness accept --reason "..."')
    for evaluation in manifest.evaluations:
        _check_hashes(root, evaluation)
    store = Store(root)
    try:
        records = [
            store.with_absolute_paths(read_record(root / evaluation.files.record))
            for evaluation in manifest.evaluations
        ]
        ranked_ids = {evaluation.key: evaluation.ranked_ids.split() for evaluation in manifest.evaluations}
        return Baseline(records, store.scores(records), ranked_ids)
    except StoreError as error:
        raise UndecidedError(_damage_message(root, str(error))) from None


@dataclass(frozen=True)
class Change:
    """A metric of an evaluation before and after `accept`; None where the baseline does not have it."""

    retriever: str
    dataset: str
    metric: str
    before: float | None
    after: float | None
    carried_over: bool = False
    """True if it was not measured and is taken from the old baseline."""
    dataset_changed: bool = False


def accept(
    root: Path, store: Store, records: Sequence[Record], metadata: Mapping[str, Any], prune: bool = False
) -> list[Change]:
    """Make the newest records the baseline.

    A record with one thread is preferred among those of the newest code, because only its CPU time can be compared.

    Args:
        root: Folder of the baseline.
        store: Results folder that the records are from.
        records: Records to choose from.
        metadata: Time, reason and revision for the manifest.
        prune: Remove evaluations that were not measured instead of keeping them.

    Returns:
        The changed and unchanged metrics.

    Raises:
        UndecidedError: The newest try of an evaluation failed, or a file is missing.
        ConfigError: `root` is a results folder.
    """
    if (root / "records").exists() and not (root / _FILE).exists():
        raise ConfigError(f"{root}/ holds results and is not a baseline; name another folder: --baseline DIR")
    old, orphans = _read_replaced(root)
    chosen = [
        _require_ok(select_newest(attempts, k=attempts[0].k, threads=1))
        for parts in group_by_evaluation(records).values()
        for attempts in parts.values()
    ]
    accepted = [_load_files(store, record) for record in chosen]
    new = {evaluation.key: (evaluation, contents) for evaluation, contents in accepted}
    remaining = [] if prune else [evaluation for evaluation in old if evaluation.key not in new]
    for evaluation in remaining:
        _check_hashes(root, evaluation)
    for _, contents in new.values():
        for path, content in contents.items():
            write_atomic(root / path, content)
    evaluations = sorted([*(each for each, _ in new.values()), *remaining], key=lambda each: each.key)
    manifest = Manifest(evaluations=evaluations, **metadata)
    write_atomic(root / _FILE, manifest.model_dump_json(indent=2).encode() + b"\n")
    _remove_files(root, {*_paths(old), *orphans} - {*_paths(evaluations)})
    return _changes(old, evaluations, set(new))


def _read_replaced(root: Path) -> tuple[list[AcceptedEvaluation], list[str]]:
    """Return the present baseline's evaluations or, if its manifest cannot be read, the paths of its files."""
    try:
        manifest = _read_manifest(root)
        return (manifest.evaluations if manifest else []), []
    except UndecidedError as error:
        log.warning("%s; it is replaced", error)
        files = [path for kind in ("records", "per_query") for path in (root / kind).rglob("*") if path.is_file()]
        return [], [path.relative_to(root).as_posix() for path in files]


def _require_ok(record: Record) -> Record:
    if record.status == "ok":
        return record
    raise UndecidedError(
        f"the newest try of {record.retriever.label} on {record.dataset.label} failed: "
        f"{(record.error or '').partition(chr(10))[0]}; measure it again: {record.command}"
    )


def _load_files(store: Store, record: Record) -> tuple[AcceptedEvaluation, dict[str, bytes]]:
    """Return a record's evaluation, and the contents of its files by their paths in the baseline.

    Paths of files that the baseline does not have are removed from the record.
    """
    try:
        scores = (store.root / (record.files.per_query or "")).read_bytes()
    except OSError:
        raise UndecidedError(
            f"{record.files.record} has no per-query scores; measure it again: {record.command} resume=false"
        ) from None
    files = AcceptedFiles(record=record.files.record or "", per_query=record.files.per_query or "")
    reduced = record.model_copy(update={"files": RecordFiles(**files.model_dump())})
    content = reduced.model_dump_json(indent=2).encode() + b"\n"
    evaluation = AcceptedEvaluation(
        retriever=record.retriever.label,
        dataset=record.dataset.label,
        metrics=record.metrics,
        record_id=record.id,
        fingerprint=record.dataset.fingerprint,
        files=files,
        hashes=AcceptedFiles(record=_hash(content), per_query=_hash(scores)),
        ranked_ids=" ".join(_ranked_ids(store, record)),
    )
    return evaluation, {files.record: content, files.per_query: scores}


def _ranked_ids(store: Store, record: Record) -> list[str]:
    run = store.root / (record.files.run or "")
    return sample_ids(run) if run.is_file() else []


def _changes(
    old: Sequence[AcceptedEvaluation], new: Sequence[AcceptedEvaluation], measured: Collection[Key]
) -> list[Change]:
    before, after = ({evaluation.key: evaluation for evaluation in side} for side in (old, new))
    return [
        Change(
            *(*key, metric, was.metrics.get(metric) if was else None, now.metrics.get(metric) if now else None),
            carried_over=key not in measured and now is not None,
            dataset_changed=was is not None and now is not None and was.fingerprint != now.fingerprint,
        )
        for key in sorted({*before, *after})
        for was, now in [(before.get(key), after.get(key))]
        for metric in dict.fromkeys([*(now.metrics if now else ()), *(was.metrics if was else ())])
    ]


def _paths(evaluations: Iterable[AcceptedEvaluation]) -> list[str]:
    return [path for evaluation in evaluations for path in evaluation.files.model_dump().values()]


def _remove_files(root: Path, paths: Iterable[str]) -> None:
    """Remove files of the baseline, and the folders that are empty without them."""
    for path in paths:
        file = inside(root, path)
        file.unlink(missing_ok=True)
        for folder in file.parents:
            if folder == root or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def _read_manifest(root: Path) -> Manifest | None:
    path = root / _FILE
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
        for file in _paths(manifest.evaluations):
            inside(root, file)
        return manifest
    except (ValidationError, OSError, StoreError) as error:
        message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UndecidedError(_damage_message(root, f"{path}: {message}")) from None


def _check_hashes(root: Path, evaluation: AcceptedEvaluation) -> None:
    """Raise `UndecidedError` unless an evaluation's files are the accepted ones."""
    files, hashes = evaluation.files.model_dump(), evaluation.hashes.model_dump()
    for path, expected in zip(files.values(), hashes.values(), strict=True):
        try:
            content = (root / path).read_bytes()
        except OSError as error:
            raise UndecidedError(_damage_message(root, f"{root / path}: {error.strerror}")) from None
        if _hash(content) != expected:
            raise UndecidedError(_damage_message(root, f"{root / path}: its content is not what was accepted"))


def _damage_message(root: Path, problem: str) -> str:
    return (
        f"the baseline is damaged: {problem}; restore it: git checkout -- {root}, "
        'or measure and accept all of it anew: harness accept --prune --reason "..."'
    )


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
