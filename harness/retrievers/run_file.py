"""A run that another system made, as a retriever: `retriever=run_file retriever.path=x.trec.gz`.

Lucene's, a vendor's or an older harness': its rankings are scored, compared and tested like any other. What they cost
there nobody knows here, so it has no throughput.
"""

import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, RunError
from harness.types import Corpus, Queries, Run, trec

log = logging.getLogger(__name__)


class RunFile:
    """A TREC run file, plain or gzipped; scores give the order, as trec_eval reads it."""

    untimed = True
    """Its rankings were made elsewhere: seconds that are spent here are not their cost."""

    def __init__(self, path: str) -> None:
        self._path = Path(os.path.expanduser(path))  # noqa: PTH111  # leaves a user whom nobody knows
        if not self._path.is_file():
            raise ConfigError(f"no file {path!r}; name a TREC run: retriever.path=FILE")
        self._run: Run | None = None

    def index(self, corpus: Corpus) -> None:
        """Read the run. Raises `DataError` for a line that is none, `RunError` where it is of another collection."""
        self._run = run = trec.read(self._path)
        known = set(corpus.ids)
        unknown = [doc for doc in run.doc_ids if doc not in known]
        if len(unknown) == len(run.doc_ids):
            raise RunError(
                f"{self._path}: none of its {len(unknown):,} documents is in the corpus (such as {unknown[0]!r}; the "
                f"corpus has {corpus.ids[0]!r}): it is a run on another collection"
            )
        if unknown:
            log.warning(
                "%s: %d of %d documents are not in the corpus, the first %r; they keep their ranks",
                *(self._path, len(unknown), len(run.doc_ids), unknown[0]),
            )

    def search(self, queries: Queries, k: int) -> Run:
        """The run's k best of each query; none for a query that it does not answer."""
        run = self._read()
        rows = self._rows(run, queries)
        docs = np.where(rows[:, None] >= 0, run.docs[rows], -1)
        return Run(queries.ids, run.doc_ids, docs, run.scores[rows]).top(k)

    def _read(self) -> Run:
        if self._run is None:
            raise RunError("search comes after index")
        return self._run

    def _rows(self, run: Run, queries: Queries) -> NDArray[np.intp]:
        """The run's row of each query; -1 where it has none. Raises `RunError` where it has none at all."""
        places = {query: row for row, query in enumerate(run.query_ids)}
        rows = np.array([places.get(query, -1) for query in queries.ids], np.intp)
        if len(rows) and (rows < 0).all():
            raise RunError(
                f"{self._path}: it answers none of the queries (it has {run.query_ids[0]!r}, the dataset "
                f"{queries.ids[0]!r}): it is a run on another collection or split"
            )
        if lacking := int((rows < 0).sum()):
            log.warning("%s: %d of %d queries are not in it; they score 0", self._path, lacking, len(rows))
        return rows

    def nbytes(self) -> int:
        """Bytes of the run as it is held."""
        run = self._read()
        return int(run.docs.nbytes + run.scores.nbytes)
