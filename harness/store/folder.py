"""Records on disk: appended and read; nothing is ever changed.

results/records/<dataset>/<retriever>/<UTC>-<id8>.json    written last: an evaluation is complete when it is there
results/runs/...trec.gz   results/per_query/...parquet   results/rankings/...parquet (the first ten documents)
results/environments/<env8>.json   results/queries/<dataset>/<fingerprint16>.parquet
results/published/<model>/<revision>.json    figures of others, which a later import of the same model replaces
"""

import gc
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from harness.errors import StoreError
from harness.files import write_together
from harness.store.pending import Pending, discard, pending, recover
from harness.store.tables import as_table, parquet, read_scores, read_table
from harness.types import Excerpt, PerQuery, PublishedFigures, Record, RecordFiles, Run
from harness.types.trec import dump

_TOLD = ("torch", "sentence-transformers", "numba", "numpy")
_TOGETHER = 1000
"""Files read in one call."""


class Store:
    """A results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def append(
        self,
        record: Record,
        manifest: Mapping[str, Any],
        run: Run | None = None,
        per_query: PerQuery | None = None,
        tables: Mapping[Excerpt, pa.Table] | None = None,
    ) -> Record:
        """Write a record with its files, the record last; return it with their paths."""
        place, tables = _place(record), tables or {}
        queries = f"queries/{_safe(record.dataset.name)}/{(record.dataset.fingerprint or '')[:16]}.parquet"
        files = RecordFiles(
            record=f"records/{place}.json",
            environment=f"environments/{record.environment[:8]}.json",
            run=None if run is None else f"runs/{place}.trec.gz",
            per_query=None if per_query is None else f"per_query/{place}.parquet",
            rankings=f"rankings/{place}.parquet" if "rankings" in tables else None,
            queries=queries if "queries" in tables else None,
        )
        record = record.model_copy(update={"files": files})
        contents: dict[str | None, bytes] = {}
        if not (self.root / str(files.environment)).exists():  # shared by records
            contents[files.environment] = json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"
        if run is not None:
            contents[files.run] = gzip.compress(dump(run, record.retriever.label).encode(), mtime=0)
        if per_query is not None:
            contents[files.per_query] = parquet(as_table(per_query))
        if "rankings" in tables:
            contents[files.rankings] = parquet(tables["rankings"])
        if "queries" in tables and not (self.root / queries).exists():
            contents[files.queries] = parquet(tables["queries"])
        contents[files.record] = record.model_dump_json(indent=2).encode() + b"\n"
        write_together({self.root / str(path): content for path, content in contents.items()})
        return record

    def pending(self, record: Record) -> AbstractContextManager[Pending]:
        """Mark an evaluation as in progress; `record` is kept as its failure if the process dies in the block."""
        return pending(self.root, record, _place(record))

    def recover(self, error: str | None = None, process: int | None = None) -> list[Path]:
        """Make records of the evaluations whose processes died, or of one process, with the `error` that is known."""
        return recover(self.root, error, process)

    def discard(self, process: int) -> None:
        """Forget what a process that was ended on purpose had in progress."""
        discard(self.root, process)

    def records(self) -> Iterator[Record]:
        """Every record, oldest first. Raises `StoreError` naming a file that is no record."""
        self.recover()
        folder = self.root / "records"
        for path in sorted(folder.rglob("*.json"), key=lambda path: path.name):
            if not path.name.startswith("."):
                yield read_record(path)

    def scores(self, records: Iterable[Record], metrics: Sequence[str] | None = None) -> dict[str, PerQuery]:
        """Per-query scores by the path that a record names; a record whose file is not there has none."""
        paths = [path for record in records if (path := record.files.per_query)]
        there = [path for path in dict.fromkeys(paths) if (self.root / path).exists()]
        found: dict[str, PerQuery] = {}
        for begin in range(0, len(there), _TOGETHER):
            found |= read_scores(self.root, there[begin : begin + _TOGETHER], metrics)
        return found

    def table(self, record: Record, kind: Excerpt) -> pa.Table | None:
        """Return one of the tables beside a record; None where it is not kept."""
        name: str | None = getattr(record.files, kind)
        return read_table(self.root / name) if name and (self.root / name).exists() else None

    def machines(self, records: Iterable[Record]) -> dict[str, str]:
        """The records' environments in a line each, by fingerprint, where their manifests are kept."""
        paths = {record.environment: record.files.environment for record in records}
        found = {}
        for name, path in sorted(paths.items()):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found[name] = _machine(json.loads((self.root / str(path)).read_bytes()))
        return found

    def anchored(self, record: Record) -> Record:
        """The record with its files' whole paths, so that any store finds them."""
        files = {kind: str(self.root.resolve() / path) for kind, path in record.files.paths().items()}
        return record.model_copy(update={"files": record.files.model_copy(update=files)})

    def keep_published(self, figures: Iterable[PublishedFigures]) -> list[Path]:
        """Keep figures of others, a file for each model; gives the files."""
        by_model: dict[Path, list[PublishedFigures]] = {}
        for one in figures:
            path = self.root / "published" / _safe(one.model.replace("/", "__")) / f"{_safe(one.revision)}.json"
            by_model.setdefault(path, []).append(one)
        write_together(
            {
                path: json.dumps([one.model_dump() for one in own], indent=2, allow_nan=False).encode() + b"\n"
                for path, own in by_model.items()
            }
        )
        return list(by_model)

    def published(self) -> list[PublishedFigures]:
        """The figures of others that were brought in. Raises `StoreError` naming a file that holds none."""
        found: list[PublishedFigures] = []
        for path in sorted((self.root / "published").rglob("*.json")):
            try:
                found += [PublishedFigures.model_validate(one) for one in json.loads(path.read_bytes())]
            except (OSError, ValueError, TypeError) as error:
                said = str(error).splitlines()[0]
                raise StoreError(f"{path} holds no published figures: {said}; move it away and import again") from None
        return found

    def latest(self) -> list[Record]:
        """Return the newest record of each evaluation under each name; a failure does not hide an older success."""
        newest: dict[tuple[str, ...], Record] = {}
        with _without_collector():
            for record in self.records():
                key = (record.id, record.environment, record.retriever.label, record.dataset.label)
                if record.status == "ok" or key not in newest or newest[key].status != "ok":
                    newest[key] = record
        return list(newest.values())

    def find(self, like: Record) -> Record | None:
        """The newest good record of the same evaluation under the same names in the same environment."""
        paths = (self.root / "records").rglob(f"*-{like.id[:8]}.json")
        good = [record for path in paths if (record := read_record(path)).id == like.id]
        return _newest(good, like)

    def find_scores(self, like: Record) -> Record | None:
        """Return the newest good record of the same scores, whatever was timed, as for `find`."""
        paths = (self.root / "records" / _safe(like.dataset.name)).rglob("*.json")
        mark = f'"{like.scores_id}"'.encode()
        return _newest([read_record(path) for path in paths if mark in path.read_bytes()], like)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Thousands of records are made that all stay; looking for cycles among them takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _machine(manifest: Mapping[str, Any]) -> str:
    """`Intel Xeon, 2 cores, 24 GiB, Python 3.11.7, torch 2.13.0`."""
    gpus = [f"{manifest['gpus'].count(name)} x {name}" for name in dict.fromkeys(manifest["gpus"])]
    packages = [f"{name} {manifest['packages'][name]}" for name in _TOLD if name in manifest["packages"]]
    hardware = [manifest["cpu"], f"{manifest['cores']} cores", *gpus, f"{manifest['memory_gib']} GiB"]
    return ", ".join([*hardware, f"Python {manifest['python']}", *packages])


def _newest(records: Iterable[Record], like: Record) -> Record | None:
    """Return the newest good record under the same names in the same environment."""
    good = [record for record in records if record.status == "ok" and _names(record) == _names(like)]
    return max(good, key=lambda record: record.started, default=None)


def _names(record: Record) -> tuple[object, ...]:
    own = record.dataset
    return (
        *(record.environment, record.retriever.label),
        *(own.label, own.group, own.parts),  # the same task may be a part of one benchmark and not of another
    )


def read_record(path: Path) -> Record:
    """A record from its file. Raises `StoreError`."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise StoreError(
            f"{path} is no record of this version: {said}; move it away and give the command again"
        ) from None


def _place(record: Record) -> str:
    """Return the path, without a suffix, that a record's files have in their folders."""
    stamp = record.started.strftime("%Y%m%dT%H%M%S.%fZ")
    return f"{_safe(record.dataset.name)}/{_safe(record.retriever.name)}/{stamp}-{record.id[:8]}"


def _safe(name: str) -> str:
    """A name as a path inside the results folder."""
    return "/".join(re.sub(r"[^\w.@+=,-]", "_", part).strip(".")[:100] or "_" for part in name.split("/"))
