"""Any model of mteb as one of our retrievers: `retriever=mteb retriever.model=intfloat/e5-small-v2`.

An encoder's vectors are kept by `index` and compared by the model's own similarity; a search model indexes and searches
as it does for mteb; a cross-encoder only scores, as the scorer of `retriever=rerank` or for a reranking task.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import weights
from harness.encoders.runtime import cpu
from harness.environment import threads
from harness.errors import ConfigError, RunError
from harness.instrument import fact, stage
from harness.interop import rankings
from harness.interop.mteb import registry
from harness.interop.mteb.registry import library, quiet
from harness.retrievers.state import SetByIndex
from harness.search.topk import Best
from harness.types import Corpus, Queries, Run, StringColumn
from harness.types.component import Component
from harness.types.texts import Texts

_CHUNK = 8192
_ROWS = 512


class Retriever(Component):
    """`model` is a name of mteb's registry (name@revision), or a model object of mteb's or sentence-transformers.

    mteb's models read their prompts and languages from a task: `task`, with `subset`, `split` and `language` as for
    `load`, names one; without it they are asked as for any retrieval task in English.
    """

    _doc_ids = SetByIndex[StringColumn]()
    _texts = SetByIndex[Corpus]()
    _parts = SetByIndex[list[Any]]()

    family: ClassVar[str] = "mteb"

    def __init__(
        self,
        model: Any,
        task: str | None = None,
        subset: str | None = None,
        split: str | None = None,
        language: str | None = None,
        device: str | None = None,
        batch_size: int = 32,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"retriever.batch_size={batch_size} must be at least 1")
        self._named, self._device, self._batch = model, device, batch_size
        self._task = None if task is None else (task, subset, split, language)

    @cached_property
    def _model(self) -> Any:
        mteb = library()
        if not torch.cuda.is_available():
            cpu.keep_freed_memory()
        with stage("load"), quiet():
            if isinstance(self._named, str):
                return _from_registry(mteb, self._named, self._device)
            if hasattr(self._named, "mteb_model_meta"):
                return self._named
            return _wrapped(self._named)

    @cached_property
    def _asked(self) -> dict[str, Any]:
        """What mteb's models want to know of a task."""
        if self._task is None:
            return {"task_metadata": _anything(), "hf_split": "test", "hf_subset": registry.DEFAULT}
        own, place = registry.chosen(*self._task)
        return {"task_metadata": own.metadata, "hf_split": place.split, "hf_subset": place.subset}

    def weights_identity(self) -> str | None:
        """Return the commit of a named branch or tag; None where the model, or its name in mteb's registry, says it."""
        named = self._named
        return weights.identity(named) if isinstance(named, str) and "@" in named else None

    def index(self, corpus: Corpus) -> None:
        """Encode the corpus, or let the model index it."""
        self._say()
        self._doc_ids, self._ranks, self._texts = corpus.ids, corpus.ranks, corpus
        self._parts = []
        self._bytes = 0
        if self._searches:
            with stage("encode"), quiet():
                self._model.index(_rows(corpus), encode_kwargs=self._settings, num_proc=None, **self._asked)
            return
        if self._encodes:
            with stage("encode", total=len(corpus)) as step:
                for first in range(0, len(corpus), _CHUNK):
                    part = corpus[first : first + _CHUNK]
                    self._parts.append(self._encoded(part, "document"))
                    self._bytes += _nbytes(self._parts[-1])
                    step(len(part))

    def search(self, queries: Queries, k: int) -> Run:
        """The k documents of highest similarity, or what the model finds."""
        k = min(k, len(self._doc_ids))
        if self._searches:
            with stage("search"), quiet():
                found = self._model.search(
                    _rows(queries), top_k=k, encode_kwargs=self._settings, num_proc=None, **self._asked
                )
            return rankings.from_dict(queries.ids, self._texts, found).top(k)
        if not self._encodes:
            raise ConfigError(
                f"{self._said} is a cross-encoder: it scores candidates and finds none; put it behind a first stage: "
                "harness retriever=rerank retriever@retriever.scorer=mteb retriever.scorer.model=NAME"
            )
        vectors = self._encoded(queries, "query")
        with stage("search"):
            best = Best(len(queries), k)
            for first, offset, values in self._similarities(vectors, len(queries)):
                best.offer(np.ascontiguousarray(values), first, offset, self._ranks, threads())
            docs, scores = best.hits()
            return Run(queries.ids, self._doc_ids, docs, scores, self._ranks)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """The model's scores [queries, candidates] of the documents `docs`; -inf where there is none (-1)."""
        if not self._encodes and not self._searches:
            return self._judged(queries, docs)
        if self._searches:
            return self._searched(queries, docs)
        vectors = self._encoded(queries, "query")
        found = np.full(docs.shape, -np.inf, np.float32)
        with stage("score"):
            for first, offset, values in self._similarities(vectors, len(queries)):
                own = docs[first : first + len(values)] - offset
                rows, columns = np.nonzero((own >= 0) & (own < values.shape[1]))
                found[first + rows, columns] = values[rows, own[rows, columns]]
        return found

    def nbytes(self) -> int:
        """Bytes of the vectors; of a model that holds its own index, those of the texts that it was given."""
        return self._bytes or int(self._texts.texts.arrow.nbytes)

    @property
    def _encodes(self) -> bool:
        from mteb.models import EncoderProtocol

        return isinstance(self._model, EncoderProtocol)

    @property
    def _searches(self) -> bool:
        from mteb.models import SearchProtocol

        return isinstance(self._model, SearchProtocol) and not self._encodes

    @property
    def _said(self) -> str:
        return str(self._model.mteb_model_meta.name or type(self._model).__name__)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"batch_size": self._batch, "show_progress_bar": False}

    def _say(self) -> None:
        about = self._model.mteb_model_meta
        fact("weights", {"model": about.name, "source": "mteb", "identity": about.revision})
        fact("task", self._asked["task_metadata"].name)

    def _loader(self, texts: Texts, side: str) -> Any:
        from mteb._create_dataloaders import create_dataloader
        from mteb.types import PromptType

        return create_dataloader(
            _rows(texts), task_metadata=_anything(), prompt_type=PromptType(side), batch_size=self._batch
        )

    def _encoded(self, texts: Texts, side: str) -> Any:
        from mteb.types import PromptType

        with stage("encode"), quiet():
            return self._model.encode(
                self._loader(texts, side), prompt_type=PromptType(side), **self._asked, **self._settings
            )

    def _similarities(self, vectors: Any, n: int) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """First query, first document, and the similarities [queries, documents] of blocks of both."""
        for first in range(0, n, _ROWS):
            block = vectors if n <= _ROWS else _cut(vectors, first, min(first + _ROWS, n))
            for number, part in enumerate(self._parts):
                with quiet():
                    values = torch.as_tensor(self._model.similarity(block, part))
                dense = values.to_dense() if values.is_sparse else values
                found: NDArray[np.float32] = dense.float().cpu().numpy()
                if np.isnan(found).any():
                    raise RunError(f"{self._said}: a similarity is NaN; scores must be finite")
                yield first, number * _CHUNK, found

    def _judged(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        found = np.full(docs.shape, -np.inf, np.float32)
        rows, columns = np.nonzero(docs >= 0)
        if not len(rows):
            return found
        asked = Queries([str(n) for n in range(len(rows))], queries.texts.take(rows))
        given = Corpus(asked.ids, self._texts.texts.take(docs[rows, columns]))
        with stage("score"), quiet():
            values = self._model.predict(
                self._loader(asked, "query"), self._loader(given, "document"), **self._asked, **self._settings
            )
        found[rows, columns] = np.asarray(torch.as_tensor(values).float().cpu()).reshape(-1)
        return found

    def _searched(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        given = {query: self._doc_ids.take(own[own >= 0]) for query, own in zip(queries.ids, docs, strict=True)}
        with stage("score"), quiet():
            answer = self._model.search(
                _rows(queries),
                top_k=max(1, docs.shape[1]),
                top_ranked=given,
                encode_kwargs=self._settings,
                num_proc=None,
                **self._asked,
            )
        found = np.full(docs.shape, -np.inf, np.float32)
        for row, query in enumerate(queries.ids):
            scores: Mapping[str, float] = answer.get(query, {})
            held = np.flatnonzero(docs[row] >= 0)
            found[row, held] = [scores.get(doc, -np.inf) for doc in given[query]]
        return found


def _from_registry(mteb: Any, named: str, device: str | None) -> Any:
    name, _, revision = named.partition("@")
    settings = {} if device is None else {"device": device}
    try:
        return mteb.get_model(name, revision or None, **settings)
    except Exception as error:  # the loaders of 900 models fail in many ways
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"retriever.model={named!r}: mteb cannot load it: {type(error).__name__}: {said}; give a name of its "
            "registry, org/name or org/name@revision"
        ) from error


def _wrapped(model: Any) -> Any:
    """A model of sentence-transformers in mteb's wrapper for its kind."""
    import sentence_transformers as library
    from mteb.models import sentence_transformer_wrapper as wrappers

    for kind, wrapper in (
        ("MultiVectorEncoder", "MultiVectorWrapper"),
        ("SparseEncoder", "SparseEncoderWrapper"),
        ("CrossEncoder", "CrossEncoderWrapper"),
        ("SentenceTransformer", "SentenceTransformerEncoderWrapper"),
    ):
        if isinstance(model, getattr(library, kind, ())):
            return getattr(wrappers, wrapper)(model)
    raise ConfigError(f"{type(model).__name__} is no model of mteb or sentence-transformers")


def _anything() -> Any:
    """A retrieval task that is none in particular."""
    library()
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name="Retrieval",
        description="Any collection",
        type="Retrieval",
        category="t2t",
        dataset={"path": "none", "revision": "none"},
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )


def _rows(texts: Texts) -> Any:
    from datasets import Dataset as Rows

    return Rows.from_dict({"id": list(texts.ids), "text": list(texts.texts)})


def _cut(vectors: Any, first: int, last: int) -> Any:
    if isinstance(vectors, torch.Tensor) and vectors.is_sparse:
        return vectors.index_select(0, torch.arange(first, last, device=vectors.device))
    return vectors[first:last]


def _nbytes(vectors: Any) -> int:
    if isinstance(vectors, torch.Tensor) and vectors.is_sparse:
        found = vectors.coalesce()
        return int(found.indices().nbytes + found.values().nbytes)
    if isinstance(vectors, list):
        return sum(map(_nbytes, vectors))
    return int(vectors.nbytes)
