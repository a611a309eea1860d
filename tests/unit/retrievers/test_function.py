"""Tests of functions as retrievers: hits of other queries are refused, and missing ones are named."""

import logging

import pytest

from harness.errors import RunError
from harness.retrievers.function import Function
from harness.types import Corpus, Queries

CORPUS = Corpus(["d1", "d2"], ["a", "b"])
QUERIES = Queries(["q1", "q2", "q3"], ["one", "two", "three"])


def search(result):
    retriever = Function(lambda queries, k: result)
    retriever.index(CORPUS)
    return retriever.search(QUERIES, 10)


def test_hits_of_other_queries_only_are_refused():
    with pytest.raises(RunError, match=r"queries such as 'zz'.*none of the 3 queries.*'q1'"):
        search({"zz": ["d1"]})


@pytest.mark.parametrize(("result", "missing"), [({"q1": ["d1"]}, 2), ({}, 3)])
def test_queries_without_hits_are_counted(result, missing, caplog):
    with caplog.at_level(logging.WARNING, "harness"):
        run = search(result)
    assert list(run) == list(QUERIES)
    assert [record.getMessage() for record in caplog.records] == [
        f"the function returned no hits of {missing} of 3 queries; they score 0"
    ]


def test_missing_queries_are_named_once(caplog):
    retriever = Function(lambda queries, k: {"q1": ["d1"]})
    retriever.index(CORPUS)
    with caplog.at_level(logging.WARNING, "harness"):
        for _ in range(3):
            retriever.search(QUERIES, 10)
    assert len(caplog.records) == 1


def test_a_query_with_an_empty_list_was_answered(caplog):
    with caplog.at_level(logging.WARNING, "harness"):
        search({"q1": ["d1"], "q2": [], "q3": []})
    assert caplog.records == []
