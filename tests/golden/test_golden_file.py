"""Tests of golden_file.py and differences.py: which values fail, what the message says, which values are replaced."""

import pytest
from differences import DEPTH, exact_difference, numeric_difference, ranking_difference
from golden_file import REGENERATE, Entry, GoldenFile, problem

HITS = [["a", 3.0], ["b", 2.0], ["c", 1.99999], ["d", 1.0]]
FULL = [[f"d{rank}", 10.0 - rank] for rank in range(DEPTH)]
STORED = Entry({"RANKING": 1, "EMBEDDINGS['dense']": 2}, {"q1": HITS})


def replace_hit(hits, rank, *hit):
    return [*hits[:rank], list(hit), *hits[rank + 1 :]]


@pytest.mark.parametrize(
    "current",
    [
        HITS,
        replace_hit(HITS, 0, "a", 3.00005),  # 2e-5 of 3
        [HITS[0], ["c", 2.0], ["b", 1.99999], HITS[3]],
        replace_hit(FULL, DEPTH - 1, "next", FULL[-1][1] + 1e-5),
    ],
)
def test_rankings_that_differ_by_rounding_are_equal(current):
    stored = FULL if len(current) == DEPTH else HITS
    assert ranking_difference({"q1": stored}, {"q1": current}) is None


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        (replace_hit(HITS, 0, "a", 3.0002), "query q1, rank 1: stored a 3.0, now a 3.0002"),
        (replace_hit(HITS, 3, "e", 1.0), "query q1, rank 4: stored d 1.0, now e 1.0"),
        ([HITS[1], HITS[0], *HITS[2:]], "query q1, rank 1: stored a 3.0, now b 2.0"),
        (HITS[:3], "query q1, rank 4: stored 4 hits, now 3"),
        ([*HITS, ["e", 0.5]], "query q1, rank 5: stored 4 hits, now 5"),
        (replace_hit(FULL, 8, "next", FULL[8][1]), "query q1, rank 9: stored d8 2.0, now next 2.0"),
    ],
)
def test_the_first_difference_of_rankings_names_query_rank_and_hits(current, expected):
    stored = FULL if len(current) == DEPTH else HITS
    assert ranking_difference({"q0": [], "q1": stored}, {"q0": [], "q1": current}) == expected


def test_near_ties_may_not_swap_with_strict_order():
    swapped = {"q1": [HITS[0], ["c", 2.0], ["b", 1.99999], HITS[3]]}
    expected = "query q1, rank 2: stored b 2.0, now c 2.0"
    assert ranking_difference({"q1": HITS}, swapped, strict_order=True) == expected


def test_a_missing_or_new_query_is_a_difference():
    assert ranking_difference({"q1": HITS}, {}) == "query q1: no longer among the queries"
    assert ranking_difference({}, {"q1": HITS}) == "query q1: not yet among the queries"


def test_the_first_difference_of_numbers_and_digests_is_named():
    stored = {"ndcg@10": {"q1": 0.5, "q2": 1.0}}
    assert numeric_difference(stored, {"ndcg@10": {"q1": 0.5, "q2": 1.0 + 1e-9}}) is None
    difference = numeric_difference(stored, {"ndcg@10": {"q1": 0.5, "q2": 0.9}})
    assert difference == "ndcg@10 of query q2: stored 1.0, now 0.9"
    assert exact_difference({"documents": 3}, {"documents": 3}) is None
    assert exact_difference({"documents": 3}, {"documents": 4}) == "documents: stored 3, now 4"


def check(path, current, regenerate=False):
    GoldenFile(path, ["minilm"], regenerate).check("minilm", current, ranking_difference)


@pytest.fixture
def golden(tmp_path):
    """Write a golden file with the entry `STORED` and return its path."""
    check(tmp_path / "golden.json", STORED, regenerate=True)
    return tmp_path / "golden.json"


def test_stored_values_pass(golden):
    check(golden, STORED)
    assert GoldenFile(golden, []).read() == {"minilm": STORED}


def test_a_case_without_stored_values_names_the_command_to_store_them(tmp_path):
    message = problem("minilm", None, STORED, ranking_difference)
    assert "minilm has no golden values" in message
    assert REGENERATE in message


def test_a_changed_value_names_the_versions_to_raise_and_the_first_difference(golden):
    current = Entry(STORED.versions, {"q1": replace_hit(HITS, 3, "e", 1.0)})
    with pytest.raises(pytest.fail.Exception) as failure:
        check(golden, current)
    for part in (
        "Raise versions.RANKING or versions.EMBEDDINGS['dense'] (harness/versions.py)",
        REGENERATE,
        "or find the bug",
        "First difference: minilm, query q1, rank 4: stored d 1.0, now e 1.0",
    ):
        assert part in str(failure.value)


def test_a_raised_version_must_be_regenerated_even_if_the_values_are_equal(golden):
    with pytest.raises(pytest.fail.Exception) as failure:
        check(golden, Entry({**STORED.versions, "RANKING": 2}, STORED.values))
    assert f"versions.RANKING is 2, the golden values are of 1; regenerate: {REGENERATE}" in str(failure.value)


def test_changed_values_are_not_stored_under_the_same_versions(golden):
    before = golden.read_text()
    current = Entry(STORED.versions, {"q1": replace_hit(HITS, 3, "e", 1.0)})
    with pytest.raises(pytest.fail.Exception, match=r"not regenerated: .* Raise versions\.RANKING"):
        check(golden, current, regenerate=True)
    assert golden.read_text() == before


def test_a_lowered_version_is_an_error(golden):
    lower = Entry({**STORED.versions, "EMBEDDINGS['dense']": 1}, {"q1": HITS[:3]})
    with pytest.raises(pytest.fail.Exception, match=r"versions\.EMBEDDINGS\['dense'\] is 1 and was 2"):
        check(golden, lower, regenerate=True)


def test_a_raised_version_lets_changed_values_be_stored(golden):
    current = Entry({**STORED.versions, "RANKING": 2}, {"q1": HITS[:3]})
    check(golden, current, regenerate=True)
    check(golden, current)


def test_values_within_the_tolerance_keep_their_stored_digits(golden):
    before = golden.read_text()
    check(golden, Entry(STORED.versions, {"q1": replace_hit(HITS, 0, "a", 3.00001)}), regenerate=True)
    assert golden.read_text() == before


def test_entries_of_removed_cases_are_dropped(golden):
    GoldenFile(golden, ["bm25"], regenerate=True).check("bm25", STORED, ranking_difference)
    assert set(GoldenFile(golden, []).read()) == {"bm25"}
