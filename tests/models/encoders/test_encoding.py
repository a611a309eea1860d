"""Encoding: texts sorted over the corpus, tokenised once, prefetched, split on out-of-memory; backends and devices."""

import logging
import threading
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertModel

from harness import instrument
from harness.embedding_cache import cache
from harness.encoders import model
from harness.encoders.dense import DenseEncoder
from harness.encoders.runtime import batching, mfu, storage
from harness.encoders.runtime.prefetch import Prefetch
from harness.encoders.sparse import SparseEncoder
from harness.errors import ConfigError, RunError
from harness.types import Corpus, StringColumn

CONFIG = BertConfig(
    vocab_size=30522,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
    attn_implementation="eager",
)
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
TEXTS = StringColumn([" ".join(WORDS[(i + j) % 10] for j in range(i % 23)) for i in range(300)])

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """A tiny dense model of random weights, and the same network with a vocabulary head."""
    made = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(models / "all-MiniLM-L6-v2")
    for name, kind in (("bert", BertModel), ("mlm", BertForMaskedLM)):
        kind(CONFIG).save_pretrained(made / name)
        tokenizer.save_pretrained(made / name)
    SentenceTransformer(modules=[Transformer(str(made / "bert")), Pooling(32)]).save(str(made / "dense"))
    return made


def encoder(folder, **settings):
    return DenseEncoder(str(folder / "dense"), **{"device": "cpu", **settings})


@pytest.fixture(scope="module")
def expected(folder):
    peer = SentenceTransformer(str(folder / "dense"), device="cpu")
    return peer.encode(list(TEXTS), normalize_embeddings=True, show_progress_bar=False)


# ------------------------------------------------------------------------------------------------------------ prefetch


def test_items_come_in_order_and_a_few_are_prefetched():
    made = []

    def items():
        for number in range(10):
            made.append(number)
            yield number

    prefetch = Prefetch(items(), depth=3)
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3], "three wait and one is in hand"
    assert list(prefetch) == list(range(10))
    assert list(prefetch) == [], "the end stays the end"


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        raise ValueError("broken")

    prefetch = Prefetch(items())
    assert next(prefetch) == 1
    with pytest.raises(ValueError, match="broken"):
        next(prefetch)


def test_a_closed_one_ends_its_thread():
    before = threading.active_count()
    prefetch = Prefetch(iter(range(1000)), depth=1)
    prefetch.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


# ------------------------------------------------------------------------------------------------------------- batches


def test_texts_are_sorted_over_the_whole_corpus_and_vectors_come_back_in_its_order(folder, expected, monkeypatch):
    monkeypatch.setitem(cache.encoded.__kwdefaults__, "shard", 40)
    seen = []
    shard = DenseEncoder.shard

    def noted(self, texts, *arguments, **named):
        seen.append([len(text) for text in texts])
        return shard(self, texts, *arguments, **named)

    monkeypatch.setattr(DenseEncoder, "shard", noted)
    found = encoder(folder).encode(TEXTS, "document")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert [len(one) for one in seen] == [40] * 7 + [20]
    flat = [length for one in seen for length in one]
    assert flat == sorted(flat, reverse=True)


def test_each_text_is_tokenised_once_and_those_at_the_limit_once_more(folder, monkeypatch):
    own = encoder(folder, max_length=12)
    loaded, made, counted = own._loaded(), [], []
    features, counts = own._features, batching.token_counts
    monkeypatch.setattr(own, "_features", lambda m, texts, side: made.append(len(texts)) or features(m, texts, side))
    monkeypatch.setattr(batching, "token_counts", lambda m, texts: counted.append(len(texts)) or counts(m, texts))
    whole = counts(loaded, list(TEXTS))
    found = list(own._prepare(loaded, list(TEXTS), "document"))
    assert made == [2, 300], "two to see what they look like, then all at once"
    assert sum(counted) == (whole >= 12).sum()
    assert sum(batch.truncated for batch in found) == (whole > 12).sum() > 0
    rows = np.concatenate([batch.rows for batch in found])
    assert sorted(rows.tolist()) == list(range(300))
    for batch in found:
        np.testing.assert_array_equal(batch.lengths, np.minimum(whole[batch.rows], 12))
        alone = features(loaded, [TEXTS[int(row)] for row in batch.rows], "document")
        assert torch.equal(alone["input_ids"], batch.features["input_ids"])
        assert torch.equal(alone["attention_mask"], batch.features["attention_mask"])
        assert batch.padding == alone["attention_mask"].numel() - alone["attention_mask"].sum()


