"""Data types of the harness: datasets, runs, records and protocols. Imports no other module but `harness.errors`."""

from harness.types.containers import StringColumn
from harness.types.dataset import Dataset
from harness.types.phases import Counters, Phase, ShardTime, Timing
from harness.types.protocols import CandidateScorer, Explainer, Explanation, Precomputed, Retriever, Shardable
from harness.types.qrels import Qrels
from harness.types.record import (
    DatasetInfo,
    DatasetMetadata,
    EncoderInfo,
    Excerpt,
    RecallOfExact,
    Record,
    RecordFiles,
    RetrieverInfo,
)
from harness.types.run import Run
from harness.types.scores import PerQuery, PublishedFigures
from harness.types.texts import Corpus, Fingerprint, Queries, Texts

__all__ = [
    "CandidateScorer",
    "Corpus",
    "Counters",
    "Dataset",
    "DatasetInfo",
    "DatasetMetadata",
    "EncoderInfo",
    "Excerpt",
    "Explainer",
    "Explanation",
    "Fingerprint",
    "PerQuery",
    "Phase",
    "Precomputed",
    "PublishedFigures",
    "Qrels",
    "Queries",
    "RecallOfExact",
    "Record",
    "RecordFiles",
    "Retriever",
    "RetrieverInfo",
    "Run",
    "ShardTime",
    "Shardable",
    "StringColumn",
    "Texts",
    "Timing",
]
