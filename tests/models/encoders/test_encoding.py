"""Tests of encoding: prefetch, batches, splitting on out-of-memory, MFU, backends, devices and storage."""

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
from support.command_line import wait_until
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
    """Return a folder with a tiny dense model of random weights, and the same network with a vocabulary head."""
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(models / "all-MiniLM-L6-v2")
    for name, kind in (("bert", BertModel), ("mlm", BertForMaskedLM)):
        kind(CONFIG).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    SentenceTransformer(modules=[Transformer(str(root / "bert")), Pooling(32)]).save(str(root / "dense"))
    return root


def make_encoder(folder, **settings):
    return DenseEncoder(str(folder / "dense"), **{"device": "cpu", **settings})


@pytest.fixture(scope="module")
def expected(folder):
    peer = SentenceTransformer(str(folder / "dense"), device="cpu")
    return peer.encode(list(TEXTS), normalize_embeddings=True, show_progress_bar=False)


# ------------------------------------------------------------------------------------------------------------ prefetch


def test_prefetch_keeps_the_order_and_prepares_depth_items():
    produced = []

    def items():
        for number in range(10):
            produced.append(number)
            yield number

    prefetch = Prefetch(items(), depth=3)
    wait_until(lambda: len(produced) == 4)
    time.sleep(0.05)  # time enough to produce a fifth, if the queue were longer
    assert produced == [0, 1, 2, 3], "three are in the queue and one waits to be put there"
    assert list(prefetch) == list(range(10))
    assert list(prefetch) == [], "an exhausted iterator stays exhausted"


def test_prefetch_raises_an_error_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    prefetch = Prefetch(items())
    assert next(prefetch) == 1
    with pytest.raises(ValueError, match="broken"):
        next(prefetch)


def test_closing_a_prefetch_ends_its_thread():
    before = set(threading.enumerate())
    prefetch = Prefetch(iter(range(1000)), depth=1)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "prefetch" and thread not in before]
    prefetch.close()
    thread.join(timeout=60)
    assert not thread.is_alive()


# ------------------------------------------------------------------------------------------------------------- batches


def test_texts_are_sorted_over_the_corpus_and_vectors_keep_its_order(folder, expected, monkeypatch):
    monkeypatch.setitem(cache.encoded.__kwdefaults__, "shard", 40)
    shard_lengths = []
    shard = DenseEncoder.shard

    def recorded(self, texts, *arguments, **named):
        shard_lengths.append([len(text) for text in texts])
        return shard(self, texts, *arguments, **named)

    monkeypatch.setattr(DenseEncoder, "shard", recorded)
    vectors = make_encoder(folder).encode(TEXTS, "document")
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)
    assert [len(lengths) for lengths in shard_lengths] == [40] * 7 + [20]
    lengths = np.concatenate(shard_lengths).tolist()
    assert lengths == sorted(lengths, reverse=True)


def test_each_text_is_tokenised_once_and_texts_at_the_limit_a_second_time(folder, monkeypatch):
    encoder = make_encoder(folder, max_length=12)
    loaded, tokenised, counted = encoder._loaded(), [], []
    features, counts = encoder._features, batching.token_counts
    monkeypatch.setattr(
        encoder, "_features", lambda m, texts, side: tokenised.append(len(texts)) or features(m, texts, side)
    )
    monkeypatch.setattr(batching, "token_counts", lambda m, texts: counted.append(len(texts)) or counts(m, texts))
    full_lengths = counts(loaded, list(TEXTS))
    batches = list(encoder._prepare(loaded, list(TEXTS), "document"))
    assert tokenised == [2, 300], "two to see which features there are, then all at once"
    assert sum(counted) == (full_lengths >= 12).sum()
    assert sum(batch.truncated for batch in batches) == (full_lengths > 12).sum() > 0
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(300))
    for batch in batches:
        np.testing.assert_array_equal(batch.lengths, np.minimum(full_lengths[batch.rows], 12))
        alone = features(loaded, [TEXTS[int(row)] for row in batch.rows], "document")
        assert torch.equal(alone["input_ids"], batch.features["input_ids"])
        assert torch.equal(alone["attention_mask"], batch.features["attention_mask"])
        assert batch.padding == alone["attention_mask"].numel() - alone["attention_mask"].sum()


