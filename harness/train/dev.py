"""The dev split: queries that are not trained on and a sample of the documents, to choose the best checkpoint.

Searching a sample of the documents is easier than searching the full corpus, so metric values on the dev split are
usually higher than those of an evaluation and must not be compared with them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.base.evaluation import BaseEvaluator

from harness import instrument
from harness.embedding_cache import cache
from harness.errors import ConfigError
from harness.metrics import Metric, score
from harness.train.examples import Examples
from harness.types import Corpus, Dataset, Qrels, Queries, Retriever


@dataclass(frozen=True)
class DevSplit:
    """Dev queries, the documents to search, and the judgements."""

    corpus: Corpus
    queries: Queries
    qrels: Qrels


def hold_out(examples: Examples, queries: int, documents: int | None, seed: int) -> tuple[DevSplit, Examples]:
    """Hold out training queries as dev queries, at most a tenth of them.

    Args:
        examples: The training examples.
        queries: Maximum number of dev queries.
        documents: Number of documents to search; None for all.
        seed: Seed of the draw.

    Returns:
        The dev split, and the examples without its queries.

    Raises:
        ConfigError: There are fewer than ten training queries.
    """
    rng = np.random.default_rng(seed)
    anchors = np.unique(examples.rows[:, 0])
    chosen = rng.permutation(anchors)[: min(queries, len(anchors) // 10)]
    if not len(chosen):
        raise ConfigError(
            f"{examples.source} has {len(anchors)} training queries, too few to hold some out; use at least 10, or a "
            "split to choose checkpoints by: dev.split=dev"
        )
    known = _limit_relevant({int(anchor): examples.known[int(anchor)] for anchor in chosen}, documents)
    dev_queries = Queries([str(anchor) for anchor in known], [examples.anchors[anchor] for anchor in known])
    rows = examples.rows[np.isin(examples.rows[:, 0], list(known))]
    return _dev_split(dev_queries, examples.documents, known, rows[:, 2:], documents, rng), examples.without(known)


def from_split(dataset: Dataset, queries: int, documents: int | None, seed: int) -> DevSplit:
    """Draw dev queries from a split of a dataset.

    Args:
        dataset: The split.
        queries: Maximum number of dev queries.
        documents: Number of documents to search; None for all.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    index_of = {doc: index for index, doc in enumerate(dataset.corpus.ids)}
    drawn = np.sort(rng.permutation(len(dataset.queries))[:queries])
    ids, texts = dataset.queries.ids.take(drawn), dataset.queries.texts.take(drawn)
    relevant = {
        row: {index_of[doc]: grade for doc, grade in dataset.qrels[query].items() if grade > 0 and doc in index_of}
        for row, query in enumerate(ids)
    }
    known = _limit_relevant(relevant, documents)
    dev_queries = Queries([str(row) for row in known], [texts[row] for row in known])
    return _dev_split(dev_queries, dataset.corpus, known, np.empty((0, 0), np.int64), documents, rng)


def _limit_relevant(known: Mapping[int, Mapping[int, int]], documents: int | None) -> dict[int, Mapping[int, int]]:
    """Return the first queries, at least one, whose relevant documents are at most half of the documents."""
    limited: dict[int, Mapping[int, int]] = {}
    relevant: set[int] = set()
    for number, docs in known.items():
        relevant |= docs.keys()
        if limited and documents is not None and len(relevant) > documents // 2:
            break
        limited[number] = docs
    return limited


def _dev_split(
    queries: Queries,
    corpus: Corpus,
    known: Mapping[int, Mapping[int, int]],
    negatives: NDArray[np.int64],
    documents: int | None,
    rng: np.random.Generator,
) -> DevSplit:
    relevant = np.array([doc for docs in known.values() for doc in docs], np.int64)
    candidates = np.concatenate([relevant, negatives.ravel(), rng.permutation(len(corpus))])
    _, first = np.unique(candidates, return_index=True)
    sampled = np.sort(candidates[np.sort(first)[: None if documents is None else max(documents, len(set(relevant)))]])
    sample = Corpus([str(doc) for doc in sampled], corpus.texts.take(sampled))
    grades = {str(anchor): {str(doc): grade for doc, grade in docs.items()} for anchor, docs in known.items()}
    return DevSplit(sample, queries, Qrels(grades))


class Evaluator(BaseEvaluator):
    """Evaluate the current model on a dev split, for sentence-transformers' trainers.

    The model runs in the precision and at the maximum length of training.

    Args:
        dev: The dev split.
        retriever: Searches the dev split with `encoder`.
        encoder: The encoder whose model is replaced by the current one.
        metric: The metric to compute.
        bfloat16: Run the forward pass in bfloat16.
    """

    def __init__(self, dev: DevSplit, retriever: Retriever, encoder: Any, metric: Metric, bfloat16: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dev_split, self._retriever, self._encoder, self._metric = dev, retriever, encoder, metric
        self._bfloat16 = bfloat16
        self.metric = self.primary_metric = str(metric)

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the mean of the metric over the dev queries, as `{metric name: mean}`."""
        self._encoder.wrap(model)
        model.eval()
        dev = self._dev_split
        with instrument.listening(None), cache.using("off"), _autocast(model, self._bfloat16):
            self._retriever.index(dev.corpus)
            run = self._retriever.search(dev.queries, min(self._metric.k or len(dev.corpus), len(dev.corpus)))
        _, values = score(run, dev.qrels, [self._metric])
        return {str(self._metric): float(values[str(self._metric)].mean())}


@contextmanager
def _autocast(model: Any, bfloat16: bool) -> Iterator[None]:
    """Run the model's forward pass in bfloat16 during the block; scores are still computed in float32."""
    forward = model.forward

    def autocast_forward(*features: Any, **kwargs: Any) -> Any:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            return forward(*features, **kwargs)

    model.forward = autocast_forward
    try:
        yield
    finally:
        del model.forward
