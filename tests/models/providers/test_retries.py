"""Tests of harness/providers/retries.py: which failures are retried, how long, and what their errors say."""

import logging
import pickle
import time
from email.utils import formatdate

import pytest
from support.api_server import (
    KEY,
    SDK_MODULES,
    count_tokens,
    error_with_key,
    http_error,
    json_answer,
    nan_value,
    no_answer,
    null_value,
    too_few_dimensions,
    too_few_vectors,
    truncated_body,
    unequal_dimensions,
)
from support.hosted_encoders import (
    KEY_VARIABLES,
    TEXTS,
    URL_PATHS,
    assert_minilm_vectors,
    numbered_texts,
    record_counters,
)

from harness.errors import ApiError
from harness.providers import retries
from harness.types import StringColumn

TRANSIENT_FAILURES = {
    "rate limit": http_error(429, "slow down"),
    "server error": http_error(500),
    "overload": http_error(503),
    "bad gateway in HTML": lambda handler: handler.send(502, b"<html>Bad Gateway</html>"),
    "truncated body": truncated_body,
    "too few vectors": too_few_vectors,
    "unequal dimensions": unequal_dimensions,
    "NaN": nan_value,
    "null": null_value,
    "not an object": json_answer("hello"),
    "other JSON": json_answer({"data": None, "embeddings": None}),
    "invalid JSON": lambda handler: handler.send(200, b'{"data": [{"embed'),
}


@pytest.mark.parametrize("name", TRANSIENT_FAILURES)
def test_a_transient_failure_is_retried(make_encoder, protocol, server, minilm, waits, name):
    server.script = [TRANSIENT_FAILURES[name]]
    encoder = make_encoder(protocol)
    counts, _ = record_counters(lambda: assert_minilm_vectors(encoder.encode(StringColumn(TEXTS), "document"), minilm))
    assert len(server.requests) == 2
    assert server.requests[0] == server.requests[1]
    assert (counts["requests"], counts["retries"]) == (2, 1)
    by_sdk = name in ("rate limit", "server error", "overload", "bad gateway in HTML", "truncated body")
    assert len(waits) == by_sdk, "the harness, not the SDK, retries an invalid answer"


@pytest.mark.slow
def test_a_timeout_is_retried(make_encoder, protocol, server, minilm, waits):
    server.script = [no_answer]
    server.embed(["a"])  # so that the second answer is not late, however busy the machine
    assert_minilm_vectors(make_encoder(protocol, timeout_s=2).encode(StringColumn(["a"]), "document"), minilm, ["a"])
    assert len(server.requests) == 2
    assert len(waits) == 1


def test_tokens_of_an_invalid_answer_are_counted(make_encoder, protocol, server, waits):
    server.script = [too_few_vectors]
    counts, _ = record_counters(lambda: make_encoder(protocol).encode(StringColumn(["one two", "three"]), "document"))
    assert counts["tokens"] == 2 * count_tokens(["one two", "three"])


def test_the_wait_is_that_of_the_retry_after_header(make_encoder, protocol, server, waits, monkeypatch):
    now = time.time()
    monkeypatch.setattr(f"{SDK_MODULES[protocol]}.time.time", lambda: now)
    server.script = [http_error(429, Retry_After="7"), http_error(429, Retry_After=formatdate(now + 30))]
    make_encoder(protocol).encode(StringColumn(["a"]), "document")
    assert waits == [7, pytest.approx(30, abs=1)], "a date in the header has whole seconds"


def test_a_long_retry_after_is_an_error_with_openai_and_capped_with_cohere(make_encoder, server, waits):
    server.script = [http_error(429, "come back later", Retry_After="3600")] * 2
    with pytest.raises(ApiError, match=r"HTTP 429: come back later; repeat the command later"):
        make_encoder("openai").encode(StringColumn(["a"]), "document")
    assert waits == []
    make_encoder("cohere").encode(StringColumn(["a"]), "document")
    assert waits == [60]


