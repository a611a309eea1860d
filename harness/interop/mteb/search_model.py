"""Any of our retrievers as a model of mteb: `mteb.evaluate(SearchModel(retriever), tasks)`."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.datasets.texts import gathered
from harness.errors import DataError
from harness.evaluation import identity
from harness.evaluation.remembered import label_of
from harness.interop.mteb import names, texts
from harness.interop.mteb.registry import library, quiet
from harness.retrievers.scored import scored
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Queries, Retriever, Run


class SearchModel:
    """mteb's `SearchProtocol` over one of our retrievers.

    mteb files its results by `name` (org/name) and `revision`. Where no revision is given it is the retriever's
    identity, as in our records, so that another setting never finds this one's results, and exported records are found.
    """

    _corpus = SetByIndex[Corpus]()

    def __init__(self, retriever: Retriever, name: str | None = None, revision: str | None = None) -> None:
        self.retriever = retriever
        self._name = name or f"harness/{names.slug(label_of(retriever))}"
        self._revision = revision or identity.retriever_identity(retriever)

    @cached_property
    def mteb_model_meta(self) -> Any:
        """Name and revision, and that texts are what it reads."""
        library()
        from mteb.models import ModelMeta

        with quiet():
            return ModelMeta.create_empty(overwrites={"name": self._name, "revision": self._revision})

    def index(self, corpus: Any, **_: Any) -> None:
        """Index mteb's corpus; what a task, a split or a subset is, a retriever does not know."""
        self._corpus = gathered(Corpus, texts.documents(corpus))
        with identity.in_use(self.retriever):
            self.retriever.index(self._corpus)

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Scores by query and document: the `top_k` best, or those of each query's own candidates, scored directly.

        Every query is answered, if only by nothing. Raises `RunError` for a NaN, an infinite score, a document twice.
        """
        asked = gathered(Queries, texts.queries(queries))
        run = self.retriever.search(asked, top_k) if top_ranked is None else self._ranked(asked, top_ranked).top(top_k)
        return run.to_dict()

    def _ranked(self, asked: Queries, top_ranked: Mapping[str, Sequence[str]]) -> Run:
        own = [list(dict.fromkeys(top_ranked.get(query, ()))) for query in asked.ids]
        docs = np.full((len(own), max(map(len, own), default=0)), -1, np.int32)
        known = self._corpus.ids.arrow.combine_chunks()
        for row, ids in enumerate(own):
            numbers = pc.index_in(pa.array(ids, pa.large_string()), value_set=known)
            if numbers.null_count:
                missing = ids[pc.index(numbers.is_null(), True).as_py()]
                raise DataError(f"candidate {missing!r} of query {asked.ids[row]!r} is not in the corpus")
            docs[row, : len(ids)] = numbers.to_numpy()
        return scored(self.retriever, asked, self._corpus.ids, docs)
