"""Synthesize triplets from a corpus: sample documents, generate queries, filter them by round trip, add negatives."""

import hashlib
import heapq
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.errors import ConfigError, DataError
from harness.files import write_together
from harness.instrument import stage
from harness.train import triplets
from harness.train.candidates import Candidate, Generated, Generator, Task
from harness.train.negatives import Negatives, pad_with_random
from harness.train.triplets import Triplets
from harness.train.words import normalise
from harness.types import Corpus, Queries, Retriever, StringColumn

Item = TypeVar("Item")


@dataclass(frozen=True)
class Plan:
    """Number of sampled documents (None for all) and maximum number of queries for each."""

    documents: int | None
    per_document: int
    seed: int
    resume: bool


@dataclass(frozen=True)
class RoundTrip:
    """A filter that keeps a query if the retriever ranks its document among the first `k`."""

    retriever: Retriever
    k: int

    def finds_documents(self, corpus: Corpus, queries: Queries, docs: Sequence[int]) -> list[bool]:
        """Return a boolean for each query: True if its document is among the first `k` hits.

        Args:
            corpus: The documents to search.
            queries: The queries.
            docs: The index in `corpus` of each query's document.
        """
        with stage("round trip", total=len(queries)) as step:
            self.retriever.index(corpus)
            run = self.retriever.search(queries, self.k)
            step(len(queries))
        is_hit: list[bool] = (run.docs == np.array(docs)[:, None]).any(axis=1).tolist()
        return is_hit


@dataclass(frozen=True)
class Source:
    """A corpus with its name and, if it has them, its titles."""

    name: str
    corpus: Corpus
    titles: Callable[[], StringColumn] | None = None


def journal_path(output: Path) -> Path:
    """Return the path of the journal of an LLM's answers, beside the output."""
    return output.with_name(f"{output.name}.answers.jsonl")


def manifest_path(output: Path) -> Path:
    """Return the path of an output's manifest, beside the output."""
    return output.with_name(f"{output.name}.manifest.json")