def test_backoff_grows_until_the_last_retry(make_encoder, protocol, server, waits):
    server.default_answer = http_error(500, "out of order")
    with pytest.raises(ApiError) as error:
        make_encoder(protocol, retries=8).encode(StringColumn(["a"]), "document")
    message = str(error.value)
    assert f"{protocol} 'minilm' at {server.address}{URL_PATHS[protocol]}: HTTP 500: out of order" in message
    assert "tried 9 times" in message
    assert "repeat the command later to resume" in message
    assert message.endswith("retriever.encoder.concurrency=1")
    assert len(server.requests) == 9
    assert len(waits) == 8
    assert waits[0] < waits[2] < waits[4] <= 60


def test_retries_0_raises_at_the_first_failure(make_encoder, protocol, server, waits):
    for answer in (http_error(503), too_few_vectors):
        server.script = [answer]
        with pytest.raises(ApiError):
            make_encoder(protocol, retries=0).encode(StringColumn(["a"]), "document")
    assert len(server.requests) == 2
    assert waits == []


def test_each_retry_is_logged_with_its_reason(make_encoder, protocol, server, waits, caplog):
    server.script = [http_error(429, "slow down", Retry_After="7"), too_few_vectors]
    make_encoder(protocol).encode(StringColumn(["a"]), "document")
    first, second = (record.getMessage() for record in caplog.records if record.name == retries.__name__)
    assert all(f"'minilm' at {server.address}{URL_PATHS[protocol]}" in message for message in (first, second))
    assert "HTTP 429" in first
    assert first.endswith("retry 1")
    assert "0 vectors for 1 texts" in second
    assert second.endswith("retry 2")


# ---- Errors that are not retried, or that remain after the retries

ADVICE = {
    400: "check retriever.encoder.model, .dimensions and, for texts that are too long, .max_tokens and .batch_tokens",
    401: "check the API key in the environment variable {variable}",
    403: "check the API key in the environment variable {variable}",
    404: "check that the server is running, and check retriever.encoder.base_url and retriever.encoder.model",
    422: "check retriever.encoder.model, .dimensions and, for texts that are too long, .max_tokens and .batch_tokens",
}


@pytest.mark.parametrize("status", ADVICE)
def test_a_client_error_is_raised_at_once_with_server_reason_and_advice(make_encoder, protocol, server, waits, status):
    server.default_answer = http_error(status, "that will not do")
    with pytest.raises(ApiError) as error:
        make_encoder(protocol).encode(StringColumn(["a"]), "document")
    advice = ADVICE[status].format(variable=KEY_VARIABLES[protocol])
    message = str(error.value)
    assert f"{protocol} 'minilm' at {server.address}{URL_PATHS[protocol]}: HTTP {status}: that will not do" in message
    assert message.endswith(advice)
    assert len(server.requests) == 1
    assert waits == []


def test_an_error_can_be_pickled(make_encoder, server, waits):
    server.default_answer = http_error(401, "no such key")
    with pytest.raises(ApiError) as error:
        make_encoder("openai").encode(StringColumn(["a"]), "document")
    copy = pickle.loads(pickle.dumps(error.value))
    assert isinstance(copy, ApiError)
    assert str(copy) == str(error.value)


def test_an_exhausted_quota_is_not_retried(make_encoder, server, waits):
    server.default_answer = http_error(429, "You exceeded your current quota.", code="insufficient_quota")
    with pytest.raises(ApiError, match="HTTP 429: You exceeded your current quota"):
        make_encoder("openai").encode(StringColumn(["a"]), "document")
    assert len(server.requests) == 1
    assert waits == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (too_few_vectors, "1 vectors for 2 texts"),
        (unequal_dimensions, "vectors of 383 and 384 dimensions"),
        (nan_value, "a vector with a value that is not finite"),
        (null_value, "a vector with a value that is not finite"),
        (json_answer({"data": 5, "embeddings": {"float": 5}}), "unexpected structure"),
        (json_answer({"data": [], "embeddings": {"float": []}}), "0 vectors for 2 texts"),
        (too_few_dimensions, "vectors of 383 dimensions, not 384"),
    ],
)
def test_an_invalid_answer_is_an_error_after_three_retries(make_encoder, protocol, server, waits, answer, message):
    server.default_answer = answer
    with pytest.raises(ApiError) as error:
        make_encoder(protocol, dimensions=384).encode(StringColumn(["a", "b"]), "document")
    assert f": invalid answer: {message}" in str(error.value)
    assert " (tried 4 times); check retriever.encoder.base_url" in str(error.value)
    assert len(server.requests) == 4


