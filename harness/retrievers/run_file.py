"""A run that another system made, as a retriever: `retriever=run_file retriever.path=x.trec.gz`.

Lucene's, a vendor's or an older harness': its rankings are scored, compared and tested like any other. What they cost
there nobody knows here, so it has no throughput.
"""

import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import ConfigError, RunError
from harness.retrievers.scored import aligned
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Queries, Run, StringColumn, trec

log = logging.getLogger(__name__)


class RunFile:
    """A TREC run file, plain or gzipped; scores give the order, as trec_eval reads it. `name` is shown for its path.

    Documents that the corpus does not have keep their ranks, as in trec_eval; they are numbered behind the corpus'.
    """

    untimed = True
    """Its rankings were made elsewhere: seconds that are spent here are not their cost."""

    _run = SetByIndex[Run]()

    def __init__(self, path: str, name: str | None = None) -> None:
        self._path = Path(os.path.expanduser(path))  # noqa: PTH111  # leaves a user whom nobody knows
        self._name = name
        if not self._path.is_file():
            raise ConfigError(f"no file {path!r}; name a TREC run: retriever.path=FILE")

    def index(self, corpus: Corpus) -> None:
        """Read the run. Raises `DataError` for a line that is none, `RunError` where it is of another collection."""
        run = trec.read(self._path)
        ids = pa.array(list(run.doc_ids), pa.large_string())
        numbers = pc.index_in(ids, value_set=corpus.ids.arrow.combine_chunks())
        unknown = ids.filter(numbers.is_null())
        if len(unknown) == len(ids):
            raise RunError(
                f"{self._path}: none of its {len(ids):,} documents is in the corpus (such as {unknown[0].as_py()!r}; "
                f"the corpus has {corpus.ids[0]!r}): it is a run on another collection"
            )
        if len(unknown):
            log.warning(
                "%s: %d of %d documents are not in the corpus, the first %r; they keep their ranks",
                *(self._path, len(unknown), len(ids), unknown[0].as_py()),
            )
        places = numbers.to_numpy(zero_copy_only=False).copy()
        places[np.isnan(places)] = np.arange(len(corpus), len(corpus) + len(unknown))
        docs = np.where(run.docs >= 0, places.astype(np.int32)[run.docs], -1)
        doc_ids = StringColumn(pa.chunked_array([*corpus.ids.arrow.iterchunks(), unknown]))
        self._run = Run(run.query_ids, doc_ids, docs, run.scores)

    def search(self, queries: Queries, k: int) -> Run:
        """The run's k best of each query; none for a query that it does not answer."""
        rows = self._rows(queries)
        docs = np.where(rows[:, None] >= 0, self._run.docs[rows], -1)
        return Run(queries.ids, self._run.doc_ids, docs, self._run.scores[rows]).top(k)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """The run's scores [queries, candidates] of the documents `docs`; -inf for those that it does not rank."""
        return aligned(self.search(queries, self._run.depth), docs)

    def _rows(self, queries: Queries) -> NDArray[np.intp]:
        """The run's row of each query; -1 where it has none. Raises `RunError` where it has none at all."""
        places = {query: row for row, query in enumerate(self._run.query_ids)}
        rows = np.array([places.get(query, -1) for query in queries.ids], np.intp)
        if len(rows) and (rows < 0).all():
            raise RunError(
                f"{self._path}: it answers none of the queries (it has {self._run.query_ids[0]!r}, the dataset "
                f"{queries.ids[0]!r}): it is a run on another collection or split"
            )
        if lacking := int((rows < 0).sum()):
            log.warning("%s: %d of %d queries are not in it; they score 0", self._path, lacking, len(rows))
        return rows

    def nbytes(self) -> int:
        """Bytes of the run as it is held."""
        return int(self._run.docs.nbytes + self._run.scores.nbytes)
