"""Queries for documents: samples, titles and sentences, a model's questions read, the journal of its answers."""

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


def test_a_smaller_sample_is_a_part_of_a_larger_one():
    corpus = Corpus(map(str, range(100)), ["text"] * 100)
    small, large = sample_documents(corpus, 10, 7), sample_documents(corpus, 40, 7)
    assert len(small) == 10
    assert set(small) < set(large)
    assert small == sorted(small) != sample_documents(corpus, 10, 8)
    assert sample_documents(corpus, None, 7) == sample_documents(corpus, 100, 7) == list(range(100))


def task(texts: list[str], titles: list[str] | None = None, per_document: int = 3) -> Task:
    corpus = Corpus(map(str, range(len(texts))), texts)
    read = None if titles is None else lambda: StringColumn(titles)
    return Task("mine", corpus, read, list(range(len(texts))), per_document, Path("unused"), True)


def test_a_title_asks_for_the_text_below_it_however_often_it_stands_there():
    texts = ["Cats Cats purr.", "On  dogs On  dogs On  dogs bark.", "No title.", "Only", "The moon orbits."]
    made = pseudo.Titles().generate(task(texts, ["Cats", " On  dogs ", "", "Only", "Elsewhere"]))
    assert [(one.doc, one.anchor, one.positive) for one in made.candidates] == [
        (0, "Cats", "purr."),
        (1, "On dogs", "bark."),
        (4, "Elsewhere", "The moon orbits."),
    ]
    assert made.unusable == Counter(no_title=1, no_text=1)


def test_titles_of_a_source_without_them_are_an_error_that_names_another_generator():
    with pytest.raises(ConfigError) as error:
        pseudo.Titles().generate(task(["a"]))
    assert str(error.value) == ("mine has no separate titles; use sentences as queries: generator=sentences")


TEXT = (
    "The first has five words. No! The second\nhas a break.\n\nA heading without a stop\n\n犬は月に吠える。猫は鳴く。"
)


def test_a_sentence_is_taken_out_of_its_document_and_is_the_query():
    made = pseudo.Sentences([4, 40], keep=0.0).generate(task([TEXT, "One sentence with many words alone."], None, 9))
    assert {one.anchor for one in made.candidates} == {
        "The first has five words.",
        "The second has a break.",
        "A heading without a stop",
    }
    for one in made.candidates:
        assert Counter(words(one.anchor)) + Counter(words(one.positive)) == Counter(words(TEXT))
    assert made.unusable == Counter(no_sentence=1)


def test_some_sentences_stay_as_often_as_it_says():
    texts = [TEXT.replace("first", f"first{number}") for number in range(400)]
    made = pseudo.Sentences([4, 40], keep=0.25).generate(task(texts, per_document=1))
    stayed = sum(one.positive == texts[one.doc] for one in made.candidates)
    assert len(made.candidates) == 400
    assert 70 < stayed < 130
    again = pseudo.Sentences([4, 40], keep=0.25).generate(task(texts, per_document=1))
    assert again.candidates == made.candidates
    assert pseudo.Sentences([4, 40], 0.25, seed=1).generate(task(texts, per_document=1)).candidates != made.candidates


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"words": [0, 4]}, "generator.words=[0, 4] must be two numbers, minimum and maximum, such as [5,40]"),
        ({"words": [1, 4], "keep": 1.5}, "generator.keep=1.5 must be a share from 0 to 1"),
    ],
)
def test_sentences_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ConfigError) as error:
        pseudo.Sentences(**settings)
    assert str(error.value) == said


# ---- questions

DOCUMENT = "The wobbat, a nocturnal marsupial, was first described by J. Gould in 1855; 北京动物园有三只。"


@pytest.mark.parametrize(
    ("content", "finish", "found"),
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
def test_an_answer_lists_questions_or_is_counted_under_a_reason(content, finish, found):
    assert questions.parse_questions(content, finish) == found


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Who found the wobbat?", "John Gould", None),
        ("When was it found?", 1855, None),
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
def test_a_question_is_kept_or_dropped_for_a_reason(question, answer, reason):
    kept, dropped = questions.filter_questions([{"question": question, "answer": answer}], DOCUMENT, 3)
    assert dropped == ({} if reason is None else {reason: 1})
    assert kept == ([" ".join(question.split())] if reason is None else [])


def test_entries_that_are_no_questions_and_halves_of_characters_do_no_harm():
    listed = ["text", None, {"question": "Who \ud800 found it?", "answer": "Gould"}, {"question": "More?"}]
    kept, dropped = questions.filter_questions(listed, DOCUMENT, 3)
    assert kept == ["Who ? found it?"]
    assert dropped == {"empty": 2, "surplus": 1}


# ---- journal

SETTINGS = {"model": "m", "prompt": "p" * 90}


def entry(key: str, **more: Any) -> journal.Entry:
    return journal.Entry(id=key, text="t", status="answered", content='{"a": "ü"}', tokens_in=5, **more)


def test_a_journal_is_read_back_and_its_torn_end_is_cut(tmp_path):
    path = tmp_path / "new" / "j.jsonl"
    with journal.open_journal(path, SETTINGS, resume=True) as first:
        first.append(entry("a", tokens_out=2))
        first.append(journal.Entry(id="b", text="t", status="failed", message="HTTP 500", tokens_in=1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:-9])
    with journal.open_journal(path, SETTINGS, resume=True) as second:
        assert path.read_bytes() == whole
        assert second.answers == {("a", "t"): entry("a", tokens_out=2)}
        assert (second.tokens_in, second.tokens_out) == (6, 2)
        second.append(entry("b"))
    with journal.open_journal(path, SETTINGS, resume=True) as third:
        assert list(third.answers) == [("a", "t"), ("b", "t")]


def test_a_journal_of_other_settings_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "j.jsonl"
    with journal.open_journal(path, SETTINGS, resume=True) as first:
        first.append(entry("a"))
    with (
        pytest.raises(ConfigError) as error,
        journal.open_journal(path, {"model": "n", "prompt": "q" * 90}, resume=True),
    ):
        pass
    said = f"{path} has answers to other settings: model 'm', not 'n', prompt '{'p' * 39}... (92 characters), not "
    assert str(error.value).startswith(said)
    with journal.open_journal(path, {"model": "n"}, resume=False) as second:
        assert second.answers == {}
    assert len(list(tmp_path.glob("j.2*.jsonl"))) == 1


@pytest.mark.parametrize(
    ("content", "line"),
    [("", 1), ("{}\n", 1), ("[]\n", 1), ('{"journal": 1}\nnonsense\n', 2), ('{"journal": 1}\n{"id": 3}\n', 2)],
)
def test_a_file_that_is_no_journal_is_named_and_left(content, line, tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text(content)
    with pytest.raises(StoreError) as error, journal.open_journal(path, SETTINGS, resume=True):
        pass
    assert str(error.value) == (
        f"{path}:{line}: not a line of a journal of answers; fix or remove the line, or write to another file: "
        "output=FILE"
    )
    assert path.read_text() == content
