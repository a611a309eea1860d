"""Tests of harness/providers/hosted.py: requests, concurrency and caching of encoders behind an API."""

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from safetensors import safe_open
from support.api_server import (
    KEY,
    answer_together,
    count_tokens,
    http_error,
    no_answer,
    too_few_dimensions,
    valid_answer,
    without_usage,
)
from support.datasets import write_beir
from support.hosted_encoders import TEXTS, assert_minilm_vectors, numbered_texts, record_counters

from harness import instrument, versions
from harness.datasets import folder
from harness.embedding_cache import cache
from harness.errors import ApiError
from harness.evaluation.timing import TimingPlan, measure
from harness.providers import batching, hosted
from harness.retrievers.dense import Dense
from harness.types import Corpus, Queries, StringColumn


@pytest.mark.parametrize("side", ["query", "document"])
def test_vectors_are_the_servers_in_the_order_of_the_texts(make_encoder, protocol, side, minilm, server):
    assert_minilm_vectors(make_encoder(protocol, batch_texts=2).encode(StringColumn(TEXTS), side), minilm)
    assert len(server.requests) == 3
    assert server.paths == {{"openai": "/v1/embeddings", "cohere": "/v2/embed"}[protocol]}
    assert server.keys == {f"Bearer {KEY}"}


def test_prompts_are_prepended_to_queries_and_documents(make_encoder, protocol, server):
    encoder = make_encoder(protocol, query_prompt="ask: ", document_prompt="say: ")
    encoder.encode(StringColumn(["cats", ""]), "query")
    encoder.encode(StringColumn(["cats", ""]), "document")
    assert server.texts == ["ask: cats", "ask: ", "say: cats", "say: "]


def test_an_empty_text_is_sent_as_a_space(make_encoder, protocol, server, minilm):
    assert_minilm_vectors(make_encoder(protocol).encode(StringColumn(["", "a"]), "document"), minilm, ["", "a"])
    assert server.texts == [" ", "a"]


def test_no_texts_send_no_request(make_encoder, protocol, server):
    encoder = make_encoder(protocol)
    assert encoder.encode(StringColumn([]), "query").shape == (0, 0)
    encoder.encode(StringColumn(["a"]), "document")
    assert encoder.encode(StringColumn([]), "query").shape == (0, 384)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("normalize", "length"), [(True, 1.0), (False, 3.0)])
def test_vectors_are_normalised_only_if_normalize_is_set(make_encoder, protocol, server, normalize, length):
    inner = server.embed
    server.embed = lambda texts: [[3 * value for value in vector] for vector in inner(texts)]
    embeddings = make_encoder(protocol, normalize=normalize).encode(StringColumn(["a", "b"]), "document")
    np.testing.assert_allclose(embeddings.norm(dim=1).numpy(), length, rtol=1e-5)


def test_a_request_exceeds_neither_batch_texts_nor_batch_tokens(make_encoder, protocol, server, minilm):
    texts = [*numbered_texts(20), "long " * 400]
    assert_minilm_vectors(
        make_encoder(protocol, batch_texts=8, batch_tokens=60).encode(StringColumn(texts), "query"), minilm, texts
    )
    batches = [body.get("input") or body["texts"] for body in server.requests]
    sizes = [(len(batch), sum(map(batching.estimate_tokens, batch))) for batch in batches]
    assert sorted(server.texts) == sorted(texts)
    assert all(n == 1 or (n <= 8 and tokens <= 60) for n, tokens in sizes)
    assert max(n for n, _ in sizes) > 1


def test_long_texts_are_truncated_for_openai_and_sent_whole_to_cohere(make_encoder, server):
    texts = StringColumn(["short", "long " * 100])
    counts, _ = record_counters(lambda: make_encoder("openai", max_tokens=10).encode(texts, "document"))
    assert counts["truncated"] == 1
    assert server.requests.pop()["input"] == ["short", ("long " * 100)[:29]]
    counts, _ = record_counters(lambda: make_encoder("cohere", max_tokens=10).encode(texts, "document"))
    assert "truncated" not in counts
    assert server.requests.pop()["texts"] == list(texts)


def test_tokens_are_estimated_if_the_answer_has_no_usage(make_encoder, protocol, server):
    server.default_answer = without_usage
    texts = ["one two three", "four"]
    counts, _ = record_counters(lambda: make_encoder(protocol).encode(StringColumn(texts), "document"))
    assert counts["tokens"] == sum(map(batching.estimate_tokens, texts)) == 7
    assert "micro_usd" not in counts, "without a price there is no cost"


def test_the_cost_is_rounded_once_for_all_requests(make_encoder, protocol, server, monkeypatch):
    monkeypatch.setattr(hosted, "_MIN_BATCH", 1)
    encoder = make_encoder(protocol, batch_texts=1, price_per_million_tokens=0.02)
    counts, _ = record_counters(lambda: encoder.encode(StringColumn(numbered_texts(50)), "query"))
    assert counts["requests"] == 50
    assert counts["micro_usd"] == round(0.02 * counts["tokens"]) > 0


