"""Tests of the hybrid retriever over stub retrievers and BM25, and from the command line."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.command_line import harness
from support.datasets import write_beir
from support.fusion import fuse_rankings, hits_of, run_of_rankings

from harness.errors import ConfigError
from harness.instrument import recording
from harness.retrievers.bm25 import BM25
from harness.retrievers.hybrid import Hybrid, convex, rrf
from harness.store import Store
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Queries, Run


class Stub:
    """A retriever that ranks documents in a fixed order for every query and records its searches."""

    def __init__(self, ranking: list[str], size: int = 0) -> None:
        self.ranking, self.size = ranking, size
        self.indexed: list[Corpus] = []
        self.searches: list[tuple[list[str], int]] = []

    def index(self, corpus: Corpus) -> None:
        self.indexed.append(corpus)

    def search(self, queries: Queries, k: int) -> Run:
        self.searches.append((list(queries.texts), k))
        known = self.indexed[-1].ids
        rankings = [[doc for doc in self.ranking if doc in known][:k] for _ in queries.ids]
        run = run_of_rankings(rankings, list(known))
        return Run(list(queries.ids), known, run.docs, run.scores)

    def nbytes(self) -> int:
        return self.size


CORPUS = Corpus(["a", "b", "c", "d"], ["one", "two", "three", "four"])
QUERIES = Queries(["p", "q"], ["first", "second"])


def test_a_hybrid_fuses_the_runs_of_its_retrievers() -> None:
    first, second = Stub(["a", "b", "c"]), Stub(["c", "d"])
    hybrid = Hybrid({"one": first, "two": second}, rrf)
    hybrid.index(CORPUS)
    run = hybrid.search(QUERIES, 10)
    assert list(run.query_ids) == ["p", "q"]
    for query in range(2):
        assert [doc for doc, _ in hits_of(run, query)] == ["c", "a", "d", "b"]
        assert dict(hits_of(run, query)) == pytest.approx(
            dict(fuse_rankings([["a", "b", "c"], ["c", "d"]], 60)), rel=1e-6
        )
    assert first.searches == second.searches == [(["first", "second"], 100)]


def test_a_hybrid_indexes_the_corpus_with_each_retriever() -> None:
    first, second = Stub(["a", "b"]), Stub(["b"])
    hybrid = Hybrid({"one": first, "two": second}, rrf)
    hybrid.index(CORPUS)
    assert first.indexed == second.indexed == [CORPUS]
    hybrid.index(CORPUS[1:])
    assert [doc for doc, _ in hits_of(hybrid.search(QUERIES, 10))] == ["b"]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_retriever_searches_to_the_configured_depth_for_any_k(depth: int) -> None:
    first, second = Stub(["a", "b", "c"]), Stub(["c", "d", "a"])
    hybrid = Hybrid({"one": first, "two": second}, rrf, depth=depth)
    hybrid.index(CORPUS)
    expected = fuse_rankings([["a", "b", "c"][:depth], ["c", "d", "a"][:depth]], 60)
    for k in (1, depth, 50):
        run = hybrid.search(QUERIES, k)
        assert [doc for doc, _ in hits_of(run)] == [doc for doc, _ in expected][:k]
        assert run.depth <= k
    assert {k for _, k in first.searches + second.searches} == {depth}


def test_k_one_above_depth_makes_each_retriever_search_one_deeper() -> None:
    first, second = Stub(["a", "b", "c"]), Stub(["c", "d", "a"])
    hybrid = Hybrid({"one": first, "two": second}, rrf, depth=2)
    hybrid.index(CORPUS)
    hybrid.search(QUERIES, 3)
    assert {k for _, k in first.searches + second.searches} == {3}


def test_a_document_low_in_both_runs_can_beat_one_that_is_first_in_one() -> None:
    # within depth 2: b has 1/62 + 1/62 = .0323, a and c have 1/61 = .0164
    parts = {"one": Stub(["a", "b"]), "two": Stub(["c", "b"])}
    hybrid = Hybrid(parts, rrf, depth=2)
    hybrid.index(CORPUS)
    assert [doc for doc, _ in hits_of(hybrid.search(QUERIES, 1))] == ["b"]


def test_a_hybrid_uses_the_given_fusion() -> None:
    n_runs: list[int] = []

    def last_run(runs: list[Run]) -> Run:
        n_runs.append(len(runs))
        return runs[-1]

    for fusion, best in ((last_run, "d"), (partial(rrf, constant=0), "a")):
        hybrid = Hybrid({"one": Stub(["a", "b"]), "two": Stub(["d", "a"])}, fusion)
        hybrid.index(CORPUS)
        assert hits_of(hybrid.search(QUERIES, 2))[0][0] == best
    assert n_runs == [2, 2]  # once on empty runs when the hybrid is constructed, once in the search


def test_a_hybrid_of_one_retriever_keeps_its_ranking() -> None:
    hybrid = Hybrid({"only": Stub(["d", "a", "c"])}, rrf)
    hybrid.index(CORPUS)
    assert [doc for doc, _ in hits_of(hybrid.search(QUERIES, 10))] == ["d", "a", "c"]


def test_a_hybrid_can_contain_a_hybrid() -> None:
    inner = Hybrid({"one": Stub(["a", "b"], 1), "two": Stub(["b"], 2)}, rrf)
    outer = Hybrid({"inner": inner, "three": Stub(["c", "b"], 4)}, rrf)
    outer.index(CORPUS)
    assert [doc for doc, _ in hits_of(outer.search(QUERIES, 10))] == ["b", "c", "a"]  # b 1/61 + 1/62, c 1/61, a 1/62
    assert outer.nbytes() == 7


def test_nbytes_of_a_hybrid_is_the_sum_over_its_retrievers() -> None:
    assert Hybrid({"one": Stub([], 30), "two": Stub([], 12)}, rrf).nbytes() == 42


def test_a_hybrid_records_a_fuse_stage() -> None:
    hybrid = Hybrid({"one": Stub(["a"])}, rrf)
    hybrid.index(CORPUS)
    with recording() as recorder:
        hybrid.search(QUERIES, 1)
    assert list(recorder.stages) == ["fuse"]


def test_a_hybrid_of_bm25_gives_the_same_hits_for_single_queries() -> None:
    parts = {"stemmed": BM25(Tokenizer()), "plain": BM25(Tokenizer(stemmer=None, stop_words=None))}
    hybrid = Hybrid(parts, rrf, depth=3)
    hybrid.index(Corpus(["a", "b", "c", "d"], ["cats and dogs", "the cat", "", "dog cat"]))
    queries = Queries(["1", "2", "3", "4"], ["cat", "", "elephant", "the dogs"])
    run = hybrid.search(queries, 99)
    assert [bool(hits_of(run, row)) for row in range(4)] == [True, False, False, True]
    for row in range(4):
        assert hits_of(hybrid.search(queries[row : row + 1], 99)) == hits_of(run, row)


def test_a_hybrid_without_retrievers_is_refused() -> None:
    message = "at least one retriever, such as retriever@retriever.retrievers.lexical=bm25"
    with pytest.raises(ConfigError, match=re.escape(message)):
        Hybrid({}, rrf)


@pytest.mark.parametrize("depth", [0, -5])
def test_a_hybrid_depth_below_one_is_refused(depth: int) -> None:
    with pytest.raises(ConfigError, match=rf"retriever\.depth={depth} must be at least 1"):
        Hybrid({"one": Stub([])}, rrf, depth=depth)


@pytest.mark.parametrize("fusion", [rrf, convex])
def test_invalid_weights_are_refused_when_the_hybrid_is_constructed(fusion: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match=r"weights=\[1\] has 1 numbers for 2 retrievers"):
        Hybrid({"one": Stub(["a"]), "two": Stub(["b"])}, partial(fusion, weights=[1]))


# -------------------------------------------------------------------------------------------------- the command line

HYBRID = ["retriever=hybrid", "retriever@retriever.retrievers.dense=bm25_mteb"]


@pytest.fixture
def command(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs the command line in this process on a small dataset and returns the exit code."""
    write_beir(tmp_path / "made")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        rest = ["dataset=folder", "dataset.path=made", "timing.latency_queries=2", "timing.repeats=1"]
        return harness(monkeypatch, *arguments, *rest)

    return run


