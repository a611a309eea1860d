"""Evaluate text retrievers: how well they rank, how fast they are, and which differences are significant.

    import harness

    data = harness.load_dataset("scifact")
    results = harness.evaluate(["bm25", "minilm"], data, baseline="bm25")

Names are imported when they are first used: `import harness` itself loads nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import compare, evaluate, load_dataset, load_retriever, open_results, score
    from harness.api.results import Results
    from harness.evaluation.plan import TimingPlan
    from harness.retrievers.bm25 import BM25
    from harness.retrievers.colbert import ColBERT
    from harness.retrievers.dense import Dense
    from harness.retrievers.hybrid import Hybrid
    from harness.retrievers.rerank import Rerank
    from harness.retrievers.splade import Splade
    from harness.train.callback import EvaluationCallback
    from harness.types import Corpus, Dataset, Qrels, Queries, Retriever, Run

__version__ = "0.1.0"

_MODULES = {
    "harness.api": ("compare", "evaluate", "load_dataset", "load_retriever", "open_results", "score"),
    "harness.api.results": ("Results",),
    "harness.evaluation.plan": ("TimingPlan",),
    "harness.retrievers.bm25": ("BM25",),
    "harness.retrievers.colbert": ("ColBERT",),
    "harness.retrievers.dense": ("Dense",),
    "harness.retrievers.hybrid": ("Hybrid",),
    "harness.retrievers.rerank": ("Rerank",),
    "harness.retrievers.splade": ("Splade",),
    "harness.train.callback": ("EvaluationCallback",),
    "harness.types": ("Corpus", "Dataset", "Qrels", "Queries", "Retriever", "Run"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BM25",
    "ColBERT",
    "Corpus",
    "Dataset",
    "Dense",
    "EvaluationCallback",
    "Hybrid",
    "Qrels",
    "Queries",
    "Rerank",
    "Results",
    "Retriever",
    "Run",
    "Splade",
    "TimingPlan",
    "__version__",
    "compare",
    "evaluate",
    "load_dataset",
    "load_retriever",
    "open_results",
    "score",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
