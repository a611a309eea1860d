"""Tiny models of random weights that spell their texts, for tests that need a folder with one."""

import string
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

_SIGNS = string.ascii_lowercase + string.digits + string.punctuation
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_SIGNS, *(f"##{sign}" for sign in _SIGNS)]
_CONFIG = BertConfig(
    vocab_size=len(_WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
)


def write_dense(folder: Path, seed: int = 0) -> Path:
    """Save a model of sentence-transformers whose tokens are letters, digits and signs; gives its folder."""
    torch.manual_seed(seed)
    BertModel(_CONFIG).save_pretrained(folder / "bert")
    BertTokenizer(vocab={word: number for number, word in enumerate(_WORDS)}).save_pretrained(folder / "bert")
    SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16)]).save(str(folder / "saved"))
    return folder / "saved"


def write_masked(folder: Path, seed: int = 0) -> Path:
    """Save a masked language model over the same tokens, which SPLADE takes; gives its folder."""
    torch.manual_seed(seed)
    BertForMaskedLM(_CONFIG).save_pretrained(folder)
    BertTokenizer(vocab={word: number for number, word in enumerate(_WORDS)}).save_pretrained(folder)
    return folder
