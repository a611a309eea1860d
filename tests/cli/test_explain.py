"""Tests of `harness explain`: the contributions add up to the score, in the terminal and as JSON."""

import json

import pytest
from support.command_line import harness
from support.datasets import write_beir

from harness.cli.explain import ExplainedDocument, QueryExplanation, explain
from harness.config import build
from harness.config.conf import options_of
from harness.errors import ConfigError
from harness.leaderboard import writers
from harness.leaderboard.tables.explanation import tables
from harness.types import Explanation

ADDITIVE = ["bm25", "bm25_rank_bm25", "splade_tiny", "colbert_minilm"]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Return the arguments that choose a small dataset."""
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return ["dataset=folder", f"dataset.path={write_beir(tmp_path / 'tiny')}"]


def column(why, name):
    """Return the values of a column of an explanation."""
    return [row[why.columns.index(name)] for row in why.rows]


@pytest.mark.parametrize("name", ADDITIVE)
def test_contributions_add_up_to_the_score(name, dataset, models):
    explanation = explain([f"retriever={name}", *dataset, "query=does the moon orbit the earth", "top=2"])
    assert explanation.documents[0].doc == "d3"
    assert [document.rank for document in explanation.documents] == list(range(1, len(explanation.documents) + 1))
    for document in explanation.documents:
        assert sum(column(document.why, "adds")) == pytest.approx(
            document.score, abs=2e-3 if name == "colbert_minilm" else 1e-4
        )


def test_bm25_lists_terms_by_contribution(dataset):
    explanation = explain(["retriever=bm25", *dataset, "query=what orbits the earth and the moon", "doc=d3"])
    assert column(explanation.documents[0].why, "term")[-1] == "moon", "a term of two documents contributes least"
    assert set(column(explanation.documents[0].why, "term")) == {"orbit", "earth", "moon"}
    assert "2 of 4" in column(explanation.documents[0].why, "documents with it")


def test_late_interaction_pairs_equal_tokens(dataset, models):
    why = explain(["retriever=colbert_minilm", *dataset, "query=bread", "doc=d4"]).documents[0].why
    assert ("bread", "bread") in zip(column(why, "query token"), column(why, "document token"), strict=True)


def test_dense_reports_the_similarity_and_the_number_of_nearer_documents(dataset, models):
    explanation = explain(["retriever=minilm", *dataset, "query=q1", "top=4"])
    assert explanation.query == "why do cats purr"
    for document in explanation.documents:
        similarity = dict(document.why.rows)["this document"]
        assert similarity == pytest.approx(document.score, abs=1e-5)
        assert f"; {document.rank - 1} documents are nearer" in document.why.summary
    assert dict(explanation.documents[0].why.rows)["corpus, 100 % below"] == pytest.approx(
        explanation.documents[0].score, abs=1e-5
    )


@pytest.mark.parametrize("fusion", ["rrf", "min_max", "z_score", "dbsf"])
def test_contributions_of_a_hybrid_add_up_to_the_score(fusion, dataset, models):
    arguments = ["retriever=hybrid", f"fusion@retriever.fusion={fusion}", *dataset, "query=why do cats purr", "top=4"]
    for document in explain(arguments).documents:
        assert sum(column(document.why, "adds")) == pytest.approx(document.score, abs=1e-5)
        assert set(document.why.parts) == {"lexical", "dense"}


def test_retriever_of_a_hybrid_without_the_document_has_no_rank(dataset, models):
    explanation = explain(["retriever=hybrid", *dataset, "query=why do cats purr", "doc=d4"])
    rows = {row[0]: row for row in explanation.documents[0].why.rows}
    assert rows["lexical"] == ("lexical", None, None, 0.0)
    assert rows["dense"][1] is not None
    line = next(
        line for line in writers.terminal(tables(explanation)).splitlines() if line.strip().startswith("lexical ")
    )
    assert line.split() == ["lexical", "-", "-", "0.0000"]


def test_reranker_reports_the_ranks_of_both_stages(dataset, models):
    explanation = explain(["retriever=rerank_colbert_minilm", *dataset, "query=the moon and dogs that bark", "top=2"])
    for document in explanation.documents:
        assert [row[0] for row in document.why.rows] == ["first stage", "scorer"]
        assert document.why.rows[1][1:] == (document.rank, pytest.approx(document.score))
        assert set(document.why.parts) == {"first_stage", "scorer"}
    outside = explain(["retriever=rerank_colbert_minilm", *dataset, "query=cats purr", "doc=d4"]).documents[0]
    assert outside.rank is None
    assert outside.why.summary == "not among the first stage's 100 best, so it is not scored"


PRECOMPUTED = {"mteb", "run_file"}
"""Retrievers whose ranking another program computes, so that the harness cannot explain it."""


@pytest.mark.parametrize("name", [name for name, _ in options_of("retriever") if name not in PRECOMPUTED])
def test_every_configured_retriever_has_explain(name):
    retriever = build.construct(build.composed([f"retriever={name}"])["retriever"], "retriever")
    assert callable(retriever.explain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retriever=bm25"], "no query is given; add: query="),
        (["retriever=bm25", "query="], "no query is given"),
        (["retriever=bm25", "query=x", "top=0"], "top='0' must be a whole number of at least 1"),
        (["retriever=bm25", "query=x", "top=many"], "top='many' must be a whole number"),
        (["retriever=bm25", "query=x", "doc=nine"], "doc='nine' is not among the 4 documents of tiny (such as 'd1')"),
        (["retriever=bm52", "query=x"], "did you mean bm25?"),
        (["query=x"], "retriever"),
        (["retriever=bm25", "retriever.k2=1", "query=x"], "retriever has no key 'k2'; choices: k1, b, tokenizer"),
        (["retriever=bm25,minilm", "query=x"], "'retriever=bm25,minilm' gives several values"),
    ],
)
def test_mistake_is_named_in_the_error(arguments, message, dataset):
    with pytest.raises(ConfigError) as error:
        explain([*arguments, *dataset])
    assert message in str(error.value)


def test_terminal_and_json_have_the_same_numbers(dataset, monkeypatch, capsys):
    arguments = ["explain", "retriever=bm25", *dataset, "query=q3", "top=1"]
    assert harness(monkeypatch, *arguments) == 0
    text = capsys.readouterr().out
    assert harness(monkeypatch, *arguments, "--json") == 0
    (document,) = json.loads(capsys.readouterr().out)["documents"]
    assert document["doc"] == "d4"
    assert f"d4: rank 1, score {document['score']:.4f}" in text
    assert document["why"]["summary"] in " ".join(text.split())


def test_markup_characters_are_printed_unchanged():
    why = Explanation("[red]text[/red]", ("term", "adds"), [("[bold]x", 1.0)])
    explanation = QueryExplanation(
        "bm25", "d", "[b]query", 10, [ExplainedDocument("[i]d", "[u]text " * 99, None, None, why)]
    )
    shown = writers.terminal(tables(explanation))
    for text in ("[b]query", "[i]d: not among the first 10", "[u]text", "[red]text[/red]", "[bold]x"):
        assert text in shown


def test_query_without_matches_is_reported(dataset):
    shown = writers.terminal(tables(explain(["retriever=bm25", *dataset, "query=zzyzx"])))
    assert "no document matches the query" in shown
