"""Corpus, queries and judgements put together into a Dataset, once they are shown to fit."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from harness.datasets.judgements import Judgements
from harness.errors import DataError
from harness.types import Corpus, Dataset, Queries, StringColumn

log = logging.getLogger(__name__)


def assemble(
    name: str,
    split: str,
    corpus: Corpus,
    queries: Queries,
    judged: Judgements,
    *,
    drop_self_hits: bool = False,
    group: str | None = None,
    parts: int = 1,
    instruction: str | None = None,
    load_titles: Callable[[], StringColumn] | None = None,
) -> Dataset:
    """A Dataset of the queries that have a relevant document.

    Raises `DataError` for an empty corpus, no answerable query, and judgements of queries or a corpus that are not
    there. Some relevant documents that are missing are a warning, and count as relevant, as in trec_eval.
    """
    if not len(corpus):
        raise DataError(f"{name}: the corpus is empty")
    for texts in (corpus, queries):
        spaced = pc.index(pc.match_substring_regex(texts.ids.arrow, r"\s"), True).as_py()
        if spaced >= 0:
            raise DataError(
                f"{name}: {texts.noun} id {texts.ids[spaced]!r} has white space, which a TREC run file cannot hold; "
                "replace it in the data and in the judgements"
            )
    answerable = judged.qrels.queries_with_relevant()
    if not answerable:
        raise DataError(f"{judged.path}: no query has a relevant document (a grade above 0)")
    _check_queries(queries, judged, answerable)
    _check_documents(corpus, judged)
    wanted = pc.is_in(queries.ids.arrow, value_set=pa.array(answerable, pa.large_string()))
    kept = Queries(queries.ids.arrow.filter(wanted), queries.texts.arrow.filter(wanted))
    return Dataset(name, split, corpus, kept, judged.qrels, drop_self_hits, group, parts, instruction, load_titles)


def with_candidates(dataset: Dataset, candidates: Mapping[str, Sequence[str]]) -> Dataset:
    """The Dataset, whose queries have the documents to be ranked for each of them. Raises `DataError` as `assemble`."""
    name, known = dataset.name, set(dataset.corpus.ids)
    for query in dataset.queries.ids:
        docs = candidates.get(query, ())
        if len(set(docs)) != len(docs):
            raise DataError(f"{name}: a document is twice among the candidates of query {query!r}: name it once")
        if unknown := next((doc for doc in docs if doc not in known), None):
            raise DataError(f"{name}: candidate {unknown!r} of query {query!r} is not in the corpus")
    if lacking := [query for query in dataset.queries.ids if not candidates.get(query)]:
        log.warning("%s: %d queries have no candidates, the first %r; they score 0", name, len(lacking), lacking[0])
    return replace(dataset, candidates=candidates)


def _check_queries(queries: Queries, judged: Judgements, answerable: list[str]) -> None:
    known = set(queries.ids)
    for query in answerable:
        if query not in known:
            raise DataError(
                f"{judged.place(query)}: judgements of query {query!r}, which is not among the "
                f"{len(known)} queries (such as {next(iter(queries.ids), '-')!r}): add the query or remove its lines"
            )


def _check_documents(corpus: Corpus, judged: Judgements) -> None:
    pairs = [(query, doc) for query, docs in judged.qrels.items() for doc, grade in docs.items() if grade > 0]
    ids = pa.array([doc for _, doc in pairs], pa.large_string())
    missing = pc.filter(ids, pc.invert(pc.is_in(ids, value_set=corpus.ids.arrow.combine_chunks())))
    if not len(missing):
        return
    first = missing[0].as_py()
    query = next(query for query, doc in pairs if doc == first)
    said = (
        f"{judged.path}: {len(missing)} of {len(ids)} relevant documents are not in the corpus, the first {first!r} "
        f"of query {query!r}"
    )
    if len(missing) == len(ids):
        raise DataError(f"{said}: the ids do not match; the corpus has ids such as {corpus.ids[0]!r}")
    log.warning("%s; they count as relevant and cannot be found", said)