def test_features_that_are_no_rows_are_made_batch_by_batch():
    """As flash attention takes them: texts end to end, without padding."""

    def end_to_end(texts):
        return {"input_ids": torch.zeros((1, sum(map(len, texts)))), "cu_seq_lens_q": torch.zeros(len(texts) + 1)}

    def lengths(texts):
        return np.array([len(text) for text in texts])

    texts = ["a" * n for n in (9, 1, 5, 3, 7)]
    found = list(batching.prepare_batches(texts, end_to_end, lengths, budget=14, limit=8))
    assert [batch.rows.tolist() for batch in found] == [[0], [4, 2], [3, 1]]
    assert [batch.truncated for batch in found] == [1, 0, 0]
    assert all(batch.padding == 0 for batch in found)
    assert sum(batch.features["input_ids"].shape[1] for batch in found) == 25


def test_padding_before_the_tokens_is_not_cut_off():
    """As decoders have it; texts of one length do not show on which side it lies."""

    def left(texts):
        ids = [[0] * (max(map(len, texts)) - len(text)) + list(map(ord, text)) for text in texts]
        return {"input_ids": torch.tensor(ids), "attention_mask": (torch.tensor(ids) > 0).long()}

    def lengths(texts):
        return np.array([len(text) for text in texts])

    texts = ["aaaa", "bbbb", "cc", "d"]
    found = list(batching.prepare_batches(texts, left, lengths, budget=8, limit=None))
    assert sorted(row for batch in found for row in batch.rows.tolist()) == [0, 1, 2, 3]
    for batch in found:
        assert torch.equal(batch.features["input_ids"], left([texts[row] for row in batch.rows])["input_ids"])


def test_a_batch_that_is_out_of_memory_is_split_to_the_same_vectors(folder, expected, monkeypatch):
    sizes, run = [], DenseEncoder._run

    def crowded(self, loaded, features, side):
        sizes.append(len(features["input_ids"]))
        if sizes[-1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, loaded, features, side)

    monkeypatch.setattr(DenseEncoder, "_run", crowded)
    with instrument.recording() as seen:
        found = encoder(folder).encode(TEXTS, "document")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert sum(size > 60 for size in sizes) <= 2, "it remembers what fits"
    assert seen.encoders[""]["max_batch_tokens"] < seen.encoders[""]["batch_tokens"]


def test_one_text_that_is_out_of_memory_is_an_error_that_names_the_settings(folder, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DenseEncoder, "_run", full)
    with pytest.raises(
        RunError, match=r"out of memory on one text of \d+ tokens; .*encoder\.max_length.*encoder\.device=cpu"
    ):
        encoder(folder).encode(TEXTS[:3], "document")


# ----------------------------------------------------------------------------------------------------------------- mfu


def test_operations_are_those_that_torch_counts(folder):
    settings = {"attention": "eager", "optimize_cpu": False}  # torch counts neither fused attention nor oneDNN's layers
    loaded = encoder(folder, **settings)._loaded()
    for n, length in ((3, 20), (2, 50)):
        features = {"input_ids": torch.ones((n, length), dtype=torch.long), "attention_mask": torch.ones((n, length))}
        with FlopCounterMode(display=False) as counter:
            loaded[0].model(**features)
        pooler = 2 * n * 32 * 32  # it sees a text once, and its vector is not used
        ours = mfu.flops(mfu.weights_per_token(loaded), np.full(n, length))
        assert ours == counter.get_total_flops() - pooler


