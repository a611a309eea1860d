"""Contrastive losses in which the other documents of a batch are negatives, but for those that answer the anchor too.

A batch' labels [rows, 1 + columns] are numbers: the anchor's, its positive's, its negatives'. What is known to be a
positive of an anchor is left out of that row's softmax wherever it stands in the batch.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Score = Callable[..., torch.Tensor]
"""Similarities [queries, documents] of two batches of vectors."""


class Known:
    """The known positives of every anchor, numbers both."""

    def __init__(self, positives: Mapping[int, Iterable[int]], documents: int) -> None:
        pairs = [anchor * documents + doc for anchor, docs in positives.items() for doc in docs]
        self._pairs: NDArray[np.int64] = np.unique(np.array([*pairs, -1], np.int64))
        self._documents = documents

    def mask(self, labels: torch.Tensor) -> torch.Tensor:
        """[rows, rows, columns] whether a row's anchor has a positive there; its own is no such place."""
        numbers = labels.cpu().numpy()
        asked = numbers[:, 0, None, None] * self._documents + numbers[None, :, 1:]
        found = self._pairs[np.searchsorted(self._pairs, asked, side="right") - 1] == asked
        own = np.arange(len(numbers))
        found[own, own, 0] = False
        return torch.from_numpy(found).to(labels.device)


class Masked(torch.nn.Module):
    """A loss of sentence-transformers whose similarities of known positives are minus infinity.

    `make` builds the loss from a similarity. `by_row`: the loss lays a batch' documents out row by row, as those for
    late interaction do, and not column by column.
    """

    def __init__(
        self, model: Any, known: Known, score: Score, make: Callable[[Score], torch.nn.Module], by_row: bool
    ) -> None:
        super().__init__()
        self.model = model  # the trainer puts the one that several processes share in its place, here and inside
        self._known, self._by_row = known, by_row
        self._similarity = _Similarity(score)
        self.loss = make(self._similarity)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: torch.Tensor) -> Any:
        """The loss of a batch."""
        mask = self._known.mask(labels)
        self._similarity.begin((mask if self._by_row else mask.transpose(1, 2)).flatten(1))
        return self.loss(sentence_features, None)


class _Similarity:
    """Similarities with those of the mask put away. A loss asks for a batch' rows in order, some or all at a time."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self._mask, self._row = torch.empty((1, 0), dtype=torch.bool), 0

    def begin(self, mask: torch.Tensor) -> None:
        self._mask, self._row = mask, 0

    def __call__(self, queries: torch.Tensor, documents: torch.Tensor, **more: Any) -> torch.Tensor:
        scores = self._score(queries, documents, **more)
        rows = (torch.arange(len(scores), device=scores.device) + self._row) % len(self._mask)
        self._row += len(scores)  # over again where a loss goes through the batch several times
        return scores.masked_fill(self._mask[rows], -torch.inf)
