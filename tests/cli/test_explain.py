"""`harness explain`: what it adds up is the score, for every family, in the terminal and as JSON."""

import json
import sys

import pytest
from support.datasets import write_beir

from harness import __main__
from harness.cli.explain import ExplainedDocument, QueryExplanation, explain
from harness.config import build
from harness.config.conf import options_of
from harness.errors import ConfigError
from harness.leaderboard import writers
from harness.leaderboard.tables.explanation import tables
from harness.types import Explanation

ADDITIVE = ["bm25", "bm25_rank_bm25", "splade_tiny", "colbert_minilm"]
MADE_OF_OTHERS = ["hybrid", "rerank_colbert_minilm"]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Words that choose a small collection."""
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return ["dataset=folder", f"dataset.path={write_beir(tmp_path / 'made')}"]


def column(why, name):
    return [row[why.columns.index(name)] for row in why.rows]


@pytest.mark.parametrize("name", ADDITIVE)
def test_what_the_rows_add_is_the_score(name, made, models):
    found = explain([f"retriever={name}", *made, "query=does the moon orbit the earth", "top=2"])
    assert found.documents[0].doc == "d3"
    assert [one.rank for one in found.documents] == list(range(1, len(found.documents) + 1))
    for one in found.documents:
        assert sum(column(one.why, "adds")) == pytest.approx(one.score, abs=2e-3 if name == "colbert_minilm" else 1e-4)


def test_bm25_names_the_terms_by_what_they_add(made):
    found = explain(["retriever=bm25", *made, "query=what orbits the earth and the moon", "doc=d3"])
    assert column(found.documents[0].why, "term")[-1] == "moon", "the one that another document has too adds least"
    assert set(column(found.documents[0].why, "term")) == {"orbit", "earth", "moon"}
    assert "2 of 4" in column(found.documents[0].why, "documents with it")


def test_late_interaction_pairs_a_token_with_its_own_word(made, models):
    why = explain(["retriever=colbert_minilm", *made, "query=bread", "doc=d4"]).documents[0].why
    assert ("bread", "bread") in zip(column(why, "query token"), column(why, "document token"), strict=True)


def test_dense_says_how_many_documents_are_nearer(made, models):
    found = explain(["retriever=minilm", *made, "query=q1", "top=4"])
    assert found.query == "why do cats purr"
    for one in found.documents:
        similarity = dict(one.why.rows)["this document"]
        assert similarity == pytest.approx(one.score, abs=1e-5)
        assert f"; {one.rank - 1} documents are nearer" in one.why.summary
    assert dict(found.documents[0].why.rows)["corpus, 100 % below"] == pytest.approx(found.documents[0].score, abs=1e-5)


@pytest.mark.parametrize("fusion", ["rrf", "min_max", "z_score", "dbsf"])
def test_a_hybrids_parts_add_up_and_explain_themselves(fusion, made, models):
    words = ["retriever=hybrid", f"fusion@retriever.fusion={fusion}", *made, "query=why do cats purr", "top=4"]
    for one in explain(words).documents:
        assert sum(column(one.why, "adds")) == pytest.approx(one.score, abs=1e-5)
        assert set(one.why.parts) == {"lexical", "dense"}


def test_a_part_that_does_not_find_the_document_has_no_rank(made, models):
    found = explain(["retriever=hybrid", *made, "query=why do cats purr", "doc=d4"])
    rows = {row[0]: row for row in found.documents[0].why.rows}
    assert rows["lexical"] == ("lexical", None, None, 0.0)
    assert rows["dense"][1] is not None
    line = next(line for line in writers.terminal(tables(found)).splitlines() if line.strip().startswith("lexical "))
    assert line.split() == ["lexical", "-", "-", "0.0000"]


def test_a_reranker_says_the_rank_before_and_after(made, models):
    found = explain(["retriever=rerank_colbert_minilm", *made, "query=the moon and dogs that bark", "top=2"])
    for one in found.documents:
        assert [row[0] for row in one.why.rows] == ["first stage", "scorer"]
        assert one.why.rows[1][1:] == (one.rank, pytest.approx(one.score))
        assert set(one.why.parts) == {"first_stage", "scorer"}
    outside = explain(["retriever=rerank_colbert_minilm", *made, "query=cats purr", "doc=d4"]).documents[0]
    assert outside.rank is None
    assert outside.why.summary == "not among the first stage's 100 best, so it is not scored"


OTHERS = {"mteb", "run_file"}
"""Rankings of another's making, which says nothing of why."""


@pytest.mark.parametrize("name", [name for name, _ in options_of("retriever") if name not in OTHERS])
def test_every_retriever_of_the_configs_can_explain_itself(name):
    retriever = build.construct(build.composed([f"retriever={name}"])["retriever"], "retriever")
    assert callable(retriever.explain)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["retriever=bm25"], "no query is given; add: query="),
        (["retriever=bm25", "query="], "no query is given"),
        (["retriever=bm25", "query=x", "top=0"], "top='0' must be a whole number of at least 1"),
        (["retriever=bm25", "query=x", "top=many"], "top='many' must be a whole number"),
        (["retriever=bm25", "query=x", "doc=nine"], "doc='nine' is not among the 4 documents of made (such as 'd1')"),
        (["retriever=bm52", "query=x"], "did you mean bm25?"),
        (["query=x"], "retriever"),
        (["retriever=bm25", "retriever.k2=1", "query=x"], "retriever has no key 'k2'; choices: k1, b, tokenizer"),
        (["retriever=bm25,minilm", "query=x"], "'retriever=bm25,minilm' gives several values"),
    ],
)
def test_a_mistake_is_named(words, said, made):
    with pytest.raises(ConfigError) as error:
        explain([*words, *made])
    assert said in str(error.value)


def test_the_command_prints_the_sentence_and_as_json_the_same_numbers(made, monkeypatch, capsys):
    words = ["explain", "retriever=bm25", *made, "query=q3", "top=1"]
    texts = []
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["harness", *words, *more])
        with pytest.raises(SystemExit) as stop:
            __main__.main()
        assert stop.value.code == 0
        texts.append(capsys.readouterr().out)
    (document,) = json.loads(texts[1])["documents"]
    assert document["doc"] == "d4"
    assert f"d4: rank 1, score {document['score']:.4f}" in texts[0]
    assert document["why"]["summary"] in " ".join(texts[0].split())


def test_what_looks_like_markup_is_printed_as_it_is():
    why = Explanation("[red]said[/red]", ("term", "adds"), [("[bold]x", 1.0)])
    answer = QueryExplanation(
        "bm25", "d", "[b]query", 10, [ExplainedDocument("[i]d", "[u]text " * 99, None, None, why)]
    )
    shown = writers.terminal(tables(answer))
    for text in ("[b]query", "[i]d: not among the first 10", "[u]text", "[red]said[/red]", "[bold]x"):
        assert text in shown


def test_a_query_that_matches_nothing_says_so(made):
    shown = writers.terminal(tables(explain(["retriever=bm25", *made, "query=zzyzx"])))
    assert "no document matches the query" in shown