def test_features_without_rows_are_tokenised_per_batch():
    """Flash attention takes the texts end to end, without padding."""

    def end_to_end(texts):
        return {"input_ids": torch.zeros((1, sum(map(len, texts)))), "cu_seq_lens_q": torch.zeros(len(texts) + 1)}

    def lengths(texts):
        return np.array([len(text) for text in texts])

    texts = ["a" * n for n in (9, 1, 5, 3, 7)]
    prepared = list(batching.prepare_batches(texts, end_to_end, lengths, budget=14, limit=8))
    assert [batch.rows.tolist() for batch in prepared] == [[0], [4, 2], [3, 1]]
    assert [batch.truncated for batch in prepared] == [1, 0, 0]
    assert all(batch.padding == 0 for batch in prepared)
    assert sum(batch.features["input_ids"].shape[1] for batch in prepared) == 25


def test_left_padding_is_preserved_in_batches():
    """Decoders pad on the left; texts of equal length do not show on which side the padding is."""

    def left_padded(texts):
        ids = [[0] * (max(map(len, texts)) - len(text)) + list(map(ord, text)) for text in texts]
        return {"input_ids": torch.tensor(ids), "attention_mask": (torch.tensor(ids) > 0).long()}

    def lengths(texts):
        return np.array([len(text) for text in texts])

    texts = ["aaaa", "bbbb", "cc", "d"]
    prepared = list(batching.prepare_batches(texts, left_padded, lengths, budget=8, limit=None))
    assert sorted(row for batch in prepared for row in batch.rows.tolist()) == [0, 1, 2, 3]
    for batch in prepared:
        assert torch.equal(batch.features["input_ids"], left_padded([texts[row] for row in batch.rows])["input_ids"])


def test_a_batch_that_runs_out_of_memory_is_split_and_vectors_stay_the_same(folder, expected, monkeypatch):
    sizes, run = [], DenseEncoder._run

    def run_up_to_60(self, loaded, features, side):
        sizes.append(len(features["input_ids"]))
        if sizes[-1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, loaded, features, side)

    monkeypatch.setattr(DenseEncoder, "_run", run_up_to_60)
    with instrument.recording() as recorder:
        vectors = make_encoder(folder).encode(TEXTS, "document")
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)
    assert sum(size > 60 for size in sizes) <= 2, "the encoder remembers the size that fits"
    assert recorder.encoders[""]["max_batch_tokens"] < recorder.encoders[""]["batch_tokens"]


def test_running_out_of_memory_on_one_text_is_an_error_that_names_the_settings(folder, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DenseEncoder, "_run", out_of_memory)
    with pytest.raises(
        RunError, match=r"out of memory on one text of \d+ tokens; .*encoder\.max_length.*encoder\.device=cpu"
    ):
        make_encoder(folder).encode(TEXTS[:3], "document")


# ----------------------------------------------------------------------------------------------------------------- mfu


def test_flops_equal_those_that_torch_counts(folder):
    settings = {"attention": "eager", "optimize_cpu": False}  # torch counts neither fused attention nor oneDNN's layers
    loaded = make_encoder(folder, **settings)._loaded()
    for n, length in ((3, 20), (2, 50)):
        features = {"input_ids": torch.ones((n, length), dtype=torch.long), "attention_mask": torch.ones((n, length))}
        with FlopCounterMode(display=False) as counter:
            loaded[0].model(**features)
        pooler_flops = 2 * n * 32 * 32  # it runs once per text, and its output is not used
        flops = mfu.flops(mfu.weights_per_token(loaded), np.full(n, length))
        assert flops == counter.get_total_flops() - pooler_flops


def test_padding_share_and_mfu_are_recorded_and_cached(folder):
    with instrument.recording() as recorder:
        make_encoder(folder).encode(TEXTS, "document")
    phase = recorder.phase()
    tokens = batching.token_counts(make_encoder(folder)._loaded(), list(TEXTS))
    assert phase.counters[""].tokens == tokens.sum()
    assert phase.padding_share == phase.counters[""].padding / (phase.counters[""].padding + tokens.sum())
    assert 0 < phase.padding_share < 0.3
    assert phase.mfu == phase.counters[""].flops / phase.counters[""].gemm_flops > 0
    with instrument.recording() as from_cache:
        make_encoder(folder).encode(TEXTS, "document")
    assert from_cache.cached_s > 0
    assert from_cache.phase().mfu == phase.mfu, "MFU is cached with the vectors"


