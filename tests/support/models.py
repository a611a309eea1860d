"""Tiny models of random weights whose tokens are single characters, saved to a folder."""

import string
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_CHARACTERS, *(f"##{character}" for character in _CHARACTERS)]
_CONFIG = BertConfig(
    vocab_size=len(_TOKENS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
)


def write_dense(folder: Path, seed: int = 0) -> Path:
    """Save a dense model of sentence-transformers and return its folder."""
    torch.manual_seed(seed)
    BertModel(_CONFIG).save_pretrained(folder / "bert")
    BertTokenizer(vocab={token: number for number, token in enumerate(_TOKENS)}).save_pretrained(folder / "bert")
    SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16)]).save(str(folder / "saved"))
    return folder / "saved"


def write_masked(folder: Path, seed: int = 0) -> Path:
    """Save a masked language model over the same tokens, as SPLADE needs it, and return its folder."""
    torch.manual_seed(seed)
    BertForMaskedLM(_CONFIG).save_pretrained(folder)
    BertTokenizer(vocab={token: number for number, token in enumerate(_TOKENS)}).save_pretrained(folder)
    return folder
