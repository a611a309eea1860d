"""mteb's tasks, models and results in the harness, and the harness's retrievers and records in mteb.

    harness retriever=bm25 dataset=mteb dataset.task=SciFact            # a task as a dataset
    mteb.evaluate(SearchModel(retriever), mteb.get_task("SciFact"))     # a retriever in mteb's evaluator
    MtebRetriever("intfloat/e5-small-v2")                                   # a model of mteb as a retriever

No other package imports mteb.
"""

from harness.interop.mteb.dataset import load, task_of
from harness.interop.mteb.retriever import MtebRetriever
from harness.interop.mteb.search_model import SearchModel

__all__ = ["MtebRetriever", "SearchModel", "load", "task_of"]
