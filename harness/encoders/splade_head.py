"""SPLADE's vocabulary layer and pooling as one: the logits of a batch, tokens x vocabulary, are never all held.

log(1 + relu(x)) only rises, so the greatest logit of each term is taken first and the functions follow once a text.
"""

from itertools import pairwise
from typing import Any

import torch
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import nn

from harness.encoders.runtime import cpu

_TOKENS = {"cpu": 128, "mps": 1024, "cuda": 8192}  # on a CPU a chunk's logits should stay in its cache
_LOGITS = 16 << 20  # bytes of them that oneDNN makes anew in each call, which malloc should find in what it keeps


def fuse(model: Any) -> None:
    """Put the fused head in the place of every output layer over the vocabulary that max pooling follows."""
    places = [
        (parent, name, pooling, before.model)
        for parent in list(model.modules())
        for (_, before), (name, pooling) in pairwise(list(parent.named_children()))
        if type(pooling) is SpladePooling and pooling.pooling_strategy == "max" and hasattr(before, "model")
    ]
    models = {id(language_model): language_model for *_, language_model in places}  # sides may share one
    heads = {key: _taken_off(language_model) for key, language_model in models.items()}
    for parent, name, pooling, language_model in places:
        if (head := heads[id(language_model)]) is not None:
            setattr(parent, name, FusedPooling(pooling, head))


def _taken_off(language_model: Any) -> nn.Linear | None:
    """The output layer of a language model, which gives hidden states from now on; None where it is no plain layer."""
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
    """Max pooling over `head` of the hidden states that come in the place of logits: [texts, tokens, hidden]."""

    def __init__(self, pooling: Any, head: nn.Linear) -> None:
        super().__init__(pooling.pooling_strategy, pooling.activation_function, head.out_features)
        self.head = head

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding` [texts, vocabulary] as float32."""
        hidden = features["token_embeddings"]
        if "cu_seq_lens_q" in features:  # texts end to end, without padding
            rows = [hidden[0, start:stop] for start, stop in pairwise(features["cu_seq_lens_q"].tolist())]
        else:
            mask = features["attention_mask"].bool()
            whole = mask.all()
            rows = [hidden[row] if whole else hidden[row][mask[row]] for row in range(len(hidden))]
        pooled = self._greatest(rows, hidden).relu().log1p()
        features["sentence_embedding"] = pooled.log1p() if self.activation_function == "log1p_relu" else pooled
        return features

    def _greatest(self, rows: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        """The greatest logit of each term over each row's tokens [rows, vocabulary], as float32."""
        terms, packed = self.head.out_features, cpu.packed(self.head)
        tokens = _TOKENS.get(like.device.type, _TOKENS["cuda"])
        tokens = min(tokens, max(16, _LOGITS // (4 * terms))) if packed else tokens
        longest = 0 if packed else min(tokens, max((len(row) for row in rows), default=0))
        buffer = torch.empty((longest, terms), dtype=like.dtype, device=like.device)
        found = torch.full((len(rows), terms), -torch.inf, dtype=like.dtype, device=like.device)
        for place, row in enumerate(rows):
            for start in range(0, len(row), tokens):
                part = row[start : start + tokens]
                logits = self.head(part) if packed else torch.mm(part, self.head.weight.T, out=buffer[: len(part)])
                torch.maximum(found[place], logits.amax(dim=0), out=found[place])
        return (found if packed or self.head.bias is None else found + self.head.bias).float()
