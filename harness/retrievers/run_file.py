"""A run (ranked documents) of another system as a retriever: `retriever=run_file retriever.path=x.trec.gz`.

Rankings of Lucene, a vendor or an older system are scored, compared and tested like any other, but not timed.
"""

import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.errors import ConfigError, RunError
from harness.retrievers.scored import align_scores
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Queries, Run, StringColumn, trec
from harness.types.protocols import Component

log = logging.getLogger(__name__)


class FixedRun(Component):
    """A retriever whose rankings are those of a run.

    Documents that the corpus does not have keep their ranks, as in trec_eval; their indices follow the corpus's.

    Args:
        run: Rankings of the dataset's queries.
    """

    is_precomputed = True
    """True: another system computed the rankings, so timings measured here would not be its timings."""

    _run = SetByIndex[Run]()

    def __init__(self, run: Run) -> None:
        self._source_run = run
        self._name = "the run"

    def _read(self) -> Run:
        return self._source_run

    def index(self, corpus: Corpus) -> None:
        """Match the run's documents with the corpus.

        Raises:
            DataError: A line of the file is not a line of a TREC run.
            RunError: None of the documents is in the corpus.
        """
        run = self._read()
        ids = StringColumn(run.doc_ids)
        positions = corpus.ids.positions(ids)
        unknown = ids.arrow.filter(pa.array(positions < 0))
        if len(ids) and len(unknown) == len(ids):
            raise RunError(
                f"{self._name}: none of its {len(ids):,} documents is in the corpus (such as {unknown[0].as_py()!r}; "
                f"the corpus has {corpus.ids[0]!r}): the run is for another dataset"
            )
        if len(unknown):
            log.warning(
                "%s: %d of %d documents are not in the corpus, the first %r; they keep their ranks",
                *(self._name, len(unknown), len(ids), unknown[0].as_py()),
            )
        positions[positions < 0] = np.arange(len(corpus), len(corpus) + len(unknown))
        docs = np.where(run.docs >= 0, positions[run.docs], -1)
        doc_ids = StringColumn(pa.chunked_array([*corpus.ids.arrow.iterchunks(), *unknown.iterchunks()]))
        self._run = Run(run.query_ids, doc_ids, docs, run.scores)

    def search(self, queries: Queries, k: int) -> Run:
        """Return the run's `k` best hits of each of the `queries`; no hits for a query that the run lacks."""
        run = self._run
        rows = self._rows(run, queries)
        docs = np.where(rows[:, None] >= 0, run.docs[rows], -1)
        return Run(queries.ids, run.doc_ids, docs, run.scores[rows]).top(k)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the run's scores of `docs` [queries, candidates] for `queries`; -inf for documents that it lacks."""
        return align_scores(self.search(queries, self._run.depth), docs)

    def nbytes(self) -> int:
        """Return the bytes of the run in memory."""
        return int(self._run.docs.nbytes + self._run.scores.nbytes)

    def _rows(self, run: Run, queries: Queries) -> NDArray[np.intp]:
        """Return the run's row of each query, -1 for a query that it lacks. Raises `RunError` if it lacks all."""
        row_of_query = {query: row for row, query in enumerate(run.query_ids)}
        rows = np.array([row_of_query.get(query, -1) for query in queries.ids], np.intp)
        if len(rows) and (rows < 0).all():
            first = run.query_ids[0] if len(run) else None
            raise RunError(
                f"{self._name}: it has none of the queries (it has {first!r}, the dataset {queries.ids[0]!r}): the run "
                "is for another dataset or split"
            )
        if missing := int((rows < 0).sum()):
            log.warning("%s: %d of %d queries are not in it; they score 0", self._name, missing, len(rows))
        return rows


class RunFile(FixedRun):
    """The rankings of a TREC run file, ordered by score; the rank column is ignored, as in trec_eval.

    Args:
        path: The file, optionally gzipped.
        name: Name of the system, shown in place of the path.
    """

    def __init__(self, path: str, name: str | None = None) -> None:
        # unlike Path.expanduser, os.path leaves ~name of an unknown user unchanged
        self._path = Path(os.path.expanduser(path))  # noqa: PTH111
        if not self._path.is_file():
            raise ConfigError(f"no file {path!r}; give a TREC run: retriever.path=FILE")
        super().__init__(Run([], [], np.empty((0, 0), np.int32), np.empty((0, 0), np.float32)))
        self._name = str(self._path)

    def _read(self) -> Run:
        return trec.read(self._path)
