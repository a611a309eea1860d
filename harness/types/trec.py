"""TREC run files: query, Q0, document, rank, score, tag; plain or gzipped."""

import gzip
import re
from pathlib import Path
from typing import IO

from harness.errors import DataError, RunError
from harness.types.run import Run, ids_at

_SPACE = re.compile(r"\s")


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """Open the text file `path` for reading, decompressed if its name ends in .gz; `newline` as for `open`."""
    open_file = gzip.open if path.suffix == ".gz" else open
    # utf-8-sig: spreadsheets write a byte order mark
    return open_file(path, "rt", encoding="utf-8-sig", newline=newline)


def dump(run: Run, tag: str) -> str:
    """Format a run in TREC's six columns, in rank order; scores have the fewest digits that identify the float32.

    Args:
        run: The run.
        tag: The last column; white space is replaced by `_`.

    Raises:
        RunError: An id has white space.
    """
    tag = _SPACE.sub("_", tag) or "run"
    lines = []
    for row, query in enumerate(run.query_ids):
        docs = run.docs[row]
        docs = docs[docs >= 0]
        names = ids_at(run.doc_ids, docs)
        for spaced in (name for name in (query, *names) if _SPACE.search(name)):
            raise RunError(f"id {spaced!r} has white space, which a TREC run file cannot hold: replace it in the data")
        scores = run.scores[row, : len(docs)].astype(str).tolist()
        ranked = enumerate(zip(names, scores, strict=True), start=1)
        lines.append("".join(f"{query} Q0 {name} {rank} {score} {tag}\n" for rank, (name, score) in ranked))
    return "".join(lines)


def write(run: Run, path: Path, tag: str) -> None:
    """Write `run` with `tag` as in `dump` to `path`, gzipped if its name ends in .gz; equal runs give equal bytes."""
    text = dump(run, tag).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read(path: Path) -> Run:
    """Read a run file as trec_eval does: hits are sorted by score and the rank column is ignored.

    Raises:
        DataError: A line is not a run line (the message has its number), or the file has no run lines.
        RunError: A score is NaN or infinite, or a document of a query is repeated.
    """
    queries: list[str] = []
    docs: list[str] = []
    scores: list[float] = []
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split(maxsplit=5)  # words after the tag do not count
            if not fields:
                continue
            try:
                query, _, doc, _, score, _ = fields
                scores.append(float(score))
            except ValueError:
                raise DataError(
                    f"{path}:{number}: not a run line: {line.strip()[:80]!r}; six columns are needed: "
                    "query Q0 document rank score tag"
                ) from None
            queries.append(query)
            docs.append(doc)
    if not queries:
        raise DataError(f"{path}: no run lines in it")
    return Run.from_columns(queries, docs, scores)
