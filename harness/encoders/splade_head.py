"""SPLADE's output layer fused with max pooling: the logits of a batch, tokens x vocabulary, are never all in memory.

log(1 + relu(x)) is monotonic, so the maximum over tokens is taken first and the function is applied once per text.
"""

from itertools import pairwise
from typing import Any

import torch
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import nn

from harness.encoders.runtime import cpu

_TOKENS = {"cpu": 128, "mps": 1024, "cuda": 8192}  # per chunk; on a CPU its logits should stay in the cache
_LOGITS = 16 << 20  # bytes of a chunk's logits, below the mmap threshold of malloc, so that freed memory is reused


def fuse(model: Any) -> None:
    """Replace every output layer over the vocabulary that max pooling follows by `FusedPooling`, in place."""
    poolings = [
        (parent, name, pooling, before.model)
        for parent in list(model.modules())
        for (_, before), (name, pooling) in pairwise(list(parent.named_children()))
        if type(pooling) is SpladePooling and pooling.pooling_strategy == "max" and hasattr(before, "model")
    ]
    # queries and documents may share a language model
    models = {id(language_model): language_model for *_, language_model in poolings}
    heads = {key: _detach_head(language_model) for key, language_model in models.items()}
    for parent, name, pooling, language_model in poolings:
        if (head := heads[id(language_model)]) is not None:
            setattr(parent, name, FusedPooling(pooling, head))


def _detach_head(language_model: Any) -> nn.Linear | None:
    """Replace a language model's output layer by the identity and return it; None if it is not a plain linear layer."""
    head: Any = language_model.get_output_embeddings()
    if type(head) is not nn.Linear or head.out_features != language_model.config.vocab_size:
        return None
    for owner in list(language_model.modules()):
        for name, child in list(owner.named_children()):
            if child is head:
                setattr(owner, name, nn.Identity())
    linear: nn.Linear = head
    return linear


class FusedPooling(SpladePooling):
    """Max pooling of the logits that `head` computes from hidden states [texts, tokens, hidden]."""

    def __init__(self, pooling: Any, head: nn.Linear) -> None:
        super().__init__(pooling.pooling_strategy, pooling.activation_function, head.out_features)
        self.head = head

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding` [texts, vocabulary] as float32."""
        hidden = features["token_embeddings"]
        if "cu_seq_lens_q" in features:  # packed sequences
            rows = [hidden[0, start:stop] for start, stop in pairwise(features["cu_seq_lens_q"].tolist())]
        else:
            mask = features["attention_mask"].bool()
            unpadded = mask.all()
            rows = [hidden[row] if unpadded else hidden[row][mask[row]] for row in range(len(hidden))]
        pooled = self._max_logits(rows, hidden).relu().log1p()
        features["sentence_embedding"] = pooled.log1p() if self.activation_function == "log1p_relu" else pooled
        return features

    def _max_logits(self, rows: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        """Return each term's maximum logit over the tokens of each row [rows, vocabulary], as float32."""
        terms, packed = self.head.out_features, cpu.is_packed(self.head)
        tokens = _TOKENS.get(like.device.type, _TOKENS["cuda"])
        tokens = min(tokens, max(16, _LOGITS // (4 * terms))) if packed else tokens
        longest = 0 if packed else min(tokens, max((len(row) for row in rows), default=0))
        buffer = torch.empty((longest, terms), dtype=like.dtype, device=like.device)
        maxima = torch.full((len(rows), terms), -torch.inf, dtype=like.dtype, device=like.device)
        for row, maximum in zip(rows, maxima, strict=True):
            for start in range(0, len(row), tokens):
                chunk = row[start : start + tokens]
                logits = self.head(chunk) if packed else torch.mm(chunk, self.head.weight.T, out=buffer[: len(chunk)])
                torch.maximum(maximum, logits.amax(dim=0), out=maximum)
        return (maxima if packed or self.head.bias is None else maxima + self.head.bias).float()
