"""Per-query scores as tables: query_id, metric, value."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.errors import StoreError
from harness.types import PerQuery

if TYPE_CHECKING:
    import polars as pl


def read_scores(root: Path, paths: Sequence[str], metrics: Sequence[str] | None) -> dict[str, PerQuery]:
    """Many files at once, which takes a fraction of the time of one by one. Raises `StoreError`."""
    import polars as pl  # costs a command that reads no scores a third of a second

    try:
        rows = pl.scan_parquet([root / path for path in paths], include_file_paths="path", glob=False)
        if metrics is not None:
            rows = rows.filter(pl.col("metric").cast(pl.String).is_in(list(metrics)))
        table = rows.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise StoreError(_damaged([root / path for path in paths], str(error))) from None
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    ids: dict[str, pl.Series] = {}
    seen: list[tuple[pl.Series, list[str]]] = []
    for (path, metric), part in table.group_by(["path", "metric"], maintain_order=True):
        found.setdefault(str(path), {})[str(metric)] = part["value"].to_numpy()
        ids.setdefault(str(path), part["query_id"])
    of = {str(root / path): path for path in paths}
    return {of[path]: PerQuery(_shared(ids[path], seen), values) for path, values in found.items()}


def _damaged(paths: Sequence[Path], said: str) -> str:
    """What to say when some files cannot be read, naming the first that cannot be."""
    for path in paths:
        try:
            read_table(path)
        except StoreError as error:
            return str(error)
    return f"{paths[0].parent}: {said.splitlines()[0]}; move it away and measure again"


def read_table(path: Path) -> pa.Table:
    """A parquet file. Raises `StoreError` naming it."""
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: {str(error).splitlines()[0]}; move it away and measure again") from None


def _shared(ids: "pl.Series", seen: "list[tuple[pl.Series, list[str]]]") -> list[str]:
    """One list for all files with the same queries."""
    for own, kept in seen:
        if own.equals(ids):
            return kept
    seen.append((ids, ids.to_list()))
    return seen[-1][1]


def as_table(scores: PerQuery) -> pa.Table:
    """query_id, metric, value."""
    ids, values = scores.query_ids, scores.values
    return pa.table(
        {
            "query_id": pa.array([query for _ in values for query in ids], pa.string()),
            "metric": pa.array([name for name in values for _ in ids], pa.string()).dictionary_encode(),
            "value": pa.array(np.concatenate([*values.values()]) if values else [], pa.float64()),
        }
    )


def parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
