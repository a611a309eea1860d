"""`harness synthesize` with a language model: a real server on the loopback that misbehaves, and processes killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.api_server import KEY, Provider, error_with_key, http_error, record_waits
from support.chat_server import (
    ANIMALS,
    BROKEN,
    BUSY,
    HANG,
    ChatModel,
    answer_with_key,
    chat_answer,
    corpus_lines,
    document_about,
    serving_chat,
    truncated_json,
    valid_questions,
)

from harness.cli import synthesize
from harness.train import triplets

OUTPUT = Path("made/zoo.parquet")
JOURNAL, MANIFEST = Path("made/zoo.parquet.answers.jsonl"), Path("made/zoo.parquet.manifest.json")


@pytest.fixture
def model() -> ChatModel:
    return ChatModel()


@pytest.fixture
def server(model: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """Behind it the model; the working folder has the animals' documents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    Path("zoo.jsonl").write_text(corpus_lines(ANIMALS))
    with serving_chat(model) as provider:
        yield provider


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which are not waited for."""
    return record_waits(monkeypatch)


def arguments(server: Provider, *more: str) -> list[str]:
    return [
        f"generator.base_url={server.address}/v1",
        "generator.model=m",
        "generator.api_key_env=MY_KEY",
        "generator.timeout_s=1",
        "corpus=zoo.jsonl",
        f"output={OUTPUT}",
        "per_document=2",
        *(more if any("negatives" in one for one in more) else ("negatives=random", "round_trip.k=null", *more)),
    ]


def made(server: Provider, *more: str) -> dict[str, Any]:
    """The manifest, once the command has ended well."""
    assert synthesize.main(arguments(server, *more)) == 0
    manifest: dict[str, Any] = json.loads(MANIFEST.read_text())
    return manifest


def refused(server: Provider, capsys: pytest.CaptureFixture[str], *more: str, code: int = 1) -> str:
    """The error of a command that ends badly."""
    assert synthesize.main(arguments(server, *more)) == code
    return capsys.readouterr().err.splitlines()[-1]


def asking(*fields: str) -> dict[str, Any]:
    """Questions, each with its answer after it."""
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return {"questions": [{"question": question, "answer": answer} for question, answer in pairs]}


def journaled() -> Counter[str]:
    """How often each document is answered in the journal, a last line cut off left out."""
    lines = JOURNAL.read_bytes().split(b"\n")[1:-1] if JOURNAL.exists() else []
    entries = [json.loads(line) for line in lines]
    return Counter(entry["id"] for entry in entries if entry["status"] == "answered")


def test_every_question_names_its_document_and_the_cost_is_what_the_server_counted(server, model, capsys):
    prices = ["generator.input_price_per_million_tokens=2", "generator.output_price_per_million_tokens=8"]
    manifest = made(server, *prices, "negatives=mined", "negatives.margin=null")
    rows = triplets.read(OUTPUT)
    assert sorted(rows.anchors) == sorted(one["question"] for animal in ANIMALS for one in valid_questions(animal))
    texts = {document_about(animal) for animal in ANIMALS}
    for anchor, positive, (negative,) in zip(rows.anchors, rows.positives, rows.negatives, strict=True):
        assert positive == next(document_about(animal) for animal in ANIMALS if animal in anchor)
        assert negative in texts - {positive}
    assert manifest["documents"] == {
        "sampled": 20,
        "requested": 20,
        "from_journal": 0,
        "truncated": 0,
        "failed": {},
        "failures": [],
        "unusable": {},
    }
    assert manifest["queries"] == {"generated": 40, "selected": 40, "dropped": {}}
    tokens_in, tokens_out = model.tokens
    usd = pytest.approx((2 * tokens_in + 8 * tokens_out) / 1e6)
    cost = {"tokens_in": tokens_in, "tokens_out": tokens_out, "usd": usd}
    assert manifest["cost"] == {**cost, "now": cost}
    assert manifest["requests"] == {"requests": 20, "retries": 0}
    assert manifest["triplets"] == {"rows": 40, "fingerprint": rows.fingerprint}
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == [str(OUTPUT), str(MANIFEST)]
    assert re.search(r"^triplets +40$", out, re.MULTILINE)


def test_a_server_that_misbehaves_loses_nothing_and_every_drop_is_counted(server, model, waits, capsys):
    first, copied = ANIMALS[0], f"Kept by Mr {ANIMALS[6][::-1]}"
    model.script = {
        first: [BUSY, BROKEN, HANG],  # well in the end
        ANIMALS[1]: [chat_answer("Sure! Here are your questions:")],
        ANIMALS[2]: [chat_answer({"questions": []})],
        ANIMALS[3]: [chat_answer(None, refusal="I cannot help with that.")],
        ANIMALS[4]: [chat_answer({"questions": valid_questions(ANIMALS[4])}, finish="length")],
        ANIMALS[5]: [chat_answer(asking(" ", "hay", valid_questions(first)[0]["question"], "hay"))],
        ANIMALS[6]: [chat_answer(asking(copied, "hay", "How tall is it?", "unknown"))],
        ANIMALS[7]: [chat_answer({"questions": valid_questions(ANIMALS[7], 3)})],
        ANIMALS[8]: [BROKEN] * 4,
        ANIMALS[9]: [HANG] * 4,
        ANIMALS[10]: [truncated_json, chat_answer({"questions": valid_questions(ANIMALS[10])}, usage=False)],
        ANIMALS[11]: [chat_answer(["no object"])],
        ANIMALS[12]: [chat_answer("", finish="content_filter")],
        ANIMALS[13]: [truncated_json] * 4,
    }
    manifest = made(server, "generator.retries=3", "generator.concurrency=8", "generator.timeout_s=0.6")
    documents, queries = manifest["documents"], manifest["queries"]
    assert documents["failed"] == {"HTTP 500": 1, "no answer": 1, "invalid answer": 1}
    failures = {failure["id"]: failure["message"] for failure in documents["failures"]}
    assert failures.keys() == {ANIMALS[8], ANIMALS[9], ANIMALS[13]}
    assert failures[ANIMALS[8]] == "HTTP 500: oh no"
    assert documents["unusable"] == {"content_filter": 1, "no_questions": 2, "not_json": 1, "refusal": 1, "too_long": 1}
    assert queries["dropped"] == {"copy": 1, "duplicate": 1, "empty": 1, "surplus": 1, "unanswerable": 1}
    assert (queries["generated"], queries["selected"]) == (23, 18)
    assert manifest["requests"] == {"requests": 33, "retries": 13}
    assert sum(model.requests.values()) == 33
    assert len(triplets.read(OUTPUT)) == manifest["triplets"]["rows"] == 18
    assert server.max_in_flight <= 8
    assert "failed: HTTP 500" in capsys.readouterr().out


def test_what_failed_is_asked_again_by_the_same_command_and_nothing_else_is(server, model, waits):
    model.script = {ANIMALS[3]: [BROKEN, BROKEN], ANIMALS[4]: [chat_answer("no JSON")]}
    first = made(server, "generator.retries=1")
    assert first["documents"]["failed"] == {"HTTP 500": 1}
    before = model.requests.copy()
    second = made(server, "generator.retries=1")
    assert model.requests - before == Counter([ANIMALS[3]])
    assert second["documents"]["from_journal"] == 19
    assert second["documents"]["unusable"] == {"not_json": 1}
    assert second["documents"]["failed"] == {}
    assert second["cost"]["tokens_out"] == model.tokens[1]
    assert second["cost"]["now"]["tokens_out"] < first["cost"]["now"]["tokens_out"]


@pytest.mark.parametrize(
    ("answer", "message", "advice"),
    [
        (
            http_error(401, "no such key"),
            "HTTP 401: no such key",
            "check the API key in the environment variable MY_KEY",
        ),
        (http_error(403, "not yours"), "HTTP 403: not yours", "check the API key in the environment variable MY_KEY"),
        (
            http_error(404, "no model"),
            "HTTP 404: no model",
            "check that the server is running, and check generator.base_url and generator.model",
        ),
        (
            http_error(429, "pay first", code="insufficient_quota"),
            "HTTP 429: pay first",
            "repeat the command later to resume; for fewer concurrent requests: generator.concurrency=1",
        ),
    ],
)
def test_what_no_other_document_can_mend_stops_at_once_and_the_answers_are_kept(
    server, model, waits, capsys, answer, message, advice
):
    made(server, "documents=3")
    before = journaled()
    server.default_answer = answer
    assert refused(server, capsys) == f"error: openai 'm' at {server.address}/v1: {message}; {advice}"
    assert journaled() == before
    assert waits == []
    server.default_answer = model
    assert made(server)["documents"]["from_journal"] == 3
    assert max(model.answered.values()) == 1


def test_a_server_that_fails_for_every_document_is_not_asked_for_all_of_them(server, model, waits, capsys):
    server.default_answer = BROKEN
    message = refused(server, capsys, "generator.retries=1", "generator.concurrency=1")
    assert message.startswith(
        f"error: openai 'm' at {server.address}/v1: HTTP 500: oh no (tried 2 times); repeat the command"
    )
    assert len(server.requests) <= 22
    assert not OUTPUT.exists()
    # no answer was paid for: what is set otherwise now is no matter
    server.default_answer = model
    assert made(server, "generator.model=other")["queries"]["selected"] == 40


def test_the_key_is_in_no_file_and_in_nothing_that_is_said(server, model, waits, capsys):
    model.script = {ANIMALS[0]: [answer_with_key], ANIMALS[1]: [error_with_key(500)] * 2}
    made(server, "generator.retries=1", f"generator.extra_body={{user_token: {KEY}}}", "per_document=3")
    server.default_answer = error_with_key(401)
    refused(server, capsys, "generator.retries=1", f"generator.extra_body={{user_token: {KEY}}}", "per_document=3")
    out, err = capsys.readouterr()
    assert KEY not in out + err
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert {OUTPUT, JOURNAL, MANIFEST} <= set(files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert server.keys == {f"Bearer {KEY}"}
    assert server.requests[0]["user_token"] == KEY


def test_a_journal_of_other_settings_says_what_differs_and_is_never_written_over(server, model, capsys):
    made(server)
    paid = JOURNAL.read_bytes()
    assert refused(server, capsys, "generator.temperature=0.1", "per_document=1", code=2) == (
        f"error: {JOURNAL} has answers to other settings: per_document 2, not 1, temperature 0.7, not 0.1; keep them "
        "and write to another file: output=FILE; or move them aside and pay for new ones: resume=false"
    )
    assert JOURNAL.read_bytes() == paid
    made(server, "generator.temperature=0.1", "resume=false")
    (aside,) = Path("made").glob("zoo.parquet.answers.2*.jsonl")
    assert aside.read_bytes() == paid
    assert set(model.answered.values()) == {2}


def test_a_larger_sample_pays_only_for_the_documents_that_are_new(server, model):
    few, more = made(server, "documents=5"), made(server, "documents=12")
    assert (few["documents"]["requested"], more["documents"]["requested"]) == (5, 7)
    assert len(model.answered) == 12
    assert set(model.answered.values()) == {1}


def test_a_document_whose_text_has_changed_is_asked_again(server, model):
    made(server)
    Path("zoo.jsonl").write_text(corpus_lines(ANIMALS).replace("turnips", "carrots", 1))
    assert made(server)["documents"]["requested"] == 1
    assert model.answered[ANIMALS[0]] == 2


def test_the_request_holds_what_is_set_and_nothing_that_is_null(server):
    made(server, "documents=1", "generator.temperature=null", "generator.max_tokens=77", "generator.characters=30")
    (body,) = server.requests
    assert set(body) == {"model", "messages", "response_format", "max_tokens"}
    assert body["max_tokens"] == 77
    (message,) = body["messages"]
    assert message["content"].endswith(f"Document:\n{document_about(body_animal(message))[:30]}")
    assert "Write 2 questions" in message["content"]


def body_animal(message: dict[str, str]) -> str:
    return next(animal for animal in ANIMALS if animal in message["content"])


# ---- processes


@pytest.fixture
def begun(server: Provider, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*more: str) -> subprocess.Popen[str]:
        code = "import sys; from harness.cli.synthesize import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, *arguments(server, *more)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(true: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def test_killed_in_the_middle_and_given_again_no_answer_is_paid_for_twice(server, model, begun):
    model.pause_s = 0.05
    kept = Counter[str]()
    for moment in (5, 8):
        before = sum(model.requests.values())
        process = begun("generator.concurrency=3")
        until(lambda before=before, moment=moment: sum(model.requests.values()) - before >= moment)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        time.sleep(0.2)  # what it had sent has come
        before, kept = kept, journaled()
        assert set(kept.values()) == {1}
        # who asks for another document has kept all answers but those that are on their way
        assert moment - 3 <= (kept - before).total() < len(ANIMALS)
    before = model.requests.copy()
    manifest = made(server, "generator.concurrency=3")
    assert not (model.requests - before).keys() & kept.keys()
    assert manifest["documents"]["from_journal"] == len(kept)
    assert journaled() == Counter(ANIMALS)
    assert model.requests.total() - len(ANIMALS) <= 2 * 3
    assert len(triplets.read(OUTPUT)) == 2 * len(ANIMALS)


def test_a_line_cut_off_by_the_kill_is_taken_away_and_asked_again(server, model):
    made(server)
    whole = triplets.read(OUTPUT).fingerprint
    content = JOURNAL.read_bytes()
    JOURNAL.write_bytes(content[:-20])
    assert made(server)["documents"]["requested"] == 1
    assert journaled() == Counter(ANIMALS)
    assert triplets.read(OUTPUT).fingerprint == whole


def test_after_sigterm_every_answer_that_the_server_gave_is_kept(server, model, begun):
    model.pause_s = 0.05
    process = begun("generator.concurrency=4")
    until(lambda: sum(model.answered.values()) >= 5)
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert err.endswith("interrupted; what was done is kept; repeat the command to continue\n")
    assert journaled() == model.answered
    assert len(model.answered) < len(ANIMALS)


def test_two_processes_pay_for_one_set_of_answers(server, model, begun):
    model.pause_s = 0.02
    processes = [begun(), begun()]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert model.answered == Counter(ANIMALS)
