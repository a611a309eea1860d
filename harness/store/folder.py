"""An append-only results folder.

results/records/<dataset>/<retriever>/<UTC>-<id8>.json    written last, so that a record's files exist
results/runs/...trec.gz   results/per_query/...parquet   results/rankings/...parquet (the first ten documents)
results/environments/<env8>.json   results/queries/<dataset>/<fingerprint16>.parquet   results/qrels/... (the same)
results/published/<model>/<revision>.json    published figures; another import of the same revision replaces them
"""

import gc
import gzip
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from harness.errors import StoreError
from harness.files import write_together
from harness.store import rescore
from harness.store.pending import Pending, discard, pending, recover
from harness.store.rescore import Rescored
from harness.store.tables import as_table, parquet, read_run, read_scores, read_table, to_qrels
from harness.types import Excerpt, PerQuery, PublishedFigures, Qrels, Record, RecordFiles, Run
from harness.types.trec import dump

_SHOWN_PACKAGES = ("torch", "sentence-transformers", "numba", "numpy")
_FILES_PER_READ = 1000
"""Maximum number of Parquet files in one scan."""


class Store:
    """A results folder: append-only records and their files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._computed: dict[str, PerQuery] = {}
        """Scores of metrics that were computed from stored runs, by the path of the record's per-query scores."""

    def append(
        self,
        record: Record,
        manifest: Mapping[str, Any],
        run: Run | None = None,
        per_query: PerQuery | None = None,
        tables: Mapping[Excerpt, pa.Table] | None = None,
    ) -> Record:
        """Write a record and its files, the record last; return the record with their paths.

        Args:
            record: The record.
            manifest: Description of the machine and packages, stored once per environment.
            run: The ranking, stored in TREC's format; None not to store it.
            per_query: Scores of each query; None not to store them.
            tables: Excerpts of rankings and queries, and the judgements.
        """
        tables = tables or {}
        files = _files(record, run is not None, per_query is not None, tables)
        record = record.model_copy(update={"files": files})
        contents: dict[str | None, bytes] = {}
        if not (self.root / str(files.environment)).exists():  # records share it
            contents[files.environment] = json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"
        if run is not None:
            contents[files.run] = gzip.compress(dump(run, record.retriever.label).encode(), mtime=0)
        if per_query is not None:
            contents[files.per_query] = parquet(as_table(per_query))
        if "rankings" in tables:
            contents[files.rankings] = parquet(tables["rankings"])
        shared: dict[Excerpt, str | None] = {"queries": files.queries, "qrels": files.qrels}
        for kind, path in shared.items():  # the records of a dataset share them
            if kind in tables and not (self.root / str(path)).exists():
                contents[path] = parquet(tables[kind])
        contents[files.record] = record.model_dump_json(indent=2).encode() + b"\n"
        write_together({self.root / str(path): content for path, content in contents.items()})
        return record

    def pending(self, record: Record) -> AbstractContextManager[Pending]:
        """Mark an evaluation as in progress; `record` is stored as failed if the process dies in the block."""
        return pending(self.root, record, _relative_path(record))

    def recover(self, error: str | None = None, process: int | None = None) -> list[Path]:
        """Store failed records for the evaluations of dead processes; `error` and `process` as in `pending.recover`."""
        return recover(self.root, error, process)

    def discard(self, process: int) -> None:
        """Discard the evaluations in progress of a process that was ended on purpose."""
        discard(self.root, process)

    def records(self) -> Iterator[Record]:
        """Yield every record, oldest first. Raises `StoreError` naming a file that is not a record."""
        self.recover()
        folder = self.root / "records"
        for path in sorted(folder.rglob("*.json"), key=lambda path: path.name):
            if not path.name.startswith("."):
                yield read_record(path)

    def scores(self, records: Iterable[Record], metrics: Sequence[str] | None = None) -> dict[str, PerQuery]:
        """Return per-query scores by the path in `files.per_query`; records whose file is missing are left out.

        Args:
            records: Records of this store.
            metrics: The metrics to read; None for all.
        """
        paths = [path for record in records if (path := record.files.per_query)]
        existing = [path for path in dict.fromkeys(paths) if (self.root / path).exists()]
        scores: dict[str, PerQuery] = {}
        for begin in range(0, len(existing), _FILES_PER_READ):
            scores |= read_scores(self.root, existing[begin : begin + _FILES_PER_READ], metrics)
        for path in (path for path in dict.fromkeys(paths) if path in self._computed):
            scores[path] = rescore.merge(scores.get(path), self._computed[path])
        return scores

    def with_metric(self, records: Sequence[Record], metric: str) -> Rescored:
        """Return the records with a metric, computed from the stored runs where it was not measured.

        The records on disk stay as they are. `scores` returns the per-query scores of the computed metric too.

        Args:
            records: Records of this store.
            metric: The canonical name of a metric.
        """
        rescored = rescore.with_metric(records, metric, self.run, self.qrels)
        for path, per_query in rescored.scores.items():
            self._computed[path] = rescore.merge(self._computed.get(path), per_query)
        return rescored

    def run(self, record: Record) -> Run | None:
        """Return the run of `record`; None if it is not stored. Raises `StoreError` for a file that is not readable."""
        path = self.root / (record.files.run or "")
        return read_run(path) if record.files.run and path.exists() else None

    def qrels(self, record: Record) -> Qrels | None:
        """Return the judgements of a record's dataset; None if no record of the same content has stored them."""
        if record.dataset.fingerprint is None:
            return None
        path = self.root / (record.files.qrels or _shared_path("qrels", record))
        return to_qrels(read_table(path)) if path.exists() else None

    def table(self, record: Record, kind: Excerpt) -> pa.Table | None:
        """Return the table `kind` of `record`; None if it is not stored."""
        name: str | None = getattr(record.files, kind)
        return read_table(self.root / name) if name and (self.root / name).exists() else None

    def machines(self, records: Iterable[Record]) -> dict[str, str]:
        """Return one-line descriptions of environments by fingerprint, without those whose manifest is missing."""
        paths = {record.environment: record.files.environment for record in records}
        descriptions = {}
        for name, path in sorted(paths.items()):
            with suppress(OSError, ValueError, KeyError, TypeError):
                descriptions[name] = _machine(json.loads((self.root / str(path)).read_bytes()))
        return descriptions

    def with_absolute_paths(self, record: Record) -> Record:
        """Return the record with absolute paths to its files, so that any store can read them."""
        files = {kind: str(self.root.resolve() / path) for kind, path in record.files.paths().items()}
        return record.model_copy(update={"files": record.files.model_copy(update=files)})

    def keep_published(self, figures: Iterable[PublishedFigures]) -> list[Path]:
        """Store published figures in a file for each revision of a model; return the files."""
        by_path: dict[Path, list[PublishedFigures]] = {}
        for figure in figures:
            path = (
                self.root
                / "published"
                / _safe_path(figure.model.replace("/", "__"))
                / f"{_safe_path(figure.revision)}.json"
            )
            by_path.setdefault(path, []).append(figure)
        write_together(
            {
                path: json.dumps([figure.model_dump() for figure in model_figures], indent=2, allow_nan=False).encode()
                + b"\n"
                for path, model_figures in by_path.items()
            }
        )
        return list(by_path)

    def published(self) -> list[PublishedFigures]:
        """Return the imported published figures. Raises `StoreError` naming an invalid file."""
        figures: list[PublishedFigures] = []
        for path in sorted((self.root / "published").rglob("*.json")):
            try:
                figures += [PublishedFigures.model_validate(figure) for figure in json.loads(path.read_bytes())]
            except (OSError, ValueError, TypeError) as error:
                message = str(error).splitlines()[0]
                raise StoreError(
                    f"{path} is not a file of published figures: {message}; move it away and import again"
                ) from None
        return figures

    def latest(self) -> list[Record]:
        """Return the newest record of each evaluation under each name; a failure does not hide an older success."""
        newest: dict[tuple[str, ...], Record] = {}
        with _gc_disabled():
            for record in self.records():
                key = (record.id, record.environment, record.retriever.label, record.dataset.label)
                if record.status == "ok" or key not in newest or newest[key].status != "ok":
                    newest[key] = record
        return list(newest.values())

    def find(self, like: Record) -> Record | None:
        """Return the newest successful record of the same evaluation, with the same names and environment."""
        paths = (self.root / "records").rglob(f"*-{like.id[:8]}.json")
        same_id = [record for path in paths if (record := read_record(path)).id == like.id]
        return _newest(same_id, like)

    def find_scores(self, like: Record) -> Record | None:
        """Return the newest successful record with the same `scores_id`, whatever its timing; names as for `find`."""
        paths = (self.root / "records" / _safe_path(like.dataset.name)).rglob("*.json")
        quoted_id = f'"{like.scores_id}"'.encode()
        return _newest([read_record(path) for path in paths if quoted_id in path.read_bytes()], like)


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable the garbage collector, which takes half of the time of reading thousands of records."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _machine(manifest: Mapping[str, Any]) -> str:
    """Return a description such as `Intel Xeon, 2 cores, 24 GiB, Python 3.11.7, torch 2.13.0`."""
    gpus = [f"{manifest['gpus'].count(name)} x {name}" for name in dict.fromkeys(manifest["gpus"])]
    packages = [f"{name} {manifest['packages'][name]}" for name in _SHOWN_PACKAGES if name in manifest["packages"]]
    hardware = [manifest["cpu"], f"{manifest['cores']} cores", *gpus, f"{manifest['memory_gib']} GiB"]
    return ", ".join([*hardware, f"Python {manifest['python']}", *packages])