def test_the_record_says_how_much_was_padding_and_how_near_the_machines_product_it_came(folder):
    with instrument.recording() as seen:
        encoder(folder).encode(TEXTS, "document")
    phase = seen.phase()
    tokens = batching.token_counts(encoder(folder)._loaded(), list(TEXTS))
    assert phase.counters[""].tokens == tokens.sum()
    assert phase.padding_share == phase.counters[""].padding / (phase.counters[""].padding + tokens.sum())
    assert 0 < phase.padding_share < 0.3
    assert phase.mfu == phase.counters[""].flops / phase.counters[""].gemm_flops > 0
    with instrument.recording() as again:
        encoder(folder).encode(TEXTS, "document")
    assert again.cached_s > 0
    assert again.phase().mfu == phase.mfu, "kept with the vectors"


def test_measuring_the_gemm_peak_is_not_timed(folder, monkeypatch):
    own = encoder(folder)
    own.load()

    clock, passed = time.perf_counter, [0.0]

    def slow(device, dtype):
        passed[0] += 1000
        return 1e9

    monkeypatch.setattr(mfu, "gemm_peak", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + passed[0])
    with instrument.recording() as seen:
        own.encode(TEXTS, "query")
    assert passed[0] >= 1000
    assert seen.wall_s < 1000
    assert seen.stages["encode"] < 1000
    assert seen.phase().mfu > 0


def test_the_mfu_of_a_few_texts_is_not_measured(folder):
    with instrument.recording() as seen:
        encoder(folder).encode(TEXTS[:5], "query")
    assert seen.phase().counters[""].flops is None
    assert seen.phase().mfu is None


def test_a_cached_time_is_not_that_of_the_other_setting(folder, empty_cache):
    encoder(folder).encode(TEXTS, "document")
    for cached, settings in ((True, {}), (False, {"optimize_cpu": False}), (True, {"optimize_cpu": False})):
        with instrument.recording() as recorder:
            encoder(folder, **settings).encode(TEXTS, "document")
        assert (recorder.cached_s > 0) is cached
    assert len(list(empty_cache.rglob("*.safetensors"))) == 1, "the vectors are the same but for rounding"


# ------------------------------------------------------------------------------------------------------------ backends


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_another_backend_gives_the_same_vectors_under_a_key_of_its_own(folder, expected, empty_cache, backend):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[backend])
    encoder(folder).encode(TEXTS, "document")
    own = encoder(folder, backend=backend)
    found = own.encode(TEXTS, "document")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert len(list(empty_cache.rglob("*.safetensors"))) == 2
    query = own.encode(TEXTS[22:23], "query")
    np.testing.assert_allclose(query.numpy(), expected[22:23], atol=1e-5)


def test_a_compiled_network_gives_the_same_vectors(folder, expected, monkeypatch):
    """What torch.compile makes is torch's own affair and takes minutes: here its cheapest compiler is taken."""
    compile_ = torch.compile
    seen = []

    def eager(function, **settings):
        seen.append(settings)
        return compile_(function, backend="eager", **settings)

    monkeypatch.setattr(torch, "compile", eager)
    found = encoder(folder, backend="compile").encode(TEXTS[:40], "document")
    np.testing.assert_allclose(found.numpy(), expected[:40], atol=1e-5)
    assert seen == [{"dynamic": True}]


def test_a_sparse_encoder_runs_in_another_backend(folder):
    pytest.importorskip("openvino")
    texts = TEXTS[:20]
    plain = SparseEncoder(str(folder / "mlm"), device="cpu").encode(texts, "document")
    other = SparseEncoder(str(folder / "mlm"), device="cpu", backend="openvino").encode(texts, "document")
    np.testing.assert_array_equal(plain.starts, other.starts)
    np.testing.assert_array_equal(plain.terms, other.terms)
    np.testing.assert_allclose(plain.weights, other.weights, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backend": "tensorrt"}, "encoder.backend='tensorrt'; choices: torch, compile, onnx, openvino"),
        ({"attention": "fast"}, "encoder.attention='fast'; choices: auto, eager, sdpa, flash_attention_2"),
        (
            {"backend": "onnx", "dtype": "bfloat16"},
            "encoder.backend='onnx' takes encoder.dtype=float32, not torch.bfloat16",
        ),
        (
            {"device": []},
            "encoder.device=[] names no device; choices: auto, all, cpu, cuda, cuda:1, mps, or a list",
        ),
    ],
)
def test_a_backend_that_cannot_be_is_refused(folder, settings, said):
    with pytest.raises(ConfigError) as error:
        encoder(folder, **settings).load()
    assert str(error.value) == said


