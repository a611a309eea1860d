"""Retrievers over loaded sentence-transformers models; the models and their devices are not changed."""

from pathlib import Path
from typing import Any

from harness.encoders.cross import CrossEncoder
from harness.encoders.dense import DenseEncoder
from harness.encoders.model import IN_MEMORY
from harness.encoders.multi_vector import MultiVectorEncoder
from harness.encoders.sparse import SparseEncoder
from harness.errors import ConfigError
from harness.retrievers.bm25 import BM25
from harness.retrievers.colbert import ColBERT
from harness.retrievers.dense import Dense
from harness.retrievers.rerank import CrossEncoderScorer, Rerank
from harness.retrievers.splade import Splade
from harness.text.tokenizer import Tokenizer
from harness.types import Retriever


def wrap_model(model: Any) -> Retriever:
    """Return a retriever over a model of sentence-transformers.

    A SentenceTransformer becomes `Dense`, a SparseEncoder `Splade`, a MultiVectorEncoder `ColBERT`, and a CrossEncoder
    `Rerank` over the best 100 documents of BM25. Embeddings are not cached, because the model may still be trained.

    Raises:
        ConfigError: The model is of another class.
    """
    import sentence_transformers

    if isinstance(model, sentence_transformers.CrossEncoder):
        cross = CrossEncoder(IN_MEMORY)
        cross.wrap(model)
        return Rerank(BM25(Tokenizer()), CrossEncoderScorer(cross))
    if isinstance(model, sentence_transformers.MultiVectorEncoder):
        multi_vector = MultiVectorEncoder(IN_MEMORY, cache=False)
        multi_vector.wrap(model)
        return ColBERT(multi_vector)
    if isinstance(model, sentence_transformers.SparseEncoder):
        sparse = SparseEncoder(IN_MEMORY, cache=False)
        sparse.wrap(model)
        return Splade(sparse)
    if isinstance(model, sentence_transformers.SentenceTransformer):
        dense = DenseEncoder(IN_MEMORY, cache=False)
        dense.wrap(model)
        return Dense(dense)
    classes = "SentenceTransformer, SparseEncoder, MultiVectorEncoder or CrossEncoder"
    raise ConfigError(f"{type(model).__name__} is not supported; choices: {classes}")


def model_name(model: Any) -> str:
    """Return the last part of the name that a model was loaded from, or its class's name."""
    config = getattr(getattr(model[0], "model", None), "config", None)
    return Path(getattr(config, "_name_or_path", "")).name or type(model).__name__