def _newest(records: Iterable[Record], like: Record) -> Record | None:
    """Return the newest successful record with the same names and environment."""
    matches = [record for record in records if record.status == "ok" and _names(record) == _names(like)]
    return max(matches, key=lambda record: record.started, default=None)


def _names(record: Record) -> tuple[object, ...]:
    dataset = record.dataset
    return (
        *(record.environment, record.retriever.label),
        *(dataset.label, dataset.group, dataset.parts),  # a task may be in a group in one benchmark and not in another
    )


def read_record(path: Path) -> Record:
    """Read a record from its file. Raises `StoreError`."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise StoreError(
            f"{path} is not a record of this version: {message}; move it away and repeat the command"
        ) from None


def _files(record: Record, has_run: bool, has_scores: bool, tables: Collection[Excerpt]) -> RecordFiles:
    """Return the paths of a record's files."""
    stem = _relative_path(record)
    return RecordFiles(
        record=f"records/{stem}.json",
        environment=f"environments/{record.environment[:8]}.json",
        run=f"runs/{stem}.trec.gz" if has_run else None,
        per_query=f"per_query/{stem}.parquet" if has_scores else None,
        rankings=f"rankings/{stem}.parquet" if "rankings" in tables else None,
        queries=_shared_path("queries", record) if "queries" in tables else None,
        qrels=_shared_path("qrels", record) if "qrels" in tables else None,
    )


def _shared_path(kind: Excerpt, record: Record) -> str:
    """Return the path of a file that the records of a dataset share."""
    return f"{kind}/{_safe_path(record.dataset.name)}/{(record.dataset.fingerprint or '')[:16]}.parquet"


def _relative_path(record: Record) -> str:
    """Return the path of a record's files inside their folders, without a suffix."""
    stamp = record.started.strftime("%Y%m%dT%H%M%S.%fZ")
    return f"{_safe_path(record.dataset.name)}/{_safe_path(record.retriever.name)}/{stamp}-{record.id[:8]}"


def _safe_path(name: str) -> str:
    """Return a name as a safe relative path."""
    return "/".join(re.sub(r"[^\w.@+=,-]", "_", part).strip(".")[:100] or "_" for part in name.split("/"))
