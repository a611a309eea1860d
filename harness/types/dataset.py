"""Dataset: a corpus, queries and judgements, and the checks that they fit together."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import DataError
from harness.types.containers import StringColumn
from harness.types.qrels import Qrels
from harness.types.record import DatasetMetadata
from harness.types.run import Run
from harness.types.texts import Corpus, Queries

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """A test collection: a corpus, queries and the judgements of one split.

    Attributes:
        name: Name in tables and records.
        split: Name of the split of the queries and judgements.
        corpus: The documents.
        queries: The queries that are searched and scored.
        qrels: Judgements, also of queries that are not in `queries`.
        drop_self_hits: The queries are documents of the corpus, and a query's own document is dropped from its hits
            (ArguAna, Quora).
        group: Name of the dataset that this one is a part of (CQADupStack for one of its forums).
        parts: Number of parts of `group`.
        instruction: Description of the task, which configs may use in prompts.
        load_titles: Loads the documents' titles, in the order of the corpus; None unless the source has a title field.
        candidates: Document ids to rank for each query instead of the whole corpus (reranking).
        metadata: The source's description, for the record: citation, licence, languages, main score.
        extra_metrics: Computes metrics that the source defines itself: means over a run's queries, by name.

    Examples:
        >>> dataset = Dataset.from_dicts({"d1": "Cats purr."}, {"q1": "what purrs"}, {"q1": {"d1": 1}})
        >>> dataset.corpus["d1"], dataset.qrels["q1"]["d1"]
        ('Cats purr.', 1)
    """

    name: str
    split: str
    corpus: Corpus
    queries: Queries
    qrels: Qrels
    drop_self_hits: bool = False
    group: str | None = None
    parts: int = 1
    instruction: str | None = None
    load_titles: Callable[[], StringColumn] | None = field(default=None, compare=False)
    candidates: Mapping[str, Sequence[str]] | None = None
    metadata: DatasetMetadata = field(default_factory=DatasetMetadata, compare=False)
    extra_metrics: Callable[[Run], Mapping[str, float]] | None = field(default=None, compare=False)

    @classmethod
    def from_dicts(
        cls,
        corpus: Corpus | Mapping[str, str | Mapping[str, Any]],
        queries: Queries | Mapping[str, str],
        qrels: Qrels | Mapping[str, Mapping[str, int]],
        *,
        name: str = "dataset",
        split: str = "test",
        drop_self_hits: bool = False,
        instruction: str | None = None,
        candidates: Mapping[str, Sequence[str]] | None = None,
    ) -> "Dataset":
        """Build a dataset from dicts, such as those of BEIR's `GenericDataLoader`, or from containers, and check it.

        Args:
            corpus: `{document id: text}` or `{document id: {"title": ..., "text": ...}}`.
            queries: `{query id: text}`. Queries without a relevant document are left out.
            qrels: `{query id: {document id: grade}}`.
            name: Name in tables and records.
            split: Name of the split.
            drop_self_hits: Whether a query's own document is dropped from its hits.
            instruction: Description of the task, which configs may use in prompts.
            candidates: Document ids to rank for each query instead of the whole corpus.

        Raises:
            DataError: A value has a wrong type, or the parts do not fit together; see `validated`.
        """
        return cls(
            name,
            split,
            corpus if isinstance(corpus, Corpus) else Corpus.from_dict(corpus),
            queries if isinstance(queries, Queries) else Queries.from_dict(queries),
            qrels if isinstance(qrels, Qrels) else Qrels(qrels),
            drop_self_hits,
            instruction=instruction,
            candidates=candidates,
        ).validated()

    @classmethod
    def from_pandas(
        cls, corpus: "pd.DataFrame", queries: "pd.DataFrame", qrels: "pd.DataFrame", **settings: Any
    ) -> "Dataset":
        """Build a dataset from DataFrames and check it.

        Args:
            corpus: A row for each document; columns as for `Corpus.from_pandas`.
            queries: A row for each query; columns as for `Queries.from_pandas`.
            qrels: A row for each judgement; columns as for `Qrels.from_pandas`.
            settings: Keyword arguments of `from_dicts`, such as `name`.

        Raises:
            DataError: A column is missing, or as `from_dicts`.
        """
        parts = Corpus.from_pandas(corpus), Queries.from_pandas(queries), Qrels.from_pandas(qrels)
        return cls.from_dicts(*parts, **settings)

    def validated(self, source: str = "qrels", locate: Callable[[str], str] | None = None) -> "Dataset":
        """Check that the parts fit together; return the dataset of the queries that have a relevant document.

        Relevant documents that are not in the corpus are logged as a warning and count as relevant, as in trec_eval.

        Args:
            source: Name of the file or other source of the judgements, for messages.
            locate: Returns file and line of a query's first judgement, for messages; None to use `source`.

        Raises:
            DataError: The corpus is empty, an id has white space, no query has a relevant document, a judged query is
                not among the queries, no relevant document or not every candidate is in the corpus, or a candidate
                is repeated.
        """
        _check_texts(self.name, self.corpus, self.queries)
        judged = self.qrels.queries_with_relevant()
        if not judged:
            raise DataError(f"{source}: no query has a relevant document (a grade above 0)")
        _check_judged_queries(self.queries, judged, locate or (lambda _: source))
        _check_judged_documents(self.corpus, self.qrels, source)
        is_judged = pc.is_in(self.queries.ids.arrow, value_set=pa.array(judged, pa.large_string()))
        queries = Queries(self.queries.ids.arrow.filter(is_judged), self.queries.texts.arrow.filter(is_judged))
        if self.candidates is not None:
            _check_candidates(self.name, self.corpus, queries, self.candidates)
        return replace(self, queries=queries)

    def with_candidates(self, candidates: Mapping[str, Sequence[str]]) -> "Dataset":
        """Return the dataset with other candidates, document ids by query. Raises `DataError` as `validated`."""
        _check_candidates(self.name, self.corpus, self.queries, candidates)
        return replace(self, candidates=candidates)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that a score depends on, 32 hex digits."""
        judged = sorted((query, sorted(docs.items())) for query, docs in self.qrels.items())
        content = [self.corpus.fingerprint, self.queries.fingerprint, judged, self.drop_self_hits]
        if self.candidates is not None:
            content.append(sorted((query, sorted(self.candidates.get(query, ()))) for query in self.queries.ids))
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()

    @cached_property
    def candidate_matrix(self) -> NDArray[np.int32] | None:
        """Candidate document indices, shape [queries, max_candidates], padded with -1; None for the whole corpus."""
        if self.candidates is None:
            return None
        candidates = [list(self.candidates.get(query, ())) for query in self.queries.ids]
        lengths = np.array([len(docs) for docs in candidates], np.int64)
        indices = self.corpus.ids.positions(doc for docs in candidates for doc in docs)
        matrix = np.full((len(candidates), int(lengths.max(initial=0))), -1, np.int32)
        matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = indices
        return matrix


