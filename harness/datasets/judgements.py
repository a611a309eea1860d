"""Qrels from files: BEIR's tsv with or without its header, TREC's four columns, or named columns of any row file."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.datasets.rows import UNREADABLE, rows, unreadable
from harness.errors import DataError
from harness.types import Qrels
from harness.types.qrels import add_judgement, whole_grade
from harness.types.trec import open_text

BEIR_COLUMNS = {"query": "query-id", "document": "corpus-id", "grade": "score"}


@dataclass(frozen=True)
class Judgements:
    """Qrels and the line that each query was first judged on, for messages."""

    qrels: Qrels
    path: Path
    first_line: Mapping[str, int]

    def place(self, query: str) -> str:
        """Return the file and the line where the query is judged first."""
        return f"{self.path}:{self.first_line[query]}"


def read(path: Path, columns: Mapping[str, str] = BEIR_COLUMNS) -> Judgements:
    """Read the judgements of a file.

    Args:
        path: A jsonl, csv or parquet file; or text of three columns (query, document, grade), with or without a header,
            or of TREC's four (query, 0, document, grade), separated by tabs or spaces.
        columns: Names of the columns by role: ``query``, ``document`` and ``grade``.

    Raises:
        DataError: A field is missing, a grade is not a whole number of 32 bits, or a pair has two grades; the message
            names file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    grades: dict[str, dict[str, int]] = {}
    first_line: dict[str, int] = {}
    for number, query, document, grade in _readable(path, columns):
        first_line.setdefault(query, number)
        add_judgement(grades, query, document, grade, f"{path}:{number}")
    return Judgements(Qrels(grades), path, first_line)


def _readable(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, str, str, int]]:
    try:
        yield from _triples(path, columns)
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def _triples(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, str, str, int]]:
    if not path.name.lower().removesuffix(".gz").endswith((".jsonl", ".csv", ".parquet")):
        yield from _plain(path, columns)
        return
    for number, row in rows(path):
        for column in columns.values():
            if row.get(column) in (None, ""):
                raise DataError(f"{path}:{number}: no {column!r}; columns here: {', '.join(map(str, row))}")
        query, document, grade = (row[columns[name]] for name in ("query", "document", "grade"))
        yield number, str(query), str(document), _grade(grade, f"{path}:{number}")


def _plain(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, str, str, int]]:
    positions: tuple[int, ...] | None = None
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
            if not line.strip():
                continue
            if positions is None:
                positions = _positions(fields, columns)
                if not _is_number(fields[positions[2]] if positions[2] < len(fields) else ""):
                    continue  # the header
            if len(fields) <= max(positions) or not all(fields[position].strip() for position in positions):
                raise DataError(
                    f"{path}:{number}: not a judgement: {line.strip()[:80]!r}; expected: query-id, corpus-id and score "
                    "separated by tabs, or TREC's query 0 document grade"
                )
            query, document, grade = (fields[position].strip() for position in positions)
            yield number, query, document, _grade(grade, f"{path}:{number}")


def _positions(fields: list[str], columns: Mapping[str, str]) -> tuple[int, ...]:
    """Return the positions of query, document and grade, from a header's names or the number of columns."""
    names = [columns[name] for name in ("query", "document", "grade")]
    if all(name in fields for name in names):
        return tuple(fields.index(name) for name in names)
    return (0, 2, 3) if len(fields) == 4 else (0, 1, 2)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _grade(value: Any, where: str) -> int:
    with suppress(TypeError, ValueError):
        value = value if isinstance(value, int) else float(value)
    return whole_grade(value, where)