def test_progress_counts_every_text(make_encoder, protocol, server, small_shards):
    events = []

    class Listener:
        def begin(self, name, total):
            events.append((name, total))
            return lambda n: events.append(n) if name == "encode" else None

        def end(self, name, wall_s):
            pass

    with instrument.listening(Listener()):
        make_encoder(protocol).encode(StringColumn(numbered_texts(10)), "document")
    assert ("encode", 10) in events
    assert sum(step for step in events if isinstance(step, int)) == 10


# ---- Concurrent requests


def test_concurrency_is_the_number_of_requests_in_flight(make_encoder, protocol, server, minilm, monkeypatch):
    monkeypatch.setattr(hosted, "_MIN_BATCH", 1)
    server.default_answer = answer_together(3)
    texts = numbered_texts(24)
    assert_minilm_vectors(
        make_encoder(protocol, batch_texts=2, concurrency=3).encode(StringColumn(texts), "document"), minilm, texts
    )
    assert len(server.requests) == 12
    assert server.max_in_flight == 3


def test_few_texts_are_spread_over_concurrent_requests(make_encoder, server, monkeypatch):
    make_encoder("openai", concurrency=3).encode(StringColumn(numbered_texts(60)), "query")
    assert sorted(len(body["input"]) for body in server.requests) == [20, 20, 20]
    server.requests.clear()
    make_encoder("openai", concurrency=3).encode(StringColumn(numbered_texts(20)), "query")
    assert sorted(len(body["input"]) for body in server.requests) == [4, 16], (
        "a request has at least 16 texts where there are as many"
    )


@pytest.mark.slow
def test_a_permanent_error_cancels_the_other_requests(make_encoder, protocol, server):
    server.script, server.default_answer = [http_error(400)], no_answer
    encoder = make_encoder(protocol, batch_texts=1, concurrency=2, timeout_s=2, retries=1000)
    with pytest.raises(ApiError, match="HTTP 400"):
        encoder.encode(StringColumn(numbered_texts(64)), "document")
    assert [thread for thread in threading.enumerate() if thread.name.startswith(protocol)] == []
    assert len(server.requests) < 10


# ---- The embedding cache


def test_a_failed_run_resumes_at_the_first_shard_that_is_not_stored(
    make_encoder, protocol, server, minilm, small_shards
):
    texts = numbered_texts(20)
    server.script = [valid_answer, valid_answer, http_error(400, "killed")]
    encoder = make_encoder(protocol, concurrency=1)
    with pytest.raises(ApiError, match="killed"):
        encoder.encode(StringColumn(texts), "document")
    assert server.texts == texts[:12]
    server.requests.clear()
    assert_minilm_vectors(make_encoder(protocol, concurrency=1).encode(StringColumn(texts), "document"), minilm, texts)
    assert server.texts == texts[8:], "two shards of four texts were stored"


ENCODE_IN_SHARDS = """
import sys
from harness.embedding_cache import cache
from harness.providers import api, hosted
from harness.types import StringColumn
hosted._SHARD, hosted._MIN_BATCH, cache._MIN_TEXTS = 4, 1, 2
encoder = api.OpenAIEncoder("minilm", base_url=sys.argv[1], timeout_s=20)
encoder.encode(StringColumn([f"text number {number} of many" for number in range(20)]), "document")
"""


@pytest.mark.slow
def test_texts_that_a_killed_process_encoded_are_not_sent_again(make_encoder, server, minilm, small_shards):
    server.script, server.default_answer = [valid_answer] * 8, no_answer
    process = subprocess.Popen([sys.executable, "-c", ENCODE_IN_SHARDS, f"{server.address}/v1"])
    while len(server.requests) <= 8 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert sorted(server.texts[:8]) == numbered_texts(20)[:8]
    server.requests.clear()
    server.default_answer = valid_answer
    assert_minilm_vectors(
        make_encoder("openai", concurrency=1).encode(StringColumn(numbered_texts(20)), "document"),
        minilm,
        numbered_texts(20),
    )
    assert server.texts == numbered_texts(20)[8:]


def test_cached_vectors_send_no_request_and_keep_their_counters(make_encoder, protocol, server, small_shards):
    texts = StringColumn(numbered_texts(10))
    encoder = make_encoder(protocol, price_per_million_tokens=100)
    first, metadata = record_counters(lambda: encoder.encode(texts, "document"))
    before = len(server.requests)
    again, _ = record_counters(lambda: make_encoder(protocol, price_per_million_tokens=100).encode(texts, "document"))
    assert len(server.requests) == before
    assert first == again
    assert first["texts"] == 10
    assert first["tokens"] == count_tokens(list(texts))
    assert first["micro_usd"] == 100 * first["tokens"]
    assert metadata["price_per_million_tokens"] == 100
    assert metadata["dimensions"] == 384


