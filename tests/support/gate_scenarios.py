"""An accepted BM25 evaluation, and ways to evaluate it again after something has changed."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from harness.cli import read
from harness.errors import RunError
from harness.evaluation.evaluate import Settings, evaluate
from harness.evaluation.timing import TimingPlan
from harness.retrievers.bm25 import BM25
from harness.store import Store
from harness.types import Corpus, Dataset, Qrels, Queries, Run

METRICS = ("ndcg@10", "recall@100", "map@100")
PLAN = TimingPlan(repeats=3, latency_queries=0, warmup_documents=8)
_VERBS = (
    *("connect", "depend", "collect", "protect", "reflect", "select", "direct", "predict"),
    *("inspect", "construct", "reject", "adopt", "adapt", "print", "plant"),
)
_ENDINGS = ["", "ed", "ing", "s"]


def verbs_dataset(n_documents=300, n_queries=120):
    """Return a dataset whose queries and documents use forms of a few verbs; about 20 documents are about each verb."""
    rng = np.random.default_rng(0)
    forms = ["".join(parts) for parts in product(_VERBS, _ENDINGS)]
    topic_of = rng.integers(0, len(_VERBS), n_documents)
    documents = [
        " ".join([forms[topic * 4 + rng.integers(4)] for _ in range(2)] + rng.choice(forms, 4).tolist())
        for topic in topic_of
    ]
    topics = rng.integers(0, len(_VERBS), n_queries)
    queries = [forms[topic * 4 + rng.integers(4)] for topic in topics]
    relevant = {
        f"q{number}": {f"d{doc}": 1 for doc in np.flatnonzero(topic_of == topic)} for number, topic in enumerate(topics)
    }
    return Dataset(
        "verbs",
        "test",
        Corpus([f"d{number}" for number in range(n_documents)], documents),
        Queries([f"q{number}" for number in range(n_queries)], queries),
        Qrels(relevant),
    )


def evaluate_again(results, retriever=None, dataset=None, k=100, plan=None, name="bm25"):
    """Evaluate BM25, or another retriever under its name, on the dataset of verbs; a failure leaves its record."""
    metrics = tuple(metric for metric in METRICS if k >= 100 or "100" not in metric)
    settings = Settings(k=k, metrics=metrics, timing=plan)
    parts = retriever or BM25(), dataset or verbs_dataset()
    try:
        evaluate(*parts, name=name, settings=settings, store=Store(results), resume=False)
    except RunError:
        assert max(Store(results).records(), key=lambda record: record.started).status == "failed"


def accept_bm25(results):
    """Evaluate BM25 and make it the baseline."""
    evaluate_again(results, plan=PLAN)
    assert read.main(["accept", "--reason", "first", "--results", str(results)]) == 0


def with_first_text(dataset, text):
    """Return the dataset with another text of its first document."""
    return replace(dataset, corpus=Corpus(list(dataset.corpus.ids), [text, *list(dataset.corpus.texts)[1:]]))


def with_other_ids(dataset):
    """Return the dataset with other document ids in its corpus and its judgements."""
    qrels = {query: {f"chunk-{doc}": grade for doc, grade in docs.items()} for query, docs in dataset.qrels.items()}
    corpus = Corpus([f"chunk-{doc}" for doc in dataset.corpus.ids], list(dataset.corpus.texts))
    return replace(dataset, corpus=corpus, qrels=Qrels(qrels))


class ChangedRun(BM25):
    """BM25 whose documents and scores [queries, k] are changed by a method of its subclass."""

    def change(self, docs, scores):
        return docs, scores

    def search(self, queries, k):
        run = super().search(queries, k)
        return Run(run.query_ids, run.doc_ids, *self.change(run.docs.copy(), run.scores.copy()))


def records_of(results):
    """Return the paths of the stored records, without those of the baseline."""
    return sorted(Path(results, "records").rglob("*.json"), key=lambda path: path.name)