def test_a_repeated_index_is_an_error(make_encoder, server, waits):
    vector = [0.0] * 384
    data = [{"object": "embedding", "index": 0, "embedding": vector} for _ in range(2)]
    server.default_answer = json_answer({"object": "list", "data": data, "model": "minilm"})
    with pytest.raises(ApiError, match="vectors whose index does not count from 0 on"):
        make_encoder("openai").encode(StringColumn(["a", "b"]), "document")


def test_a_changed_number_of_dimensions_is_retried_and_then_an_error(make_encoder, protocol, server, waits, minilm):
    encoder = make_encoder(protocol)
    encoder.encode(StringColumn(["a"]), "document")
    server.script = [too_few_dimensions]
    assert_minilm_vectors(encoder.encode(StringColumn(["b"]), "query"), minilm, ["b"])
    server.default_answer = too_few_dimensions
    with pytest.raises(ApiError, match="vectors of 383 dimensions, not 384"):
        encoder.encode(StringColumn(["c"]), "query")


def test_a_server_that_does_not_run_is_named_with_advice(make_encoder, protocol, server, waits):
    server.close()
    with pytest.raises(ApiError) as error:
        make_encoder(protocol, retries=2).encode(StringColumn(["a"]), "document")
    message = str(error.value)
    assert f"{protocol} 'minilm' at {server.address}{URL_PATHS[protocol]}: no answer: ConnectError: " in message
    assert "tried 3 times" in message
    assert message.endswith(ADVICE[404])
    assert len(waits) == 2


def test_an_html_error_page_is_shortened(make_encoder, protocol, server):
    server.default_answer = lambda handler: handler.send(404, b"<html>" + b"nothing here " * 1000)
    with pytest.raises(ApiError) as error:
        make_encoder(protocol).encode(StringColumn(["a"]), "document")
    assert "HTTP 404: <html>nothing here nothing" in str(error.value)
    assert len(str(error.value)) < 600


# ---- API keys in messages


@pytest.mark.parametrize("status", [400, 401, 429])
def test_a_key_that_the_server_repeats_is_in_no_error_log_or_cache(
    make_encoder, protocol, server, waits, caplog, empty_cache, small_shards, status
):
    caplog.set_level(logging.DEBUG)
    server.script = [error_with_key(500)]
    encoder = make_encoder(protocol)
    encoder.encode(StringColumn(numbered_texts(8)), "document")
    server.default_answer = error_with_key(status)
    with pytest.raises(ApiError) as error:
        encoder.encode(StringColumn(["other"]), "document")
    assert "Incorrect API key provided: ***. Bearer ***" in str(error.value)
    assert error.value.__context__ is None
    assert KEY not in str(error.value) + repr(error.value) + repr(encoder)
    assert KEY not in caplog.text
    assert [record for record in caplog.records if KEY in str(vars(record))] == []
    files = [path for path in empty_cache.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(KEY.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("wrong: sk-proj-ab12****wxyz.", "wrong: ***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        (f"key {'a1B2' * 10}!", "key ***!"),
        ("request 5a1e3c9e-1b7a-4b6e-9d59-1d2f0c3b4a5d failed", "request 5a1e3c9e-1b7a-4b6e-9d59-1d2f0c3b4a5d failed"),
        ("my secret word", "my *** word"),
    ],
)
def test_keys_are_masked_and_other_text_is_not(text, masked):
    assert retries.mask_key(text, "secret") == masked
