"""TREC run files: query, Q0, document, rank, score, tag; plain or gzipped."""

import gzip
import re
from pathlib import Path
from typing import IO

import numpy as np

from harness.errors import DataError, RunError
from harness.types.run import Run, ids_at

_SPACE = re.compile(r"\s")


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """Open a text file for reading, unpacking it when its name ends in .gz; `newline` as for `open`."""
    opened = gzip.open if path.suffix == ".gz" else open
    # a byte order mark, which spreadsheets write, is no text
    return opened(path, "rt", encoding="utf-8-sig", newline=newline)


def dump(run: Run, tag: str) -> str:
    """The run in six columns, strictly in rank order, with the fewest digits that give the float32 score back."""
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
    """Write a run file, gzipped when the name ends in .gz; the same run gives the same bytes."""
    text = dump(run, tag).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read(path: Path) -> Run:
    """Read a run file as trec_eval does: the score gives the order, the rank column does not count.

    Raises `DataError` naming file and line, `RunError` for a score or document that no metric may score.
    """
    doc_numbers: dict[str, int] = {}
    found: dict[str, list[tuple[int, float]]] = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split(maxsplit=5)  # what follows the tag does not count
            if not fields:
                continue
            try:
                query, _, doc, _, score, _ = fields
                hit = (doc_numbers.setdefault(doc, len(doc_numbers)), float(score))
            except ValueError:
                raise DataError(
                    f"{path}:{number}: not a run line: {line.strip()[:80]!r}; six columns are needed: "
                    "query Q0 document rank score tag"
                ) from None
            found.setdefault(query, []).append(hit)
    if not found:
        raise DataError(f"{path}: no run lines in it")
    docs = np.full((len(found), max(map(len, found.values()))), -1, np.int32)
    scores = np.zeros(docs.shape, np.float32)
    for row, hits in enumerate(found.values()):
        docs[row, : len(hits)] = [doc for doc, _ in hits]
        with np.errstate(over="ignore"):  # becomes infinite, which Run refuses by the query's name
            scores[row, : len(hits)] = [score for _, score in hits]
    return Run(list(found), list(doc_numbers), docs, scores)
