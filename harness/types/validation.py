"""Checks that a dataset's corpus, queries, qrels and candidates fit together. Each raises `DataError`."""

import logging
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import DataError
from harness.types.qrels import Qrels
from harness.types.texts import Corpus, Queries

log = logging.getLogger(__name__)


def check_texts(name: str, corpus: Corpus, queries: Queries) -> None:
    """Refuse an empty corpus, and ids with white space."""
    if not len(corpus):
        raise DataError(f"{name}: the corpus is empty")
    for texts in (corpus, queries):
        spaced = pc.index(pc.match_substring_regex(texts.ids.arrow, r"\s"), True).as_py()
        if spaced >= 0:
            raise DataError(
                f"{name}: {texts.noun} id {texts.ids[spaced]!r} has white space, which a TREC run file cannot hold; "
                "replace it in the data and in the judgements"
            )


def check_judged_queries(queries: Queries, judged: Sequence[str], locate: Callable[[str], str]) -> None:
    """Refuse judgements of a query that is not there; `locate` words the place of its first judgement."""
    known = set(queries.ids)
    for query in judged:
        if query not in known:
            raise DataError(
                f"{locate(query)}: judgements of query {query!r}, which is not among the "
                f"{len(known)} queries (such as {next(iter(queries.ids), '-')!r}): add the query or remove its lines"
            )


def check_judged_documents(corpus: Corpus, qrels: Qrels, source: str) -> None:
    """Refuse relevant documents none of which is in the corpus; where some are missing, log a warning."""
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


def check_candidates(name: str, corpus: Corpus, queries: Queries, candidates: Mapping[str, Sequence[str]]) -> None:
    """Refuse candidates that are there twice or not in the corpus; log a warning for queries without any."""
    known = set(corpus.ids)
    for query in queries.ids:
        docs = candidates.get(query, ())
        if len(set(docs)) != len(docs):
            raise DataError(f"{name}: a document is twice among the candidates of query {query!r}: name it once")
        if unknown := next((doc for doc in docs if doc not in known), None):
            raise DataError(f"{name}: candidate {unknown!r} of query {query!r} is not in the corpus")
    if lacking := [query for query in queries.ids if not candidates.get(query)]:
        log.warning("%s: %d queries have no candidates, the first %r; they score 0", name, len(lacking), lacking[0])
