"""Columns of pandas DataFrames, under the names that the field's tools give them."""

from collections.abc import Sequence
from typing import Any

from harness.errors import DataError

QUERY_ID = ("query_id", "qid", "query-id", "query")
DOC_ID = ("doc_id", "docno", "corpus-id", "document")
SCORE = ("score",)
GRADE = ("grade", "relevance", "label", "score")


def find_column(frame: Any, names: Sequence[str]) -> str | None:
    """Return the first of `names` that the DataFrame has as a column. Raises `DataError` for another type."""
    if not hasattr(frame, "iloc"):
        raise DataError(f"from_pandas takes a pandas DataFrame, not {type(frame).__name__}")
    return next((name for name in names if name in frame.columns), None)


def read_column(frame: Any, names: Sequence[str]) -> list[Any]:
    """Return a column's values as a list, None where one is missing.

    Args:
        frame: A pandas DataFrame.
        names: Names that the column may have; the first one that is there is read.

    Raises:
        DataError: No column has one of the names.
    """
    name = find_column(frame, names)
    if name is None:
        raise DataError(
            f"the DataFrame has no column {names[0]!r}, only {', '.join(map(str, frame.columns)) or 'none'}; accepted "
            f"names: {', '.join(names)}; rename a column: frame.rename(columns={{'NAME': {names[0]!r}}})"
        )
    column = frame[name]
    return [None if gone else value for value, gone in zip(column.tolist(), column.isna().tolist(), strict=True)]


def read_complete(frame: Any, names: Sequence[str]) -> list[Any]:
    """Return a column's values as a list. Raises `DataError` as `read_column`, and for a value that is missing."""
    values = read_column(frame, names)
    if None in values:
        raise DataError(f"column {find_column(frame, names)!r} has no value in row {values.index(None)}")
    return values
