"""Document ids that turned over: the baseline's ranked documents no longer occur, because a corpus got other ids.

`accept` stores a sample of the ranked ids, those with the smallest hashes. Two sets of ids have the same ids in such
samples (Broder 1997), so that the share of the ids in common can be estimated in both directions. It is small in both
only where the ids differ: worse rankings of the same corpus still rank its documents.
"""

import hashlib
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from harness.types.trec import open_text

SAMPLE = 64
"""Number of ids that are stored for an evaluation."""
MAX_SHARED = 0.1
"""Largest share of ids in common, in either direction, of ids that turned over."""
_HEAD = 10
_MIN_COMPARED = 5


def sample_ids(run: Path) -> list[str]:
    """Return the ids with the smallest hashes among the first ten documents of each query of a TREC run."""
    return sorted(_ranked_ids(run, _HEAD), key=_hash)[:SAMPLE]


def describe_turnover(sample: Collection[str], run: Path) -> str | None:
    """Return the message for ids that turned over; None where they did not, or where there are too few to tell.

    Args:
        sample: `sample_ids` of the baseline's run.
        run: The newest run.
    """
    if len(sample) < _MIN_COMPARED or not run.is_file():
        return None
    shared = len({*sample} & _ranked_ids(run)) / len(sample)
    largest = max(map(_hash, sample))
    comparable = [doc for doc in _ranked_ids(run, _HEAD) if len(sample) < SAMPLE or _hash(doc) <= largest]
    if len(comparable) < _MIN_COMPARED or shared > MAX_SHARED:
        return None
    if sum(doc in sample for doc in comparable) / len(comparable) > MAX_SHARED:
        return None
    return (
        f"document ids differ: {shared:.0%} of the baseline's ranked ids occur in the new rankings; re-imported or "
        f're-chunked? If so, accept them: harness accept --reason "..."'
    )


def _ranked_ids(run: Path, depth: int | None = None) -> set[str]:
    """Return the ids of the first `depth` documents of each query of a TREC run whose lines are in rank order."""
    return {doc for hits in _hits(run) for doc in islice(hits, depth)}


def _hits(run: Path) -> Iterator[list[str]]:
    """Yield the ids of each query's documents."""
    query: str | None = None
    docs: list[str] = []
    with open_text(run) as lines:
        for line in lines:
            name, _, doc, _ = line.split(maxsplit=3)
            if name != query:
                yield docs
                query, docs = name, []
            docs.append(doc)
    yield docs


def _hash(doc: str) -> bytes:
    return hashlib.blake2b(doc.encode(), digest_size=8).digest()
