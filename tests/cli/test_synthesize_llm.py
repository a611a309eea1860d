"""Tests of `harness synthesize` with a language model behind a local server, its failures and killed processes."""

import json
import os
import re
import signal
import subprocess
import sys
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
from support.command_line import wait_until

from harness.cli import synthesize
from harness.train import triplets

OUTPUT = Path("synthetic/zoo.parquet")
JOURNAL, MANIFEST = Path("synthetic/zoo.parquet.answers.jsonl"), Path("synthetic/zoo.parquet.manifest.json")


@pytest.fixture
def model() -> ChatModel:
    return ChatModel()


@pytest.fixture
def server(model: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """Serve the model; the working folder has one document for each animal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    Path("zoo.jsonl").write_text(corpus_lines(ANIMALS))
    with serving_chat(model) as provider:
        yield provider


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits between attempts instead of waiting."""
    return record_waits(monkeypatch)


def arguments(server: Provider, *more: str) -> list[str]:
    """Return the arguments of a synthesis with the server's model, with random negatives unless `more` sets others."""
    return [
        f"generator.base_url={server.address}/v1",
        "generator.model=m",
        "generator.api_key_env=MY_KEY",
        "generator.timeout_s=30",
        "corpus=zoo.jsonl",
        f"output={OUTPUT}",
        "per_document=2",
        *(
            more
            if any("negatives" in argument for argument in more)
            else ("negatives=random", "round_trip.k=null", *more)
        ),
    ]


def synthesize_manifest(server: Provider, *more: str) -> dict[str, Any]:
    """Run a synthesis that succeeds and return its manifest."""
    assert synthesize.main(arguments(server, *more)) == 0
    manifest: dict[str, Any] = json.loads(MANIFEST.read_text())
    return manifest


def synthesis_error(server: Provider, capsys: pytest.CaptureFixture[str], *more: str, exit_code: int = 1) -> str:
    """Run a synthesis that fails and return its error message."""
    assert synthesize.main(arguments(server, *more)) == exit_code
    return capsys.readouterr().err.splitlines()[-1]


def question_list(*fields: str) -> dict[str, Any]:
    """Return a model's answer with these questions; `fields` are question, answer, question, answer, ..."""
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return {"questions": [{"question": question, "answer": answer} for question, answer in pairs]}


def journal_counts() -> Counter[str]:
    """Return the number of answers in the journal by document, without a last line that is cut off."""
    lines = JOURNAL.read_bytes().split(b"\n")[1:-1] if JOURNAL.exists() else []
    entries = [json.loads(line) for line in lines]
    return Counter(entry["id"] for entry in entries if entry["status"] == "answered")


def test_questions_are_paired_with_their_documents_and_tokens_are_counted(server, model, capsys):
    prices = ["generator.input_price_per_million_tokens=2", "generator.output_price_per_million_tokens=8"]
    manifest = synthesize_manifest(server, *prices, "negatives=mined", "negatives.margin=null")
    rows = triplets.read(OUTPUT)
    assert sorted(rows.anchors) == sorted(item["question"] for animal in ANIMALS for item in valid_questions(animal))
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


@pytest.mark.slow
def test_failures_and_dropped_questions_are_counted_by_reason(server, model, waits, capsys):
    first, copied = ANIMALS[0], f"Kept by Mr {ANIMALS[6][::-1]}"
    model.script = {
        first: [BUSY, BROKEN, HANG],  # then a valid answer
        ANIMALS[1]: [chat_answer("Sure! Here are your questions:")],
        ANIMALS[2]: [chat_answer({"questions": []})],
        ANIMALS[3]: [chat_answer(None, refusal="I cannot help with that.")],
        ANIMALS[4]: [chat_answer({"questions": valid_questions(ANIMALS[4])}, finish="length")],
        ANIMALS[5]: [chat_answer(question_list(" ", "hay", valid_questions(first)[0]["question"], "hay"))],
        ANIMALS[6]: [chat_answer(question_list(copied, "hay", "How tall is it?", "unknown"))],
        ANIMALS[7]: [chat_answer({"questions": valid_questions(ANIMALS[7], 3)})],
        ANIMALS[8]: [BROKEN] * 4,
        ANIMALS[9]: [HANG] * 4,
        ANIMALS[10]: [truncated_json, chat_answer({"questions": valid_questions(ANIMALS[10])}, usage=False)],
        ANIMALS[11]: [chat_answer(["no object"])],
        ANIMALS[12]: [chat_answer("", finish="content_filter")],
        ANIMALS[13]: [truncated_json] * 4,
    }
    manifest = synthesize_manifest(server, "generator.retries=3", "generator.concurrency=8", "generator.timeout_s=2")
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


def test_repeated_command_requests_only_the_failed_documents(server, model, waits):
    model.script = {ANIMALS[3]: [BROKEN, BROKEN], ANIMALS[4]: [chat_answer("no JSON")]}
    first = synthesize_manifest(server, "generator.retries=1")
    assert first["documents"]["failed"] == {"HTTP 500": 1}
    before = model.requests.copy()
    second = synthesize_manifest(server, "generator.retries=1")
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
    ids=["HTTP 401", "HTTP 403", "HTTP 404", "HTTP 429"],
)
def test_permanent_error_stops_at_once_and_keeps_the_answers(server, model, waits, capsys, answer, message, advice):
    synthesize_manifest(server, "documents=3")
    before = journal_counts()
    server.default_answer = answer
    error = synthesis_error(server, capsys)
    assert error.startswith(f"error: openai 'm' at {server.address}/v1: {message}")
    assert error.endswith(advice)
    assert journal_counts() == before
    assert waits == []
    server.default_answer = model
    assert synthesize_manifest(server)["documents"]["from_journal"] == 3
    assert max(model.answered.values()) == 1


