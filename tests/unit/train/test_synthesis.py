"""Tests of synthesis: sampled documents, titles and sentences as queries, a model's questions and its journal."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, StoreError
from harness.train import journal, pseudo, questions
from harness.train.candidates import Task
from harness.train.synthesis import sample_documents
from harness.train.words import words
from harness.types import Corpus, StringColumn

# ---- documents and pseudo-queries


def test_smaller_sample_is_a_subset_of_a_larger_one():
    corpus = Corpus(map(str, range(100)), ["text"] * 100)
    small, large = sample_documents(corpus, 10, 7), sample_documents(corpus, 40, 7)
    assert len(small) == 10
    assert set(small) < set(large)
    assert small == sorted(small) != sample_documents(corpus, 10, 8)
    assert sample_documents(corpus, None, 7) == sample_documents(corpus, 100, 7) == list(range(100))


def generation_task(texts: list[str], titles: list[str] | None = None, per_document: int = 3) -> Task:
    """Return the task of writing queries for all documents with these texts and titles."""
    corpus = Corpus(map(str, range(len(texts))), texts)
    load_titles = None if titles is None else lambda: StringColumn(titles)
    return Task("tiny", corpus, load_titles, list(range(len(texts))), per_document, Path("unused"), True)


def test_title_is_the_query_and_is_removed_from_the_positive():
    texts = ["Cats Cats purr.", "On  dogs On  dogs On  dogs bark.", "No title.", "Only", "The moon orbits."]
    generated = pseudo.Titles().generate(generation_task(texts, ["Cats", " On  dogs ", "", "Only", "Elsewhere"]))
    assert [(candidate.doc, candidate.anchor, candidate.positive) for candidate in generated.candidates] == [
        (0, "Cats", "purr."),
        (1, "On dogs", "bark."),
        (4, "Elsewhere", "The moon orbits."),
    ]
    assert generated.unusable == Counter(no_title=1, no_text=1)


def test_missing_titles_are_an_error_that_names_another_generator():
    with pytest.raises(ConfigError) as error:
        pseudo.Titles().generate(generation_task(["a"]))
    assert str(error.value).startswith("tiny has no separate titles")
    assert str(error.value).endswith("generator=sentences")


TEXT = (
    "The first has five words. No! The second\nhas a break.\n\nA heading without a stop\n\n犬は月に吠える。猫は鳴く。"
)


def test_sentence_is_the_query_and_is_removed_from_the_positive():
    generated = pseudo.Sentences([4, 40], keep=0.0).generate(
        generation_task([TEXT, "One sentence with many words alone."], None, 9)
    )
    assert {candidate.anchor for candidate in generated.candidates} == {
        "The first has five words.",
        "The second has a break.",
        "A heading without a stop",
    }
    for candidate in generated.candidates:
        assert Counter(words(candidate.anchor)) + Counter(words(candidate.positive)) == Counter(words(TEXT))
    assert generated.unusable == Counter(no_sentence=1)


def test_share_of_sentences_stays_in_the_positive():
    texts = [TEXT.replace("first", f"first{number}") for number in range(400)]
    generated = pseudo.Sentences([4, 40], keep=0.25).generate(generation_task(texts, per_document=1))
    n_kept = sum(candidate.positive == texts[candidate.doc] for candidate in generated.candidates)
    assert len(generated.candidates) == 400
    assert 70 < n_kept < 130
    repeated = pseudo.Sentences([4, 40], keep=0.25).generate(generation_task(texts, per_document=1))
    assert repeated.candidates == generated.candidates
    assert (
        pseudo.Sentences([4, 40], 0.25, seed=1).generate(generation_task(texts, per_document=1)).candidates
        != generated.candidates
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"words": [0, 4]}, "generator.words=[0, 4] must be two numbers, minimum and maximum, such as [5,40]"),
        ({"words": [1, 4], "keep": 1.5}, "generator.keep=1.5 must be a share from 0 to 1"),
    ],
)
def test_invalid_sentence_settings_are_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        pseudo.Sentences(**settings)
    assert str(error.value) == message


# ---- questions

DOCUMENT = "The wobbat, a nocturnal marsupial, was first described by J. Gould in 1855; 北京动物园有三只。"


@pytest.mark.parametrize(
    ("content", "finish", "result"),
    [
        ('{"questions": [1]}', "stop", [1]),
        ('{"questions": [1]}', "length", "too_long"),
        ('{"questions": [1]}', "content_filter", "content_filter"),
        ("I cannot.", "refusal", "refusal"),
        ("", "stop", "not_json"),
        ("Here: {}", "stop", "not_json"),
        ("[" * 100_000, "stop", "not_json"),
        ("{}", "stop", "no_questions"),
        ('{"questions": []}', "stop", "no_questions"),
        ('{"questions": "one"}', "stop", "no_questions"),
        ('["one"]', "stop", "no_questions"),
    ],
)
def test_answer_is_parsed_or_counted_by_reason(content, finish, result):
    assert questions.parse_questions(content, finish) == result


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Who discovered the wobbat?", "John Gould", None),
        ("When was it discovered?", 1855, None),
        ("北京有几只", "三只", None),
        ("Who\n found  it?", "by Gould", None),
        ("", "Gould", "empty"),
        ("?!", "Gould", "empty"),
        (None, "Gould", "empty"),
        ("A nocturnal marsupial", "wobbat", "copy"),
        ("So was first described by J. Gould?", "Gould", "copy"),  # 6 of 7 words in a row
        ("Was the wobbat described by J. Gould?", "Gould", None),
        ("Where does it live?", "", "unanswerable"),
        ("Where does it live?", "Unknown.", "unanswerable"),
        ("Where does it live?", "in the Outback", "unanswerable"),
        ("Where does it live?", None, "unanswerable"),
        ("Is it nocturnal?", True, "unanswerable"),
    ],
)
def test_question_is_selected_or_dropped_for_a_reason(question, answer, reason):
    valid, dropped = questions.filter_questions([{"question": question, "answer": answer}], DOCUMENT, 3)
    assert dropped == ({} if reason is None else {reason: 1})
    assert valid == ([" ".join(question.split())] if reason is None else [])


def test_invalid_entries_and_characters_are_tolerated():
    listed = ["text", None, {"question": "Who \ud800 found it?", "answer": "Gould"}, {"question": "More?"}]
    valid, dropped = questions.filter_questions(listed, DOCUMENT, 3)
    assert valid == ["Who ? found it?"]
    assert dropped == {"empty": 2, "surplus": 1}


# ---- journal

SETTINGS = {"model": "m", "prompt": "p" * 90}


def entry(key: str, **more: Any) -> journal.Entry:
    """Return the journal entry of an answered document."""
    return journal.Entry(id=key, text="t", status="answered", content='{"a": "ü"}', tokens_in=5, **more)


def test_journal_is_read_and_its_incomplete_last_line_removed(tmp_path):
    path = tmp_path / "new" / "j.jsonl"
    with journal.open_journal(path, SETTINGS, resume=True) as first:
        first.append(entry("a", tokens_out=2))
        first.append(journal.Entry(id="b", text="t", status="failed", message="HTTP 500", tokens_in=1))
    complete = path.read_bytes()
    path.write_bytes(complete + complete.splitlines()[1][:-9])
    with journal.open_journal(path, SETTINGS, resume=True) as second:
        assert path.read_bytes() == complete
        assert second.answers == {("a", "t"): entry("a", tokens_out=2)}
        assert (second.tokens_in, second.tokens_out) == (6, 2)
        second.append(entry("b"))
    with journal.open_journal(path, SETTINGS, resume=True) as third:
        assert list(third.answers) == [("a", "t"), ("b", "t")]


def test_journal_of_other_settings_is_refused_with_the_differences(tmp_path):
    path = tmp_path / "j.jsonl"
    with journal.open_journal(path, SETTINGS, resume=True) as first:
        first.append(entry("a"))
    with (
        pytest.raises(ConfigError) as error,
        journal.open_journal(path, {"model": "n", "prompt": "q" * 90}, resume=True),
    ):
        pass
    assert str(error.value).startswith(f"{path} has answers to other settings: model 'm', not 'n', prompt 'ppp")
    assert "(92 characters)" in str(error.value)
    with journal.open_journal(path, {"model": "n"}, resume=False) as second:
        assert second.answers == {}
    assert len(list(tmp_path.glob("j.2*.jsonl"))) == 1


@pytest.mark.parametrize(
    ("content", "line"),
    [("", 1), ("{}\n", 1), ("[]\n", 1), ('{"journal": 1}\nnonsense\n', 2), ('{"journal": 1}\n{"id": 3}\n', 2)],
)
def test_file_that_is_not_a_journal_is_named_and_unchanged(content, line, tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text(content)
    with pytest.raises(StoreError) as error, journal.open_journal(path, SETTINGS, resume=True):
        pass
    assert str(error.value).startswith(f"{path}:{line}: not a line of a journal")
    assert str(error.value).endswith("output=FILE")
    assert path.read_text() == content