def test_attention_that_the_model_or_the_machine_has_not_is_refused(folder):
    if torch.cuda.is_available():
        pytest.skip("this machine may have flash attention")
    with pytest.raises(ConfigError, match=r"^encoder\.attention='flash_attention_2': .*; auto uses what is available$"):
        encoder(folder, attention="flash_attention_2").load()


# ------------------------------------------------------------------------------------------------------------- devices


def test_several_devices_encode_at_once_to_the_same_vectors(folder, expected, monkeypatch, empty_cache):
    monkeypatch.setitem(cache.encoded.__kwdefaults__, "shard", 60)
    monkeypatch.setattr(cache, "SHARD", 60)
    monkeypatch.setattr(cache, "_MIN_TEXTS", 10)
    own = encoder(folder, device=["cpu", "cpu"])
    own.load()
    with instrument.recording() as seen:
        found = own.encode(TEXTS, "document")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    one = encoder(folder)
    with instrument.recording() as alone, cache.using("off"):
        one.encode(TEXTS, "document")
    assert seen.counters[""]["tokens"] == alone.counters[""]["tokens"]
    assert seen.counters[""]["texts"] == 300
    assert len(list(empty_cache.rglob("*.safetensors"))) == 5
    with instrument.recording() as again:
        assert torch.equal(own.encode(TEXTS, "document"), found)
    assert again.cached_s > 0
    processes = own._workers._pool._processes.copy()
    assert len(processes) == 2
    for process in processes.values():
        process.kill()
    with cache.using("off"), pytest.raises(RunError, match="a process that encodes on one of several devices ended"):
        own.encode(TEXTS, "document")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_all_takes_every_gpu(folder, expected):
    own = encoder(folder, device="all", dtype="float32")
    np.testing.assert_allclose(own.encode(TEXTS, "document").cpu().numpy(), expected, atol=1e-4)
    assert len(own._devices) == torch.cuda.device_count()


@pytest.mark.parametrize("device", ["cuda:9", ["cpu", "cuda:9"], "mps"])
def test_a_device_that_is_not_there_is_refused(folder, device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(ConfigError, match=r"^encoder\.device=.*: torch finds .*; choose auto or cpu$"):
        encoder(folder, device=device).load()


def test_all_and_a_list_name_devices(monkeypatch):
    assert model.devices(["cpu", "cpu"]) == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert model.devices("all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert model.devices("auto") == ["cuda"]
    assert model.devices(["cuda:1", "cuda:2"]) == ["cuda:1", "cuda:2"]


# ------------------------------------------------------------------------------------------------------------- storage


def test_vectors_that_memory_would_not_hold_lie_in_a_file_without_a_name(empty_cache, monkeypatch, folder, expected):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    found = encoder(folder, cache=False).encode(TEXTS, "document")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert list(empty_cache.iterdir()) == []
    half = storage.allocate((10, 4), torch.device("cpu"), torch.float16)
    half[:] = 1
    assert half.sum() == 40


def test_nothing_is_warned_of(folder, caplog):
    with caplog.at_level(logging.WARNING, "harness"):
        encoder(folder).encode(TEXTS, "document")
    assert not caplog.records


def test_a_long_text_counts_as_truncated_and_its_tokens_up_to_the_limit(minilm):
    corpus = Corpus(["short", "long"], ["a few words", "word " * 1000])
    with instrument.recording() as seen:
        minilm.index(corpus)
    phase = seen.phase()
    assert phase.counters[""].truncated == 1
    assert phase.truncated_share == 0.5
    assert phase.counters[""].tokens == 5 + 256, "[CLS] a few words [SEP], and the model's 256"
    assert seen.encoders[""]["max_length"] == 256
    assert seen.encoders[""]["dtype"] == "float32"
    assert seen.encoders[""]["batch_tokens"] == 2048
    assert seen.encoders[""]["weights"]["model"].startswith("sentence-transformers/all-MiniLM-L6-v2@")