@pytest.mark.parametrize("name", ["rrf", "min_max", "z_score", "dbsf"])
def test_a_fusion_is_chosen_by_name_and_shown_in_the_label(command: Callable[..., int], name: str) -> None:
    assert command(*HYBRID, f"fusion@retriever.fusion={name}") == 0
    (record,) = Store(Path("results")).records()
    swapped = [*([] if name == "rrf" else [f"fusion={name}"]), "retrievers.dense=bm25_mteb"]
    assert record.retriever.label == f"hybrid [{', '.join(swapped)}]"
    if name != "rrf":
        assert record.retriever.config["fusion"]["normalize"] == name
    assert record.status == "ok"
    assert record.metrics["ndcg@10"] == 1.0


@pytest.mark.slow
def test_a_sweep_over_weights_gives_a_label_for_each(command: Callable[..., int]) -> None:
    assert command("-m", *HYBRID, "retriever.fusion.weights=[1,1],[1,2]") == 0
    records = list(Store(Path("results")).records())
    assert sorted(record.retriever.label for record in records) == [
        "hybrid [retrievers.dense=bm25_mteb, fusion.weights=[1, 1]]",
        "hybrid [retrievers.dense=bm25_mteb, fusion.weights=[1, 2]]",
    ]
    assert len({record.id for record in records}) == 2
