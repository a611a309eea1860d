"""mteb both ways; the only place that imports it.

harness retriever=bm25 dataset=mteb dataset.task=SciFact            its tasks here
mteb.evaluate(SearchModel(retriever), mteb.get_task("SciFact"))     our retrievers there
Retriever("intfloat/e5-small-v2")                                   its models here
"""

from harness.interop.mteb.dataset import load, task_of
from harness.interop.mteb.retriever import Retriever
from harness.interop.mteb.search_model import SearchModel

__all__ = ["Retriever", "SearchModel", "load", "task_of"]
