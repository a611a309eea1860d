"""Records on disk: appended, read, and the latest of each cell found; nothing is ever changed.

results/records/<dataset>/<retriever>/<UTC>-<cell8>.json    last to be written: a cell is there when this is
results/runs/...trec.gz   results/per_query/...parquet   results/environments/<env8>.json
"""

import errno
import gzip
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from harness.errors import StoreError
from harness.types import Record, Run
from harness.types.trec import dump

# what file systems without unnamed files, or without /proc, answer
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EXDEV, errno.EPERM, errno.EEXIST}


class Store:
    """A results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def append(
        self,
        record: Record,
        manifest: Mapping[str, Any],
        run: Run | None = None,
        per_query: tuple[Sequence[str], Mapping[str, NDArray[np.float64]]] | None = None,
    ) -> Record:
        """Write a cell's files, the record last; gives the record with their paths."""
        stamp = record.started.strftime("%Y%m%dT%H%M%S.%fZ")
        place = f"{_safe(record.dataset.name)}/{_safe(record.retriever.name)}/{stamp}-{record.cell[:8]}"
        files = {"environment": f"environments/{record.environment[:8]}.json"}
        if not (self.root / files["environment"]).exists():
            write(self.root / files["environment"], json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
        if run is not None:
            files["run"] = f"runs/{place}.trec.gz"
            write(self.root / files["run"], gzip.compress(dump(run, record.retriever.label).encode(), mtime=0))
        if per_query is not None:
            files["per_query"] = f"per_query/{place}.parquet"
            write(self.root / files["per_query"], _parquet(*per_query))
        files["record"] = f"records/{place}.json"
        record = record.model_copy(update={"files": files})
        write(self.root / files["record"], record.model_dump_json(indent=2).encode() + b"\n")
        return record

    def records(self) -> Iterator[Record]:
        """Every record, oldest first. Raises `StoreError` naming a file that is no record."""
        folder = self.root / "records"
        for path in sorted(folder.rglob("*.json"), key=lambda path: path.name):
            if not path.name.startswith("."):
                yield read_record(path)

    def latest(self) -> list[Record]:
        """The newest record of each cell; one that failed does not hide an older one that did not."""
        newest: dict[tuple[str, ...], Record] = {}
        for record in self.records():
            key = (record.cell, record.environment, record.retriever.label)
            if record.status == "ok" or key not in newest or newest[key].status != "ok":
                newest[key] = record
        return list(newest.values())

    def find(self, like: Record) -> Record | None:
        """The newest good record of the same cell under the same names, by the same code in the same environment."""
        good = [
            record
            for path in (self.root / "records").rglob(f"*-{like.cell[:8]}.json")
            if (record := read_record(path)).status == "ok" and _answers(record, like)
        ]
        return max(good, key=lambda record: record.started, default=None)


def _answers(record: Record, like: Record) -> bool:
    return (record.cell, record.environment, record.code, record.retriever.label, record.dataset.label) == (
        *(like.cell, like.environment, like.code),
        *(like.retriever.label, like.dataset.label),
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


def _safe(name: str) -> str:
    """A name as a path inside the results folder."""
    return "/".join(re.sub(r"[^\w.@+=,-]", "_", part).strip(".")[:100] or "_" for part in name.split("/"))


def _parquet(query_ids: Sequence[str], scores: Mapping[str, NDArray[np.float64]]) -> bytes:
    table = pa.table(
        {
            "query_id": pa.array([query for _ in scores for query in query_ids], pa.string()),
            "metric": pa.array([name for name in scores for _ in query_ids], pa.string()).dictionary_encode(),
            "value": pa.array(np.concatenate([*scores.values()]) if scores else [], pa.float64()),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
