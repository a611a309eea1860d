"""Contrastive losses with in-batch negatives, from which known positives are masked.

The labels of a batch, shape [rows, 1 + columns], are the indices of each row's anchor, positive and negatives. Other
documents in the batch that are known positives of an anchor (false negatives) are excluded from its softmax.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Score = Callable[..., torch.Tensor]
"""Returns similarities [queries, documents] of two batches of embeddings."""


class KnownPositives:
    """The known positives of every anchor.

    Args:
        positives: Document indices of the known positives of each anchor, by the anchor's index.
        documents: Number of documents.
    """

    def __init__(self, positives: Mapping[int, Iterable[int]], documents: int) -> None:
        pairs = [anchor * documents + doc for anchor, docs in positives.items() for doc in docs]
        self._pairs: NDArray[np.int64] = np.unique(np.array([*pairs, -1], np.int64))
        self._documents = documents

    def mask(self, labels: torch.Tensor) -> torch.Tensor:
        """Return a mask [rows, rows, columns] of documents that are known positives of a row's anchor.

        The row's own positive is not masked.
        """
        indices = labels.cpu().numpy()
        pairs = indices[:, 0, None, None] * self._documents + indices[None, :, 1:]
        is_positive = self._pairs[np.searchsorted(self._pairs, pairs, side="right") - 1] == pairs
        diagonal = np.arange(len(indices))
        is_positive[diagonal, diagonal, 0] = False
        return torch.from_numpy(is_positive).to(labels.device)


class MaskedLoss(torch.nn.Module):
    """A sentence-transformers loss in which the similarities of known positives are minus infinity.

    Args:
        model: The model to train.
        known: The known positives.
        score: The similarity function.
        make: Returns the loss for a similarity function.
        by_row: True if the loss orders a batch's documents row by row, as for late interaction; False for column by
            column.
    """

    def __init__(
        self, model: Any, known: KnownPositives, score: Score, make: Callable[[Score], torch.nn.Module], by_row: bool
    ) -> None:
        super().__init__()
        self.model = model  # the trainer replaces it, here and in the inner loss, by its wrapper for several processes
        self._known, self._by_row = known, by_row
        self._similarity = _MaskedSimilarity(score)
        self.loss = make(self._similarity)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: torch.Tensor) -> Any:
        """Return the loss of a batch.

        Args:
            sentence_features: Tokenised texts of each column.
            labels: Indices of each row's anchor, positive and negatives, shape [rows, 1 + columns].
        """
        mask = self._known.mask(labels)
        self._similarity.begin((mask if self._by_row else mask.transpose(1, 2)).flatten(1))
        return self.loss(sentence_features, None)


class _MaskedSimilarity:
    """A similarity function that masks known positives. A loss must request a batch's rows in order."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self._mask, self._row = torch.empty((1, 0), dtype=torch.bool), 0

    def begin(self, mask: torch.Tensor) -> None:
        self._mask, self._row = mask, 0

    def __call__(self, queries: torch.Tensor, documents: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        scores = self._score(queries, documents, **kwargs)
        rows = (torch.arange(len(scores), device=scores.device) + self._row) % len(self._mask)
        self._row += len(scores)  # the modulo above begins again for losses that pass over a batch several times
        return scores.masked_fill(self._mask[rows], -torch.inf)