def test_failing_server_is_given_up_after_a_few_documents(server, model, waits, capsys):
    server.default_answer = BROKEN
    message = synthesis_error(server, capsys, "generator.retries=1", "generator.concurrency=1")
    assert message.startswith(
        f"error: openai 'm' at {server.address}/v1: HTTP 500: oh no (tried 2 times); repeat the command"
    )
    assert len(server.requests) <= 22
    assert not OUTPUT.exists()
    # the journal has no answers, so that other settings are accepted
    server.default_answer = model
    assert synthesize_manifest(server, "generator.model=other")["queries"]["selected"] == 40


def test_api_key_is_in_no_file_and_not_printed(server, model, waits, capsys):
    model.script = {ANIMALS[0]: [answer_with_key], ANIMALS[1]: [error_with_key(500)] * 2}
    synthesize_manifest(server, "generator.retries=1", f"generator.extra_body={{user_token: {KEY}}}", "per_document=3")
    server.default_answer = error_with_key(401)
    synthesis_error(
        server, capsys, "generator.retries=1", f"generator.extra_body={{user_token: {KEY}}}", "per_document=3"
    )
    out, err = capsys.readouterr()
    assert KEY not in out + err
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert {OUTPUT, JOURNAL, MANIFEST} <= set(files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert server.keys == {f"Bearer {KEY}"}
    assert server.requests[0]["user_token"] == KEY


def test_journal_of_other_settings_is_refused_and_not_overwritten(server, model, capsys):
    synthesize_manifest(server)
    paid_answers = JOURNAL.read_bytes()
    error = synthesis_error(server, capsys, "generator.temperature=0.1", "per_document=1", exit_code=2)
    assert error.startswith(f"error: {JOURNAL} has answers to other settings: ")
    for fragment in ("per_document 2, not 1", "temperature 0.7, not 0.1", "output=FILE", "resume=false"):
        assert fragment in error
    assert JOURNAL.read_bytes() == paid_answers
    synthesize_manifest(server, "generator.temperature=0.1", "resume=false")
    (moved,) = Path("synthetic").glob("zoo.parquet.answers.2*.jsonl")
    assert moved.read_bytes() == paid_answers
    assert set(model.answered.values()) == {2}


def test_larger_sample_requests_only_the_new_documents(server, model):
    few, more = synthesize_manifest(server, "documents=5"), synthesize_manifest(server, "documents=12")
    assert (few["documents"]["requested"], more["documents"]["requested"]) == (5, 7)
    assert len(model.answered) == 12
    assert set(model.answered.values()) == {1}


def test_changed_document_is_requested_again(server, model):
    synthesize_manifest(server)
    Path("zoo.jsonl").write_text(corpus_lines(ANIMALS).replace("turnips", "carrots", 1))
    assert synthesize_manifest(server)["documents"]["requested"] == 1
    assert model.answered[ANIMALS[0]] == 2


def test_request_contains_only_the_settings_that_are_not_null(server):
    synthesize_manifest(
        server, "documents=1", "generator.temperature=null", "generator.max_tokens=77", "generator.characters=30"
    )
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
def start_synthesis(server: Provider, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a synthesis in a process of its own."""
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


@pytest.mark.slow
def test_killed_synthesis_requests_no_stored_answer_again(server, model, start_synthesis):
    model.pause_s = 0.05
    stored = Counter[str]()
    for n_requests in (5, 8):
        before = sum(model.requests.values())
        process = start_synthesis("generator.concurrency=3")
        wait_until(lambda before=before, n=n_requests: sum(model.requests.values()) - before >= n)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        wait_until(lambda: server.n_open_connections == 0)  # the last requests of the killed process are read
        earlier, stored = stored, journal_counts()
        assert set(stored.values()) == {1}
        # an answer is stored before the next request, so that at most three (the concurrency) are missing
        assert n_requests - 3 <= (stored - earlier).total() < len(ANIMALS)
    before = model.requests.copy()
    manifest = synthesize_manifest(server, "generator.concurrency=3")
    assert not (model.requests - before).keys() & stored.keys()
    assert manifest["documents"]["from_journal"] == len(stored)
    assert journal_counts() == Counter(ANIMALS)
    assert model.requests.total() - len(ANIMALS) <= 2 * 3
    assert len(triplets.read(OUTPUT)) == 2 * len(ANIMALS)


def test_incomplete_last_line_of_the_journal_is_requested_again(server, model):
    synthesize_manifest(server)
    fingerprint = triplets.read(OUTPUT).fingerprint
    content = JOURNAL.read_bytes()
    JOURNAL.write_bytes(content[:-20])
    assert synthesize_manifest(server)["documents"]["requested"] == 1
    assert journal_counts() == Counter(ANIMALS)
    assert triplets.read(OUTPUT).fingerprint == fingerprint


@pytest.mark.slow
def test_sigterm_keeps_every_answer_of_the_server(server, model, start_synthesis):
    model.pause_s = 0.05
    process = start_synthesis("generator.concurrency=4")
    wait_until(lambda: sum(model.answered.values()) >= 5)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "interrupted" in err
    assert err.endswith("repeat the command to continue\n")
    assert journal_counts() == model.answered
    assert len(model.answered) < len(ANIMALS)


@pytest.mark.slow
def test_two_processes_request_each_answer_once(server, model, start_synthesis):
    model.pause_s = 0.02
    processes = [start_synthesis(), start_synthesis()]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert model.answered == Counter(ANIMALS)
