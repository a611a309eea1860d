"""PerQuery: the scores of a record's answerable queries, one row each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PerQuery:
    """Query ids and, by metric name, their scores [queries]."""

    query_ids: Sequence[str]
    values: Mapping[str, NDArray[np.float64]]
