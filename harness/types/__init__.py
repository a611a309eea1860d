"""The nouns of the harness; imports nothing else of ours but its errors."""

from harness.types.containers import StringColumn
from harness.types.dataset import Dataset
from harness.types.protocols import CandidateScorer, Explainer, Explanation, Precomputed, Retriever, Shardable
from harness.types.qrels import Qrels
from harness.types.record import DatasetInfo, Phase, Record, RetrieverInfo, Timing
from harness.types.run import Run
from harness.types.scores import PerQuery, PublishedFigures
from harness.types.texts import Corpus, Fingerprint, Queries, Texts

__all__ = [
    "CandidateScorer",
    "Corpus",
    "Dataset",
    "DatasetInfo",
    "Explainer",
    "Explanation",
    "Fingerprint",
    "PerQuery",
    "Phase",
    "Precomputed",
    "PublishedFigures",
    "Qrels",
    "Queries",
    "Record",
    "Retriever",
    "RetrieverInfo",
    "Run",
    "Shardable",
    "StringColumn",
    "Texts",
    "Timing",
]