def test_queries_are_not_cached(make_encoder, protocol, server, small_shards, empty_cache):
    for _ in range(2):
        make_encoder(protocol).encode(StringColumn(numbered_texts(8)), "query")
    assert len(server.texts) == 16
    assert not list(empty_cache.rglob("*.safetensors"))


def test_cache_false_stores_nothing(make_encoder, protocol, server, small_shards, empty_cache):
    make_encoder(protocol, cache=False).encode(StringColumn(numbered_texts(8)), "document")
    assert not list(empty_cache.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"dimensions": 384},
        {"document_prompt": "say: "},
        {"max_tokens": 5},
        {"extra_body": {"truncate_prompt_tokens": -1}},
        {"base_url": "/other"},
    ],
)
def test_a_changed_setting_misses_the_cache(make_encoder, server, small_shards, change):
    make_encoder("openai").encode(StringColumn(numbered_texts(4)), "document")
    before = len(server.requests)
    if "base_url" in change:  # the same server by another name
        change = {"base_url": server.address.replace("127.0.0.1", "localhost") + "/v1"}
    make_encoder("openai", **change).encode(StringColumn(numbered_texts(4)), "document")
    assert len(server.requests) > before


def test_a_trailing_slash_or_capitals_in_the_url_hit_the_cache(make_encoder, server, small_shards):
    make_encoder("openai").encode(StringColumn(numbered_texts(4)), "document")
    before = len(server.requests)
    url = f"{server.address.replace('http', 'HTTP')}/v1/"
    make_encoder("openai", base_url=url).encode(StringColumn(numbered_texts(4)), "document")
    assert len(server.requests) == before


def test_normalisation_key_and_price_hit_the_cache(make_encoder, server, small_shards):
    texts = StringColumn(numbered_texts(4))
    make_encoder("openai").encode(texts, "document")
    before = len(server.requests)
    encoder = make_encoder("openai", normalize=False, api_key_env="ANOTHER", price_per_million_tokens=1, concurrency=2)
    encoder.encode(texts, "document")
    assert len(server.requests) == before


def test_cached_vectors_of_other_dimensions_are_an_error(make_encoder, protocol, server, small_shards):
    make_encoder(protocol).encode(StringColumn(numbered_texts(4)), "document")
    encoder = make_encoder(protocol)
    server.default_answer = too_few_dimensions
    encoder.encode(StringColumn(["a"]), "query")
    with pytest.raises(ApiError, match=r"the cache holds vectors of 384 dimensions, not 383.*resume=false"):
        encoder.encode(StringColumn(numbered_texts(4)), "document")


def test_a_shard_holds_the_identity_of_its_vectors(make_encoder, server, small_shards, empty_cache):
    make_encoder("cohere").encode(StringColumn(numbered_texts(4)), "document")
    (path,) = empty_cache.rglob("*.safetensors")
    with safe_open(path, framework="numpy") as file:
        identity = json.loads(file.metadata()["identity"])
    assert identity.pop("libraries") == cache._libraries()
    assert identity == {
        "encoder": "cohere",
        "embeddings": ["cohere", versions.EMBEDDINGS["cohere"]],
        "base_url": server.address,
        "model": "minilm",
        "dimensions": None,
        "prompt": "",
        "max_tokens": None,
        "side": "document",
    }


# ---- Whole evaluations


def test_an_evaluation_ranks_as_the_model_behind_the_server(make_encoder, protocol, server, minilm, tmp_path):
    dataset = folder.read(write_beir(tmp_path), "tiny", "test")
    plan = TimingPlan(warmup_documents=2, repeats=2, latency_queries=2)
    retriever = Dense(make_encoder(protocol, batch_texts=2))
    by_api, local = (measure(each, dataset, k=10, metrics=["ndcg@10"], plan=plan) for each in (retriever, minilm))
    np.testing.assert_array_equal(by_api.run.docs, local.run.docs)
    np.testing.assert_allclose(by_api.run.scores, local.run.scores, atol=1e-6)
    assert by_api.means == local.means
    assert by_api.timing.index.counters[""].texts == 4
    assert by_api.timing.index.counters[""].tokens == count_tokens(list(dataset.corpus.texts))
    assert by_api.timing.tokens_per_s > 0
    assert by_api.description.encoders[""].model == "minilm"


def test_queries_rank_alone_as_in_a_batch(make_encoder, protocol, server):
    retriever = Dense(make_encoder(protocol))
    retriever.index(Corpus(["a", "b", "c"], ["cats purr", "", "dogs bark"]))
    queries = Queries(["q1", "q2"], ["a cat", ""])
    batch = retriever.search(queries, 3)
    for row in range(2):
        assert batch.hits(row)[0] == retriever.search(queries[row : row + 1], 3).hits(0)[0]
