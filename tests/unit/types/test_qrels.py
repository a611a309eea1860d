"""Tests of Qrels: a mapping whose grades are whole numbers of 32 bits."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support.errors import data_error

from harness.metrics import parse, score
from harness.types import Qrels, Run


def test_qrels_are_a_mapping() -> None:
    qrels = Qrels({"q1": {"a": 2, "b": 0}, "q2": {"c": -1}, "q3": {}})
    assert list(qrels) == ["q1", "q2", "q3"]
    assert len(qrels) == 3
    assert qrels["q1"] == {"a": 2, "b": 0}
    assert "q4" not in qrels
    assert qrels.judgements() == 3
    with pytest.raises(KeyError):
        qrels["q4"]


def test_queries_with_relevant_have_a_document_with_a_positive_grade() -> None:
    qrels = Qrels({"z": {"a": 0, "b": 1}, "none": {}, "zero": {"a": 0}, "negative": {"a": -1, "b": 0}, "a": {"x": 3}})
    assert qrels.queries_with_relevant() == ["z", "a"]


def test_qrels_do_not_change_with_the_dict_they_came_from() -> None:
    source = {"q": {"a": 1}}
    qrels = Qrels(source)
    source["q"]["b"] = 1
    source["p"] = {"a": 1}
    assert dict(qrels) == {"q": {"a": 1}}


@pytest.mark.parametrize(
    "grade",
    [0.5, 1.9, -0.1, np.nan, np.inf, -np.inf, 2**31, -(2**31) - 1, 3e9, 10**400, "1", None, Fraction(1, 2), [1]],
)
def test_a_grade_that_is_not_a_whole_number_of_32_bits_is_refused(grade: Any) -> None:
    with data_error(f"query 'q', document 'b': grade {grade!r} must be a whole number from -2147483648 to 2147483647"):
        Qrels({"p": {"a": 1}, "q": {"a": 1, "b": grade, "c": 0.25}})


@pytest.mark.parametrize(
    ("grade", "expected"),
    [
        (2.0, 2),
        (np.int64(2), 2),
        (np.uint8(2), 2),
        (np.float32(2.0), 2),
        (-0.0, 0),
        (True, 1),
        (False, 0),
        (np.True_, 1),
        (Fraction(4, 2), 2),
        (2**31 - 1, 2**31 - 1),
        (-(2**31), -(2**31)),
    ],
)
def test_a_whole_grade_of_any_type_is_converted_to_int(grade: Any, expected: int) -> None:
    value = Qrels({"q": {"a": grade}})["q"]["a"]
    assert (value, type(value)) == (expected, int)


def test_whole_float_grades_score_like_integers() -> None:
    run = Run.from_dict({"q": {"a": 3.0, "b": 2.0, "c": 1.0}})
    values = [score(run, Qrels({"q": grades}), [parse("ndcg@3")])[1]["ndcg@3"][0] for grades in ({"b": 3.0}, {"b": 3})]
    assert values[0] == values[1] == pytest.approx(1 / np.log2(3))


def test_the_largest_grade_is_scored() -> None:
    run = Run.from_dict({"q": {"a": 2.0, "b": 1.0}})
    _, scores = score(run, Qrels({"q": {"b": 2**31 - 1}}), [parse("ndcg@2")])
    assert scores["ndcg@2"][0] == pytest.approx(1 / np.log2(3))
