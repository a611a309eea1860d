"""The nouns of the harness; imports nothing else of ours but its errors."""

from harness.types.dataset import Dataset, Retriever
from harness.types.explanation import Explains, Explanation
from harness.types.per_query import PerQuery
from harness.types.published import PublishedFigures
from harness.types.qrels import Qrels
from harness.types.record import DatasetInfo, Phase, Record, RetrieverInfo, Timing
from harness.types.run import Run
from harness.types.strings import StringColumn
from harness.types.texts import Corpus, Fingerprint, Queries, Texts

__all__ = [
    "Corpus",
    "Dataset",
    "DatasetInfo",
    "Explains",
    "Explanation",
    "Fingerprint",
    "PerQuery",
    "Phase",
    "PublishedFigures",
    "Qrels",
    "Queries",
    "Record",
    "Retriever",
    "RetrieverInfo",
    "Run",
    "StringColumn",
    "Texts",
    "Timing",
]