def test_measuring_the_gemm_peak_is_not_timed(folder, monkeypatch):
    encoder = make_encoder(folder)
    encoder.load()

    clock, added_s = time.perf_counter, [0.0]

    def slow_gemm_peak(device, dtype):
        added_s[0] += 1000
        return 1e9

    monkeypatch.setattr(mfu, "gemm_peak", slow_gemm_peak)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + added_s[0])
    with instrument.recording() as recorder:
        encoder.encode(TEXTS, "query")
    assert added_s[0] >= 1000
    assert recorder.wall_s < 1000
    assert recorder.stages["encode"] < 1000
    assert recorder.phase().mfu > 0


def test_mfu_is_not_measured_for_a_few_texts(folder):
    with instrument.recording() as recorder:
        make_encoder(folder).encode(TEXTS[:5], "query")
    assert recorder.phase().counters[""].flops is None
    assert recorder.phase().mfu is None


def test_cached_time_is_kept_per_setting_of_optimize_cpu(folder, empty_cache):
    make_encoder(folder).encode(TEXTS, "document")
    for cached, settings in ((True, {}), (False, {"optimize_cpu": False}), (True, {"optimize_cpu": False})):
        with instrument.recording() as recorder:
            make_encoder(folder, **settings).encode(TEXTS, "document")
        assert (recorder.cached_s > 0) is cached
    assert len(list(empty_cache.rglob("*.safetensors"))) == 1, (
        "their vectors differ only by rounding, so both settings share one shard"
    )


# ------------------------------------------------------------------------------------------------------------ backends


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_another_backend_gives_the_same_vectors_under_another_cache_key(folder, expected, empty_cache, backend):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[backend])
    make_encoder(folder).encode(TEXTS, "document")
    encoder = make_encoder(folder, backend=backend)
    vectors = encoder.encode(TEXTS, "document")
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)
    assert len(list(empty_cache.rglob("*.safetensors"))) == 2
    query = encoder.encode(TEXTS[22:23], "query")
    np.testing.assert_allclose(query.numpy(), expected[22:23], atol=1e-5)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_vectors(folder, expected, monkeypatch):
    """Use torch.compile's cheapest backend; the default one takes minutes and is tested by torch."""
    compile_ = torch.compile
    compile_settings = []

    def compile_eagerly(function, **settings):
        compile_settings.append(settings)
        return compile_(function, backend="eager", **settings)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    vectors = make_encoder(folder, backend="compile").encode(TEXTS[:40], "document")
    np.testing.assert_allclose(vectors.numpy(), expected[:40], atol=1e-5)
    assert compile_settings == [{"dynamic": True}]


@pytest.mark.slow
def test_a_sparse_encoder_gives_the_same_vectors_with_openvino(folder):
    pytest.importorskip("openvino")
    texts = TEXTS[:20]
    with_torch = SparseEncoder(str(folder / "mlm"), device="cpu").encode(texts, "document")
    with_openvino = SparseEncoder(str(folder / "mlm"), device="cpu", backend="openvino").encode(texts, "document")
    np.testing.assert_array_equal(with_torch.starts, with_openvino.starts)
    np.testing.assert_array_equal(with_torch.terms, with_openvino.terms)
    np.testing.assert_allclose(with_torch.weights, with_openvino.weights, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"backend": "tensorrt"}, ["encoder.backend='tensorrt'", "choices: torch, compile, onnx, openvino"]),
        ({"attention": "fast"}, ["encoder.attention='fast'", "choices: auto, eager, sdpa, flash_attention_2"]),
        (
            {"backend": "onnx", "dtype": "bfloat16"},
            ["encoder.backend='onnx'", "encoder.dtype=float32", "bfloat16"],
        ),
        (
            {"device": []},
            ["encoder.device=[]", "choices: auto, all, cpu, cuda, cuda:1, mps, or a list"],
        ),
    ],
)
def test_an_impossible_backend_or_device_is_refused(folder, settings, parts):
    with pytest.raises(ConfigError) as error:
        make_encoder(folder, **settings).load()
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_unavailable_flash_attention_is_refused(folder):
    if torch.cuda.is_available():
        pytest.skip("this machine may have flash attention")
    with pytest.raises(ConfigError, match=r"^encoder\.attention='flash_attention_2': .*; auto uses what is available$"):
        make_encoder(folder, attention="flash_attention_2").load()