def _check_texts(name: str, corpus: Corpus, queries: Queries) -> None:
    """Raise `DataError` for an empty corpus or an id with white space."""
    if not len(corpus):
        raise DataError(f"{name}: the corpus is empty")
    for texts in (corpus, queries):
        spaced = pc.index(pc.match_substring_regex(texts.ids.arrow, r"\s"), True).as_py()
        if spaced >= 0:
            raise DataError(
                f"{name}: {texts.noun} id {texts.ids[spaced]!r} has white space, which a TREC run file cannot hold; "
                "replace it in the data and in the judgements"
            )


def _check_judged_queries(queries: Queries, judged: Sequence[str], locate: Callable[[str], str]) -> None:
    """Raise `DataError` for judgements of an unknown query; `locate` returns the place of its first judgement."""
    known = set(queries.ids)
    for query in judged:
        if query not in known:
            raise DataError(
                f"{locate(query)}: judgements of query {query!r}, which is not among the "
                f"{len(known)} queries (such as {next(iter(queries.ids), '-')!r}): add the query or remove its lines"
            )


def _check_judged_documents(corpus: Corpus, qrels: Qrels, source: str) -> None:
    """Raise `DataError` if no relevant document is in the corpus; log a warning if some are missing."""
    pairs = [(query, doc) for query, docs in qrels.items() for doc, grade in docs.items() if grade > 0]
    ids = pa.array([doc for _, doc in pairs], pa.large_string())
    missing = pc.filter(ids, pc.invert(pc.is_in(ids, value_set=corpus.ids.arrow.combine_chunks())))
    if not len(missing):
        return
    first = missing[0].as_py()
    query = next(query for query, doc in pairs if doc == first)
    message = (
        f"{source}: {len(missing)} of {len(ids)} relevant documents are not in the corpus, the first {first!r} "
        f"of query {query!r}"
    )
    if len(missing) == len(ids):
        raise DataError(f"{message}: the ids do not match; the corpus has ids such as {corpus.ids[0]!r}")
    log.warning("%s; they count as relevant and cannot be found", message)


def _check_candidates(name: str, corpus: Corpus, queries: Queries, candidates: Mapping[str, Sequence[str]]) -> None:
    """Raise `DataError` for a repeated or unknown candidate; log a warning for queries without candidates."""
    known = set(corpus.ids)
    for query in queries.ids:
        docs = candidates.get(query, ())
        if len(set(docs)) != len(docs):
            raise DataError(f"{name}: a document occurs twice among the candidates of query {query!r}: list it once")
        if unknown := next((doc for doc in docs if doc not in known), None):
            raise DataError(f"{name}: candidate {unknown!r} of query {query!r} is not in the corpus")
    if lacking := [query for query in queries.ids if not candidates.get(query)]:
        log.warning("%s: %d queries have no candidates, the first %r; they score 0", name, len(lacking), lacking[0])
