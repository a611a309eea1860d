"""Stand-ins for models of the hub and for API providers: tiny models of fixed weights, and counts of words.

The weights come from numpy's legacy generator, whose stream never changes, so that no release of torch or transformers
changes a golden ranking by initialising its layers in another order.
"""

import json
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from support import models as tiny_models
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification


def write_masked(folder: Path) -> Path:
    """Write a masked language model whose tokens are letters, with OpenSearch's idf.json of their weights."""
    tiny_models.write_masked(folder)
    _fill(folder)
    tokens = sorted(AutoTokenizer.from_pretrained(str(folder)).get_vocab())
    weights = np.abs(_numbers("idf", (len(tokens),))).round(3).tolist()
    (folder / "idf.json").write_text(json.dumps(dict(zip(tokens, weights, strict=True))), encoding="utf-8")
    return folder


def write_cross_encoder(folder: Path, masked: Path) -> Path:
    """Write a cross-encoder with one label over the tokens of `masked`."""
    BertForSequenceClassification(AutoConfig.from_pretrained(str(masked), num_labels=1)).save_pretrained(folder)
    for path in masked.glob("*token*"):
        shutil.copy(path, folder)
    _fill(folder)
    return folder


def write_static(folder: Path, texts: Iterable[str]) -> Path:
    """Write a static model of 64 dimensions whose vocabulary is the words of `texts`."""
    pieces = pre_tokenizers.BertPreTokenizer()
    words = sorted({word for text in texts for word, _ in pieces.pre_tokenize_str(text.lower())})
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pieces
    vectors = torch.from_numpy(_numbers("static", (len(vocabulary), 64)))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)], device="cpu")
    model.save(str(folder))
    return folder


def _fill(folder: Path) -> None:
    """Replace the weights of a saved model."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name, values in weights.items():
        scale = torch.from_numpy(_numbers(name, tuple(values.shape)))
        weights[name] = 1 + 0.1 * scale if name.endswith("LayerNorm.weight") else 0.3 * scale
    save_file(weights, path, metadata={"format": "pt"})


def _numbers(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return normally distributed numbers, the same for the same name and shape."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def count_words(texts: list[str]) -> list[list[float]]:
    """Embed texts as counts of their words in 64 buckets."""
    vectors = np.zeros((len(texts), 64))
    vectors[:, 0] = 0.5
    for vector, text in zip(vectors, texts, strict=True):
        for word in text.lower().split():
            vector[zlib.crc32(word.encode()) % 64] += 1
    return vectors.tolist()
