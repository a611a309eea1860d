"""Qrels: relevance judgements, the grade of each judged document of each query."""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from numbers import Real
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import pyarrow as pa

from harness.errors import DataError
from harness.types.containers import DOC_ID, GRADE, QUERY_ID, IndexedMapping, copy_nested, read_complete

if TYPE_CHECKING:
    import pandas as pd

_LOWEST, _HIGHEST = -(2**31), 2**31 - 1  # grades are stored as int32


class Qrels(IndexedMapping[Mapping[str, int]]):
    """A mapping from query ids to `{document id: grade}`.

    A document with a grade above 0 is relevant; one with 0 or less is judged not relevant. Grades are 32-bit integers;
    2.0, numpy's integers, True and False are converted to int.

    Args:
        grades: `{query id: {document id: grade}}`, which is copied.

    Raises:
        DataError: An id is not a string or a grade is not a whole number of 32 bits; the message names the first one.

    Examples:
        >>> qrels = Qrels({"q1": {"d1": 2, "d2": 0}})
        >>> qrels["q1"]["d1"], qrels.queries_with_relevant()
        (2, ['q1'])
    """

    noun = "query"

    def __init__(self, grades: Mapping[str, Mapping[str, int]]) -> None:
        self._grades = copy_nested(grades, "grade")
        kinds = set(map(type, self._each_grade()))
        if kinds - {int} or not all(_LOWEST <= grade <= _HIGHEST for grade in set(self._each_grade())):
            for query, docs in self._grades.items():
                for doc, grade in docs.items():
                    docs[doc] = whole_grade(grade, f"query {query!r}, document {doc!r}")

    def _each_grade(self) -> Iterator[int]:
        return chain.from_iterable(docs.values() for docs in self._grades.values())

    @classmethod
    def from_dict(cls, grades: Mapping[str, Mapping[str, int]]) -> Self:
        """Build from `{query id: {document id: grade}}`. Raises `DataError` as the constructor."""
        return cls(grades)

    @classmethod
    def from_pandas(cls, frame: "pd.DataFrame") -> Self:
        """Build from a DataFrame with a row for each judgement.

        The query is read from the first of `query_id`, `qid`, `query-id` and `query`, the document from `doc_id`,
        `docno`, `corpus-id` and `document`, the grade from `grade`, `relevance`, `label` and `score`.

        Raises:
            DataError: As the constructor, and for a missing column or value, or a pair with two grades.
        """
        columns = (read_complete(frame, names) for names in (QUERY_ID, DOC_ID, GRADE))
        grades: dict[str, dict[str, int]] = {}
        for row, (query, doc, grade) in enumerate(zip(*columns, strict=True)):
            add_judgement(grades, query, doc, whole_grade(grade, f"row {row}"), f"row {row}")
        return cls(grades)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a DataFrame with the columns `query_id`, `doc_id` and `grade`, and a row for each judgement."""
        rows = [(query, doc, grade) for query, docs in self._grades.items() for doc, grade in docs.items()]
        columns = zip(*rows, strict=True) if rows else ((), (), ())
        types = (pa.large_string(), pa.large_string(), pa.int64())
        arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
        return pa.table(arrays, names=["query_id", "doc_id", "grade"]).to_pandas()

    def __iter__(self) -> Iterator[str]:
        return iter(self._grades)

    def __len__(self) -> int:
        return len(self._grades)

    def _by_id(self, key: str) -> Mapping[str, int]:
        return self._grades[key]

    def _at(self, position: int) -> Mapping[str, int]:
        return next(islice(self._grades.values(), position, None))

    def _part(self, part: slice) -> Self:
        return type(self)(dict(list(self._grades.items())[part]))

    def _iter_values(self) -> Iterator[Mapping[str, int]]:
        return iter(self._grades.values())

    def queries_with_relevant(self) -> list[str]:
        """Return the ids of the queries with at least one relevant document; means are computed over these."""
        return [query for query, docs in self._grades.items() if any(grade > 0 for grade in docs.values())]

    def judgements(self) -> int:
        """Return the number of judged (query, document) pairs."""
        return sum(map(len, self._grades.values()))

    def __repr__(self) -> str:
        return f"Qrels({len(self)} queries, {self.judgements()} judgements)"


def whole_grade(grade: object, where: str) -> int:
    """Return `grade` as an int. Raises `DataError` with the place `where` unless it is a 32-bit integer."""
    number = cast(Any, grade) if isinstance(grade, Real | np.bool_) else np.nan
    if not (_LOWEST <= number <= _HIGHEST and number == int(number)):
        raise DataError(
            f"{where}: grade {grade!r} must be a whole number from {_LOWEST} to {_HIGHEST}; grades above 0 are relevant"
        )
    return int(number)


def add_judgement(grades: dict[str, dict[str, int]], query: str, doc: str, grade: int, where: str) -> None:
    """Add a judgement to nested grades, in place.

    Args:
        grades: `{query id: {document id: grade}}`.
        query: Query id.
        doc: Document id.
        grade: Grade of the document for the query.
        where: File and line, or row, of the judgement, for the error message.

    Raises:
        DataError: The pair has a different grade already.
    """
    docs = grades.setdefault(query, {})
    if docs.setdefault(doc, grade) != grade:
        raise DataError(
            f"{where}: query {query!r} and document {doc!r} have grade {docs[doc]} already, now {grade}: keep one line"
        )
