"""The dev split: queries that are not trained on, a sample of the documents, and our own metric of what they find.

A sample of the documents is easier than the whole corpus: its figure chooses a checkpoint and is no result.
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
class Dev:
    """Queries, the documents that are searched for them, and the judgements."""

    corpus: Corpus
    queries: Queries
    qrels: Qrels


def held_out(examples: Examples, queries: int, documents: int | None, seed: int) -> tuple[Dev, Examples]:
    """Dev queries from the anchors, a tenth of them at most, and the examples without them."""
    rng = np.random.default_rng(seed)
    anchors = np.unique(examples.rows[:, 0])
    chosen = rng.permutation(anchors)[: min(queries, len(anchors) // 10)]
    if not len(chosen):
        raise ConfigError(
            f"{examples.said} has {len(anchors)} training queries, too few to hold some out; give 10 or more, or a "
            "split to choose checkpoints by: dev.split=dev"
        )
    known = _within({int(anchor): examples.known[int(anchor)] for anchor in chosen}, documents)
    asked = Queries([str(anchor) for anchor in known], [examples.anchors[anchor] for anchor in known])
    rows = examples.rows[np.isin(examples.rows[:, 0], list(known))]
    return _dev(asked, examples.documents, known, rows[:, 2:], documents, rng), examples.without(known)


def of_split(dataset: Dataset, queries: int, documents: int | None, seed: int) -> Dev:
    """Dev queries from a split of the dataset."""
    rng = np.random.default_rng(seed)
    place = {doc: number for number, doc in enumerate(dataset.corpus.ids)}
    chosen = np.sort(rng.permutation(len(dataset.queries))[:queries])
    ids, texts = dataset.queries.ids.take(chosen), dataset.queries.texts.take(chosen)
    judged = {
        row: {place[doc]: grade for doc, grade in dataset.qrels[query].items() if grade > 0 and doc in place}
        for row, query in enumerate(ids)
    }
    known = _within(judged, documents)
    asked = Queries([str(row) for row in known], [texts[row] for row in known])
    return _dev(asked, dataset.corpus, known, np.empty((0, 0), np.int64), documents, rng)


def _within(known: Mapping[int, Mapping[int, int]], documents: int | None) -> dict[int, Mapping[int, int]]:
    """The first queries, one at least, whose answers are no more than half of the documents."""
    kept: dict[int, Mapping[int, int]] = {}
    relevant: set[int] = set()
    for number, docs in known.items():
        relevant |= docs.keys()
        if kept and documents is not None and len(relevant) > documents // 2:
            break
        kept[number] = docs
    return kept


def _dev(
    queries: Queries,
    corpus: Corpus,
    known: Mapping[int, Mapping[int, int]],
    negatives: NDArray[np.int64],
    documents: int | None,
    rng: np.random.Generator,
) -> Dev:
    relevant = np.array([doc for docs in known.values() for doc in docs], np.int64)
    preferred = np.concatenate([relevant, negatives.ravel(), rng.permutation(len(corpus))])
    _, first = np.unique(preferred, return_index=True)
    taken = np.sort(preferred[np.sort(first)[: None if documents is None else max(documents, len(set(relevant)))]])
    sample = Corpus([str(doc) for doc in taken], corpus.texts.take(taken))
    grades = {str(anchor): {str(doc): grade for doc, grade in docs.items()} for anchor, docs in known.items()}
    return Dev(sample, queries, Qrels(grades))


class Evaluator(BaseEvaluator):
    """The metric of a dev split by the model as it is now, for sentence-transformers' trainers.

    In bfloat16 where training multiplies that, and at the length that is trained on.
    """

    def __init__(self, dev: Dev, retriever: Retriever, encoder: Any, metric: Metric, bfloat16: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dev, self._retriever, self._encoder, self._metric = dev, retriever, encoder, metric
        self._bfloat16 = bfloat16
        self.metric = self.primary_metric = str(metric)

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """The mean by the metric's name."""
        self._encoder.wrap(model)
        model.eval()
        dev = self._dev
        with instrument.listening(None), cache.using("off"), _halved(model, self._bfloat16):
            self._retriever.index(dev.corpus)
            run = self._retriever.search(dev.queries, min(self._metric.k or len(dev.corpus), len(dev.corpus)))
        _, values = score(run, dev.qrels, [self._metric])
        return {str(self._metric): float(values[str(self._metric)].mean())}


@contextmanager
def _halved(model: Any, bfloat16: bool) -> Iterator[None]:
    """Let the model multiply in bfloat16 meanwhile, and nothing else: scores are added up in float32."""
    forward = model.forward

    def halved(*features: Any, **more: Any) -> Any:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            return forward(*features, **more)

    model.forward = halved
    try:
        yield
    finally:
        del model.forward