# ------------------------------------------------------------------------------------------------------------- devices


@pytest.mark.slow
def test_several_devices_encode_in_parallel_and_vectors_stay_the_same(folder, expected, monkeypatch, empty_cache):
    monkeypatch.setitem(cache.encoded.__kwdefaults__, "shard", 60)
    monkeypatch.setattr(cache, "SHARD", 60)
    monkeypatch.setattr(cache, "_MIN_TEXTS", 10)
    encoder = make_encoder(folder, device=["cpu", "cpu"])
    encoder.load()
    with instrument.recording() as recorder:
        vectors = encoder.encode(TEXTS, "document")
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)
    single = make_encoder(folder)
    with instrument.recording() as single_recorder, cache.using("off"):
        single.encode(TEXTS, "document")
    assert recorder.counters[""]["tokens"] == single_recorder.counters[""]["tokens"]
    assert recorder.counters[""]["texts"] == 300
    assert len(list(empty_cache.rglob("*.safetensors"))) == 5
    with instrument.recording() as from_cache:
        assert torch.equal(encoder.encode(TEXTS, "document"), vectors)
    assert from_cache.cached_s > 0
    processes = encoder._workers._pool._processes.copy()
    assert len(processes) == 2
    for process in processes.values():
        process.kill()
    with cache.using("off"), pytest.raises(RunError, match="a process that encodes on one of several devices ended"):
        encoder.encode(TEXTS, "document")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_device_all_uses_every_gpu(folder, expected):
    encoder = make_encoder(folder, device="all", dtype="float32")
    np.testing.assert_allclose(encoder.encode(TEXTS, "document").cpu().numpy(), expected, atol=1e-4)
    assert len(encoder._devices) == torch.cuda.device_count()


@pytest.mark.parametrize("device", ["cuda:9", ["cpu", "cuda:9"], "mps"])
def test_a_missing_device_is_refused(folder, device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ConfigError, match=r"^encoder\.device=.*: torch finds .*; choose auto or cpu$"):
        make_encoder(folder, device=device).load()


def test_device_all_auto_and_lists_are_resolved(monkeypatch):
    assert model.devices(["cpu", "cpu"]) == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert model.devices("all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert model.devices("auto") == ["cuda"]
    assert model.devices(["cuda:1", "cuda:2"]) == ["cuda:1", "cuda:2"]


# ------------------------------------------------------------------------------------------------------------- storage


def test_vectors_larger_than_memory_are_stored_in_an_unnamed_file(empty_cache, monkeypatch, folder, expected):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    vectors = make_encoder(folder, cache=False).encode(TEXTS, "document")
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)
    assert list(empty_cache.iterdir()) == []
    half = storage.allocate((10, 4), torch.device("cpu"), torch.float16)
    half[:] = 1
    assert half.sum() == 40


def test_encoding_logs_no_warnings(folder, caplog):
    with caplog.at_level(logging.WARNING, "harness"):
        make_encoder(folder).encode(TEXTS, "document")
    assert not caplog.records


def test_truncated_texts_and_their_remaining_tokens_are_counted(minilm):
    corpus = Corpus(["short", "long"], ["a few words", "word " * 1000])
    with instrument.recording() as recorder:
        minilm.index(corpus)
    phase = recorder.phase()
    assert phase.counters[""].truncated == 1
    assert phase.truncated_share == 0.5
    assert phase.counters[""].tokens == 5 + 256, "[CLS] a few words [SEP], and the model's 256"
    assert recorder.encoders[""]["max_length"] == 256
    assert recorder.encoders[""]["dtype"] == "float32"
    assert recorder.encoders[""]["batch_tokens"] == 2048
    assert recorder.encoders[""]["weights"]["model"].startswith("sentence-transformers/all-MiniLM-L6-v2@")