def claim(output: Path) -> None:
    """Raise `ConfigError` for an output that cannot be written, or that `synthesize` did not write."""
    triplets.check_suffix(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise ConfigError(f"output={str(output)!r}: {error.strerror}; name a file that can be written") from None
    if output.exists() and not manifest_path(output).exists():
        raise ConfigError(
            f"{output} exists and has no manifest, so harness synthesize did not write it; write to "
            "another file: output=FILE"
        )


def synthesize(
    source: Source,
    generator: Generator,
    round_trip: RoundTrip | None,
    negatives: Negatives,
    plan: Plan,
    output: Path,
) -> tuple[Triplets, dict[str, Any]]:
    """Return triplets, and the counts of documents, queries and negatives for the manifest.

    Args:
        source: The documents.
        generator: Generates queries.
        round_trip: Filters queries; None keeps all.
        negatives: Chooses negatives; random ones are added if there are too few.
        plan: Sample sizes, seed, and reuse of the journal.
        output: The file of triplets, beside which the journal is kept.

    Raises:
        DataError: No triplets are left.
    """
    sample = sample_documents(source.corpus, plan.documents, plan.seed)
    task = Task(source.name, source.corpus, source.titles, sample, plan.per_document, journal_path(output), plan.resume)
    generated = generator.generate(task)
    candidates, known = _merge_duplicates(generated)
    queries = Queries([str(row) for row in range(len(candidates))], [candidate.anchor for candidate in candidates])
    if round_trip is not None and candidates:
        passes = round_trip.finds_documents(source.corpus, queries, [candidate.doc for candidate in candidates])
        generated.dropped["round_trip"] = len(passes) - sum(passes)
        candidates, known = _select(candidates, passes), _select(known, passes)
        queries = Queries(_select(queries.ids, passes), _select(queries.texts, passes))
    corpus = source.corpus if generated.texts_of is None else Corpus(source.corpus.ids, generated.texts_of())
    chosen = negatives.choose(queries, corpus, known)
    padded = pad_with_random(chosen, negatives.n, corpus, known, plan.seed)
    has_enough = [len(row) == negatives.n for row in padded]
    generated.dropped["no_negatives"] = len(has_enough) - sum(has_enough)
    candidates, chosen, padded = (
        _select(candidates, has_enough),
        _select(chosen, has_enough),
        _select(padded, has_enough),
    )
    counts = _counts(generated, len(sample), chosen, negatives.n)
    if not candidates:
        raise DataError(
            f"no triplets are left from {len(sample):,} documents of {source.name}: {_describe(counts)}; change: "
            "documents, generator, round_trip.k, negatives.n"
        )
    texts = [corpus.texts.take(np.array(row, np.int64)) for row in padded]
    anchors, positives = (
        [candidate.anchor for candidate in candidates],
        [candidate.positive for candidate in candidates],
    )
    return Triplets(anchors, positives, texts), counts


def save(output: Path, content: Triplets, manifest: dict[str, Any]) -> None:
    """Write the manifest and the triplets atomically. Raises `StoreError`.

    Args:
        output: The file of triplets.
        content: The triplets.
        manifest: Content of the manifest; the number and the fingerprint of the triplets are added.
    """
    complete = {**manifest, "triplets": {"rows": len(content), "fingerprint": content.fingerprint}}
    encoded_manifest = json.dumps(complete, indent=2, ensure_ascii=False).encode() + b"\n"
    write_together({manifest_path(output): encoded_manifest, output: triplets.encode(content, output)})


def sample_documents(corpus: Corpus, documents: int | None, seed: int) -> list[int]:
    """Return sorted indices of a random sample; a smaller sample with the same seed is a subset of a larger one.

    Args:
        corpus: The documents.
        documents: Number of documents to draw; None for all.
        seed: Seed of the hashes of document ids, of which the lowest are drawn.
    """
    if documents is None or documents >= len(corpus):
        return list(range(len(corpus)))
    hashes = (hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest() for key in corpus.ids)
    return sorted(index for _, index in heapq.nsmallest(documents, zip(hashes, count(), strict=False)))


def _merge_duplicates(generated: Generated) -> tuple[list[Candidate], list[set[int]]]:
    """Return candidates with distinct words, and for each the documents that it was generated for."""
    docs: dict[str, set[int]] = defaultdict(set)
    first: dict[str, Candidate] = {}
    for candidate in generated.candidates:
        key = normalise(candidate.anchor)
        first.setdefault(key, candidate)
        docs[key].add(candidate.doc)
    if n_duplicates := len(generated.candidates) - len(first):
        generated.dropped["duplicate"] = n_duplicates
    return list(first.values()), [docs[key] for key in first]


def _select(rows: Sequence[Item], mask: Sequence[bool]) -> list[Item]:
    return [row for row, is_selected in zip(rows, mask, strict=True) if is_selected]


def _counts(generated: Generated, documents: int, chosen: Sequence[list[int]], n: int) -> dict[str, Any]:
    n_chosen = sum(map(len, chosen))
    return {
        "documents": {"sampled": documents, **generated.documents, "unusable": _nonzero(generated.unusable)},
        "queries": {"generated": generated.generated, "selected": len(chosen), "dropped": _nonzero(generated.dropped)},
        "negatives": {"chosen": n_chosen, "at_random": n * len(chosen) - n_chosen},
        "cost": generated.cost,
    }


def _nonzero(counts: Counter[str]) -> dict[str, int]:
    return {reason: n for reason, n in sorted(counts.items()) if n}


def _describe(counts: dict[str, Any]) -> str:
    parts = {**counts["documents"].get("failed", {}), **counts["documents"]["unusable"], **counts["queries"]["dropped"]}
    return ", ".join(f"{n:,} {reason}" for reason, n in parts.items()) or "no queries were generated"
