"""Triplets from a corpus: a sample of documents, queries for them, those kept that find their document, negatives."""

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
from harness.train.negatives import Negatives, extended
from harness.train.triplets import Triplets
from harness.train.words import normalised
from harness.types import Corpus, Queries, Retriever, StringColumn

Some = TypeVar("Some")


@dataclass(frozen=True)
class Plan:
    """How many documents are taken, None for all, and how many queries of each at most."""

    documents: int | None
    per_document: int
    seed: int
    resume: bool


@dataclass(frozen=True)
class RoundTrip:
    """Keeps a query if its document is among the first `k` that the retriever finds for it."""

    retriever: Retriever
    k: int

    def keeps(self, corpus: Corpus, queries: Queries, docs: Sequence[int]) -> list[bool]:
        """Whether each query finds its document, whose number is given."""
        with stage("round trip", total=len(queries)) as step:
            self.retriever.index(corpus)
            run = self.retriever.search(queries, self.k)
            step(len(queries))
        found: list[bool] = (run.docs == np.array(docs)[:, None]).any(axis=1).tolist()
        return found


@dataclass(frozen=True)
class Source:
    """The documents, and where they come from."""

    name: str
    corpus: Corpus
    titles: Callable[[], StringColumn] | None = None


def answers_of(output: Path) -> Path:
    """Where the answers that were paid for are kept."""
    return output.with_name(f"{output.name}.answers.jsonl")


def manifest_of(output: Path) -> Path:
    """Where it is said how an output was made."""
    return output.with_name(f"{output.name}.manifest.json")


def claim(output: Path) -> None:
    """Refuse what cannot be written, or was not made here, before anything is paid for. Raises `ConfigError`."""
    triplets.check_suffix(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise ConfigError(f"output={str(output)!r}: {error.strerror}; name a file that can be written") from None
    if output.exists() and not manifest_of(output).exists():
        raise ConfigError(
            f"{output} is there and has no manifest: it was made elsewhere; write to another: output=FILE"
        )


def synthesize(
    source: Source,
    generator: Generator,
    round_trip: RoundTrip | None,
    negatives: Negatives,
    plan: Plan,
    output: Path,
) -> tuple[Triplets, dict[str, Any]]:
    """The triplets, and the counts of what became of documents and queries. Raises `DataError` where none are left."""
    sample = sampled(source.corpus, plan.documents, plan.seed)
    task = Task(source.name, source.corpus, source.titles, sample, plan.per_document, answers_of(output), plan.resume)
    made = generator.generate(task)
    candidates, known = _unique(made)
    queries = Queries([str(number) for number in range(len(candidates))], [one.anchor for one in candidates])
    if round_trip is not None and candidates:
        found = round_trip.keeps(source.corpus, queries, [one.doc for one in candidates])
        made.dropped["round_trip"] = len(found) - sum(found)
        candidates, known = _kept(candidates, found), _kept(known, found)
        queries = Queries(_kept(queries.ids, found), _kept(queries.texts, found))
    shown = source.corpus if made.texts_of is None else Corpus(source.corpus.ids, made.texts_of())
    chosen = negatives.choose(queries, shown, known)
    whole = extended(chosen, negatives.n, shown, known, plan.seed)
    enough = [len(row) == negatives.n for row in whole]
    made.dropped["no_negatives"] = len(enough) - sum(enough)
    candidates, chosen, whole = _kept(candidates, enough), _kept(chosen, enough), _kept(whole, enough)
    counts = _counts(made, len(sample), chosen, negatives.n)
    if not candidates:
        raise DataError(
            f"nothing is left of {len(sample):,} documents of {source.name}: {_said(counts)}; what decides it: "
            "documents, generator, round_trip.k, negatives.n"
        )
    texts = [shown.texts.take(np.array(row, np.int64)) for row in whole]
    return Triplets([one.anchor for one in candidates], [one.positive for one in candidates], texts), counts


def save(output: Path, made: Triplets, manifest: dict[str, Any]) -> None:
    """The manifest, then the triplets, both complete before either has its name. Raises `StoreError`."""
    whole = {**manifest, "triplets": {"rows": len(made), "fingerprint": made.fingerprint}}
    said = json.dumps(whole, indent=2, ensure_ascii=False).encode() + b"\n"
    write_together({manifest_of(output): said, output: triplets.encoded(made, output)})


def sampled(corpus: Corpus, documents: int | None, seed: int) -> list[int]:
    """Numbers of the documents of lowest seeded hash, in order: of a larger sample, a smaller one is a part."""
    if documents is None or documents >= len(corpus):
        return list(range(len(corpus)))
    hashes = (hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest() for key in corpus.ids)
    return sorted(number for _, number in heapq.nsmallest(documents, zip(hashes, count(), strict=False)))


def _unique(made: Generated) -> tuple[list[Candidate], list[set[int]]]:
    """Candidates whose words nobody before them had, each with all documents that it was generated for."""
    docs: dict[str, set[int]] = defaultdict(set)
    first: dict[str, Candidate] = {}
    for candidate in made.candidates:
        key = normalised(candidate.anchor)
        first.setdefault(key, candidate)
        docs[key].add(candidate.doc)
    if repeated := len(made.candidates) - len(first):
        made.dropped["duplicate"] = repeated
    return list(first.values()), [docs[key] for key in first]


def _kept(rows: Sequence[Some], found: Sequence[bool]) -> list[Some]:
    return [row for row, kept in zip(rows, found, strict=True) if kept]


def _counts(made: Generated, documents: int, chosen: Sequence[list[int]], n: int) -> dict[str, Any]:
    found = sum(map(len, chosen))
    return {
        "documents": {"sampled": documents, **made.documents, "unusable": _sorted(made.unusable)},
        "queries": {"given": made.given, "kept": len(chosen), "dropped": _sorted(made.dropped)},
        "negatives": {"chosen": found, "at_random": n * len(chosen) - found},
        "cost": made.cost,
    }


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {reason: n for reason, n in sorted(counts.items()) if n}


def _said(counts: dict[str, Any]) -> str:
    parts = {**counts["documents"].get("failed", {}), **counts["documents"]["unusable"], **counts["queries"]["dropped"]}
    return ", ".join(f"{n:,} {reason}" for reason, n in parts.items()) or "no queries were made"
