"""A model of mteb as a retriever: `retriever=mteb retriever.model=intfloat/e5-small-v2`."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import weights
from harness.encoders.runtime import cpu
from harness.environment import threads
from harness.errors import ConfigError, RunError
from harness.evaluation.identity import retriever_identity
from harness.instrument import describe_encoder, stage
from harness.interop.mteb import registry
from harness.interop.mteb.registry import library, quiet
from harness.interop.mteb.texts import to_rows
from harness.retrievers.scored import align_scores
from harness.retrievers.state import SetByIndex
from harness.search.topk import TopK
from harness.types import Corpus, Queries, Run
from harness.types.protocols import Component
from harness.types.texts import Texts

_DOCUMENTS = 8192  # encoded at a time
_QUERIES = 512  # compared at a time
_WRAPPERS = {
    "MultiVectorEncoder": "MultiVectorWrapper",
    "SparseEncoder": "SparseEncoderWrapper",
    "CrossEncoder": "CrossEncoderWrapper",
    "SentenceTransformer": "SentenceTransformerEncoderWrapper",
}


class MtebRetriever(Component):
    """A model of mteb.

    For an encoder, `index` stores the corpus embeddings and `search` compares them by the model's similarity. A search
    model indexes and searches as in mteb. A cross-encoder can only score, as the scorer of `retriever=rerank` or on a
    dataset with candidates.

    Args:
        model: A name of mteb's registry, org/name or org/name@revision, or a model object of mteb or
            sentence-transformers.
        task: The mteb task, NAME or NAME:SUBSET:SPLIT, whose prompts and language the model uses; None: any retrieval
            task in English.
        subset: The task's subset; None: its only subset, or the one in `language`.
        split: The task's split; None: the only one that mteb evaluates on.
        language: Code of the subset's language (ISO 639-3), such as deu.
        device: The device; None: as mteb chooses.
        batch_size: Texts in a batch.

    Raises:
        ConfigError: The task or `batch_size` is invalid. Later, on first use: mteb cannot load the model.
    """

    _corpus = SetByIndex[Corpus]()
    _blocks = SetByIndex[list[Any]]()

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
        self._source, self._device, self._batch_size = model, device, batch_size
        self._task = None if task is None else registry.select(task, subset, split, language)
        if self._task is not None:
            self.complete(task=str(self._task[1]), subset=None, split=None, language=None)

    def for_task(
        self, task: str, subset: str | None = None, split: str | None = None, language: str | None = None
    ) -> "MtebRetriever":
        """Return a retriever for a `task`, `subset`, `split` and `language`, or this one if it already has a task."""
        if self._task is not None:
            return self
        named = {"task": task, "subset": subset, "split": split, "language": language}
        return MtebRetriever(**{**self.arguments, **named})

    def weights_identity(self) -> str:
        """Return NAME@REVISION of a model of the registry, or the hash of another model."""
        if not isinstance(self._source, str):
            return retriever_identity(self._source)
        name, _, revision = self._source.partition("@")
        library()
        from mteb.models.model_implementations import MODEL_REGISTRY

        pinned = MODEL_REGISTRY[name].revision if name in MODEL_REGISTRY else None
        return f"{name}@{pinned}" if pinned and revision in ("", pinned) else weights.identity(self._source)

    @cached_property
    def _model(self) -> Any:
        mteb = library()
        if not torch.cuda.is_available():
            cpu.keep_freed_memory()
        with stage("load"), quiet():
            if isinstance(self._source, str):
                return _from_registry(mteb, self._source, self._device)
            return self._source if hasattr(self._source, "mteb_model_meta") else _wrap(self._source)

    @cached_property
    def _searcher(self) -> Any:
        """The model as mteb's `SearchProtocol`; None for an encoder, whose embeddings are compared here."""
        from mteb.models import EncoderProtocol, SearchCrossEncoderWrapper, SearchProtocol

        if isinstance(self._model, EncoderProtocol):
            return None
        return self._model if isinstance(self._model, SearchProtocol) else SearchCrossEncoderWrapper(self._model)

    @property
    def _is_cross_encoder(self) -> bool:
        return self._searcher is not None and self._searcher is not self._model

    @cached_property
    def _task_arguments(self) -> dict[str, Any]:
        """Arguments of mteb's methods that describe the task."""
        if self._task is None:
            return {"task_metadata": _any_task(), "hf_split": "test", "hf_subset": registry.DEFAULT}
        task, task_split = self._task
        return {"task_metadata": task.metadata, "hf_split": task_split.split, "hf_subset": task_split.subset}

    @property
    def _encode_arguments(self) -> dict[str, Any]:
        return {"batch_size": self._batch_size, "show_progress_bar": False}

    def index(self, corpus: Corpus) -> None:
        """Encode the corpus, or let the model index it."""
        meta = self._model.mteb_model_meta
        weights = {"model": meta.name, "source": "mteb", "identity": meta.revision}
        describe_encoder(weights=weights, task=self._task_arguments["task_metadata"].name)
        self._corpus = corpus
        self._blocks = []
        if self._is_cross_encoder:
            return
        if self._searcher is not None:
            with stage("encode"):
                self._index(corpus)
            return
        with stage("encode", total=len(corpus)) as step:
            for first in range(0, len(corpus), _DOCUMENTS):
                part = corpus[first : first + _DOCUMENTS]
                self._blocks.append(self._encode(part, "document"))
                step(len(part))

    def search(self, queries: Queries, k: int) -> Run:
        """Return for each of the `queries` the `k` documents of highest similarity, or a search model's hits."""
        corpus = self._corpus
        k = min(k, len(corpus))
        if self._is_cross_encoder:
            raise ConfigError(
                f"{self._name} is a cross-encoder, which only scores candidates; put it behind a first stage: "
                "harness retriever=rerank retriever@retriever.scorer=mteb retriever.scorer.model=NAME"
            )
        if self._searcher is not None:
            with stage("search"):
                return self._search(queries, k).top(k)
        embeddings = self._encode(queries, "query")
        with stage("search"):
            best = TopK(len(queries), k)
            for first_query, first_doc, similarities in self._similarities(embeddings, len(queries)):
                best.update(np.ascontiguousarray(similarities), first_query, first_doc, corpus.ranks, threads())
            docs, scores = best.hits()
            return Run(queries.ids, corpus.ids, docs, scores, corpus.ranks)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return scores [queries, candidates] of `docs`, indices of that shape padded with -1, for the `queries`.

        A score is -inf at padding.
        """
        corpus = self._corpus
        scores = np.full(docs.shape, -np.inf, np.float32)
        candidates = np.unique(docs[docs >= 0])
        if not len(candidates):
            return scores
        if self._searcher is not None:
            ids = {query: corpus.ids.take(row[row >= 0]) for query, row in zip(queries.ids, docs, strict=True)}
            with stage("score"):
                if self._is_cross_encoder:
                    self._index(Corpus(corpus.ids.take(candidates), corpus.texts.take(candidates)))
                return align_scores(self._search(queries, docs.shape[1], ids), docs)
        embeddings = self._encode(queries, "query")
        with stage("score"):
            for first_query, first_doc, similarities in self._similarities(embeddings, len(queries)):
                columns = docs[first_query : first_query + len(similarities)] - first_doc
                rows, positions = np.nonzero((columns >= 0) & (columns < similarities.shape[1]))
                scores[first_query + rows, positions] = similarities[rows, columns[rows, positions]]
        return scores

    def nbytes(self) -> int:
        """Return the bytes of the embeddings; for a model with its own index, the bytes of the texts."""
        return sum(map(_nbytes, self._blocks)) or int(self._corpus.texts.arrow.nbytes)

    @property
    def _name(self) -> str:
        return str(self._model.mteb_model_meta.name or type(self._model).__name__)

    def _index(self, corpus: Corpus) -> None:
        with quiet():
            self._searcher.index(
                to_rows(corpus), encode_kwargs=self._encode_arguments, num_proc=None, **self._task_arguments
            )

    def _search(self, queries: Queries, k: int, candidates: Mapping[str, Sequence[str]] | None = None) -> Run:
        if getattr(self._searcher, "task_corpus", self._corpus) is None:  # late interaction forgets it after a search
            self._index(self._corpus)
        with quiet():
            hits = self._searcher.search(
                to_rows(queries),
                top_k=k,
                top_ranked=candidates,
                encode_kwargs=self._encode_arguments,
                num_proc=None,
                **self._task_arguments,
            )
        return Run.from_hits(hits, queries.ids, self._corpus)

    def _encode(self, texts: Texts, side: str) -> Any:
        from mteb._create_dataloaders import create_dataloader
        from mteb.types import PromptType

        kind = PromptType(side)
        with stage("encode"), quiet():
            batches = create_dataloader(
                to_rows(texts), task_metadata=_any_task(), prompt_type=kind, batch_size=self._batch_size
            )
            return self._model.encode(batches, prompt_type=kind, **self._task_arguments, **self._encode_arguments)

    def _similarities(self, embeddings: Any, n: int) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """Yield first query, first document and similarities [queries, documents] of blocks of `n` queries."""
        for first in range(0, n, _QUERIES):
            queries = embeddings if n <= _QUERIES else _cut(embeddings, first, min(first + _QUERIES, n))
            for number, block in enumerate(self._blocks):
                with quiet():
                    values = torch.as_tensor(self._model.similarity(queries, block))
                dense = values.to_dense() if values.is_sparse else values
                similarities: NDArray[np.float32] = dense.float().cpu().numpy()
                if np.isnan(similarities).any():
                    raise RunError(f"{self._name}: a similarity is NaN; scores must be finite")
                yield first, number * _DOCUMENTS, similarities


def _from_registry(mteb: Any, model: str, device: str | None) -> Any:
    name, _, revision = model.partition("@")
    try:
        return mteb.get_model(name, revision or None, **({} if device is None else {"device": device}))
    except Exception as error:  # the loaders of 900 models raise many types
        message = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"retriever.model={model!r}: mteb cannot load it: {type(error).__name__}: {message}; give a name of its "
            "registry, org/name or org/name@revision"
        ) from error


def _wrap(model: Any) -> Any:
    """Return a model of sentence-transformers in mteb's wrapper for its kind."""
    import mteb.models

    for kind in type(model).__mro__:
        if kind.__name__ in _WRAPPERS and kind.__module__.startswith("sentence_transformers."):
            return getattr(mteb.models, _WRAPPERS[kind.__name__])(model)
    raise ConfigError(f"{type(model).__name__} is not a model of mteb or sentence-transformers")


def _any_task() -> Any:
    """Return the metadata of a retrieval task in English, for models that read their prompts from a task."""
    library()
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name="Retrieval",
        description="Any dataset",
        type="Retrieval",
        category="t2t",
        dataset={"path": "none", "revision": "none"},
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )


def _cut(embeddings: Any, first: int, last: int) -> Any:
    if isinstance(embeddings, torch.Tensor) and embeddings.is_sparse:
        return embeddings.index_select(0, torch.arange(first, last, device=embeddings.device))
    return embeddings[first:last]


def _nbytes(embeddings: Any) -> int:
    if isinstance(embeddings, torch.Tensor) and embeddings.is_sparse:
        coalesced = embeddings.coalesce()
        return int(coalesced.indices().nbytes + coalesced.values().nbytes)
    return sum(map(_nbytes, embeddings)) if isinstance(embeddings, list) else int(embeddings.nbytes)
