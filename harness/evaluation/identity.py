"""Identity of a retriever and of an evaluation: hashes of everything that their numbers depend on.

A retriever is its class and settings, with weights and files by their content, the user's own code, and the versions
of the computations (`harness.versions`). A config, an object in Python and an adapter of another tool that describe the
same retriever have the same identity.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from harness import user_code, versions
from harness.evaluation.description import Description


def retriever_identity(retriever: Any) -> str:
    """Return the hash of a retriever's class, settings, weights and user code, 16 hex digits.

    A component of the harness counts by its constructor's arguments. An object of any other class counts by its
    attributes, whether a config or a call constructed it. It is known by the arguments of its config where it holds
    something without a describable content, such as an open connection; without a config it then equals itself only.

    The hash is computed anew in every call: a setting that was changed since the last one counts. What indexing and
    searching change inside `in_use` does not.
    """
    return _identity_of(Description(), retriever)


@contextmanager
def in_use(retriever: Any) -> Iterator[str]:
    """Give a retriever's identity, and at the end of the block take what has changed for its state, no setting."""
    description = Description()
    identity = _identity_of(description, retriever)
    try:
        yield identity
    finally:
        description.note_changes()


def _identity_of(description: Description, retriever: Any) -> str:
    content = {
        "retriever": description.of(retriever),
        "ranking": versions.RANKING,
        "code": user_code.code_hash(description.modules),
    }
    return _hash(content)


def evaluation_identity(
    retriever: str, dataset: str, *, k: int, metrics: Sequence[str], timing: Mapping[str, Any] | None, seed: int
) -> str:
    """Return the hash of everything that an evaluation's record depends on, 16 hex digits.

    Args:
        retriever: The retriever's identity.
        dataset: The dataset's fingerprint.
        k: Documents retrieved for each query.
        metrics: Names of the metrics.
        timing: The timing plan's settings; None where nothing is timed.
        seed: Seed of the draws, such as that of the queries timed one by one.
    """
    content = {
        "retriever": retriever,
        "dataset": dataset,
        "k": k,
        "metrics": list(metrics),
        "timing": timing,
        "seed": seed,
        "versions": {"metrics": versions.METRICS, "datasets": versions.DATASETS},
    }
    return _hash(content)


def config_identity(config: Mapping[str, Any]) -> str:
    """Return the hash of a config, 16 hex digits: the identity of what could not be constructed or read."""
    return _hash({"config": config})


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
