"""Tests of the embedding cache: round trip, keys, damaged files, cached times, modes and interrupted encodes."""

import errno
import importlib
import itertools
import logging
import os
import shutil
import sys
import time
from datetime import UTC

import numpy as np
import pytest
import torch
from support.models import write_dense, write_masked
from support.records import make_record

from harness import instrument, machine, versions
from harness.embedding_cache import cache, shards
from harness.encoders.dense import DenseEncoder
from harness.encoders.multi_vector import MultiVectorEncoder
from harness.encoders.runtime.batching import by_length
from harness.encoders.sparse import SparseEncoder
from harness.environment import limited_threads
from harness.evaluation.timing import TimingPlan, measure
from harness.instrument import recording, stage
from harness.leaderboard import build, writers
from harness.leaderboard.tables.leaderboard import tables
from harness.retrievers.dense import Dense
from harness.types import Corpus, Dataset, Qrels, Queries, StringColumn

N = 300
TEXTS = StringColumn([f"text {number} of many" for number in range(N)])
PLAN = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Write a tiny dense model of random weights, and return its folder."""
    return write_dense(tmp_path_factory.mktemp("model"))


def make_encoder(model, **settings) -> DenseEncoder:
    return DenseEncoder(str(model), **{"device": "cpu", **settings})


USER_ENCODER = """
from harness.encoders.dense import DenseEncoder


class Encoder(DenseEncoder):
    def _run(self, *arguments):
        return {sign}super()._run(*arguments)
"""


def test_the_code_of_a_user_encoder_is_part_of_the_key(model, empty_cache, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    vectors = []
    for sign in ("", "-"):
        sys.modules.pop("user_encoder", None)
        (tmp_path / "user_encoder.py").write_text(USER_ENCODER.format(sign=sign))
        importlib.invalidate_caches()
        vectors.append(
            importlib.import_module("user_encoder").Encoder(str(model), device="cpu").encode(TEXTS, "document")
        )
    sys.modules.pop("user_encoder")
    np.testing.assert_allclose(vectors[0], -vectors[1])
    assert len(shard_files(empty_cache)) == 2
    assert cache.encoder_identity(DenseEncoder) == {"embeddings": ["dense", versions.EMBEDDINGS["dense"]]}


def shard_files(folder):
    return sorted(folder.rglob("*.safetensors"))


def record_blocks(monkeypatch, kind=DenseEncoder):
    """Return a list that receives the number of texts of each block that is encoded from now on."""
    block_sizes, join = [], kind._join

    def recorded_join(self, results, n):
        block_sizes.append(n)
        return join(self, results, n)

    monkeypatch.setattr(kind, "_join", recorded_join)
    return block_sizes


def make_dataset(n=N, texts=None):
    texts = texts or [f"text {number} of many" for number in range(n)]
    corpus = Corpus([f"d{number}" for number in range(n)], texts)
    return Dataset("made", "test", corpus, Queries(["q"], ["text 7"]), Qrels({"q": {"d7": 1}}))


def measure_dense(model, plan=PLAN, dataset=None):
    return measure(Dense(make_encoder(model)), dataset or make_dataset(), k=1, metrics=["ndcg@1"], plan=plan)


# -------------------------------------------------------------------------------------------------------- round trip

ARRAYS = {
    "dense": {"vectors": np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)},
    "sparse": {
        "counts": np.full(N, 2, np.int32),
        "terms": np.arange(2 * N, dtype=np.int32),
        "weights": np.linspace(0, 1, 2 * N, dtype=np.float32),
        "width": np.array([30522], np.int32),
    },
    "multi-vector": {"counts": np.ones(N, np.int64), "vectors": np.ones((N, 4), np.float16).T.copy().T},
    "empty": {"counts": np.zeros(N, np.int64), "vectors": np.empty((0, 4), np.float16)},
    "odd values": {"vectors": np.array([[np.nan, np.inf, -0.0, 1e-45]], np.float32)},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_cached_arrays_are_bit_for_bit_the_encoded_ones(name):
    ((rows, first),) = cache.encoded(TEXTS, {}, lambda block: lambda: ARRAYS[name], keep=True)
    ((_, again),) = cache.encoded(TEXTS, {}, pytest.fail, keep=True)
    assert rows.tolist() == list(range(N))
    for key, array in ARRAYS[name].items():
        assert first[key].tobytes() == array.tobytes()
    assert set(again) == set(first)
    for key, array in again.items():
        assert (array.dtype, array.shape) == (first[key].dtype, first[key].shape)
        assert array.tobytes() == first[key].tobytes()
        assert array.flags.writeable, "torch warns about arrays that are read-only"


@pytest.mark.parametrize("kind", ["dense", "sparse", "multi-vector"])
def test_each_encoder_reads_its_vectors_from_the_cache(kind, model, tmp_path, empty_cache, monkeypatch):
    monkeypatch.setattr(cache, "_MIN_TEXTS", 10)
    monkeypatch.setitem(cache.encoded.__kwdefaults__, "shard", 20)
    texts = StringColumn([f"text {number}" for number in range(40)])
    if kind == "sparse":
        write_masked(tmp_path / "mlm")
    make = {
        "dense": lambda: make_encoder(model),
        "sparse": lambda: SparseEncoder(str(tmp_path / "mlm"), device="cpu", document_terms=5),
        "multi-vector": lambda: MultiVectorEncoder(str(model), projection="none", device="cpu"),
    }[kind]
    first = make().encode(texts, "document")
    assert len(shard_files(empty_cache)) == 2
    block_sizes = record_blocks(monkeypatch, type(make()))
    again = make().encode(texts, "document")
    assert not block_sizes
    if kind == "dense":
        assert torch.equal(first, again)
    elif kind == "sparse":
        for part in ("starts", "terms", "weights"):
            np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
    else:
        np.testing.assert_array_equal(first.starts, again.starts)
        assert torch.equal(first.vectors, again.vectors)
        assert again.vectors.dtype == torch.float16


# ---------------------------------------------------------------------------------------------------------- identity


@pytest.mark.slow
def test_each_setting_that_changes_vectors_changes_the_key(model, tmp_path, empty_cache, monkeypatch):
    other_model = write_dense(tmp_path, seed=1)
    block_sizes = record_blocks(monkeypatch)
    variants = [
        {},
        {"dtype": "bfloat16"},
        {"document_prompt": "say: "},
        {"max_length": 4},
        {"pooling": "cls"},
        {"normalize": True},
        {"normalize": False},
        {"dimensions": 5},
        {"attention": "eager"},
    ]
    for n, settings in enumerate(variants):
        make_encoder(model, **settings).encode(TEXTS, "document")
        assert (len(block_sizes), len(shard_files(empty_cache))) == (n + 1, n + 1), settings
    model_and_text_variants = [
        (other_model, TEXTS),
        (model, StringColumn(list(TEXTS)[::-1])),
        (model, StringColumn([*list(TEXTS)[:-1], "text"])),
    ]
    for n, (weights, texts) in enumerate(model_and_text_variants, start=len(variants)):
        make_encoder(weights).encode(texts, "document")
        assert (len(block_sizes), len(shard_files(empty_cache))) == (n + 1, n + 1)
    for settings in ({"storage_dtype": "float16"}, {"storage_dtype": "float32"}):
        MultiVectorEncoder(str(model), projection="none", device="cpu", **settings).encode(TEXTS, "document")
    assert len(shard_files(empty_cache)) == n + 3
    for settings in variants:
        make_encoder(model, **settings).encode(TEXTS, "document")
    assert len(block_sizes) == n + 1, "each variant is read from the cache"


def test_query_and_document_side_have_different_keys(model):
    encoder = make_encoder(model)
    paths = {shards.path_of(encoder._identity(encoder._loaded(), side), list(TEXTS)) for side in ("query", "document")}
    assert len(paths) == 2


def test_the_borders_between_texts_are_part_of_the_key():
    assert shards.path_of({}, ["ab", "c"]) != shards.path_of({}, ["a", "bc"])
    assert shards.path_of({}, ["\udcff"]) != shards.path_of({}, ["?"])


def test_the_path_of_the_weights_is_not_part_of_the_key(model, tmp_path, monkeypatch):
    make_encoder(model).encode(TEXTS, "document")
    block_sizes = record_blocks(monkeypatch)
    shutil.copytree(model, tmp_path / "copy")
    make_encoder(tmp_path / "copy").encode(TEXTS, "document")
    assert not block_sizes


def test_another_batch_size_is_encoded_again(model, monkeypatch):
    first = make_encoder(model).encode(TEXTS, "document")
    block_sizes = record_blocks(monkeypatch)
    with recording() as recorder:
        second = make_encoder(model, batch_tokens=100).encode(TEXTS, "document")
    assert block_sizes
    assert recorder.phase().cached_s == 0
    np.testing.assert_allclose(first.numpy(), second.numpy(), atol=1e-5)


def test_writing_shards_is_not_timed(empty_cache, monkeypatch):
    """On a simulated clock, writing takes a second and computing a quarter of a second."""
    clock = [0.0]
    monkeypatch.setattr("harness.instrument.time.perf_counter", lambda: clock[0])
    write = shards.write

    def slow_write(*arguments):
        clock[0] += 1.0
        write(*arguments)

    def compute(block):
        clock[0] += 0.25
        return {"vectors": np.ones((len(block), 2), np.float32)}

    def begin(block):
        return lambda: compute(block)

    monkeypatch.setattr(shards, "write", slow_write)
    with recording() as recorder, stage("encode"):
        list(cache.encoded(StringColumn(["a"] * 300), {"model": "m"}, begin, True))
    assert recorder.phase().wall_s == recorder.phase().stages["encode"] == 0.25


# ------------------------------------------------------------------------------------------------------------- damage


def damage(data: bytes, damage_kind: str) -> bytes:
    if damage_kind == "truncated":
        return data[:-5]
    if damage_kind == "empty":
        return b""
    position = {"first byte": 0, "cost": data.index(b"wall_s") + 12, "vector": len(data) - 9}[damage_kind]
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize("damage_kind", ["truncated", "empty", "first byte", "cost", "vector"])
def test_a_damaged_shard_is_warned_of_by_name_and_encoded_again(model, empty_cache, monkeypatch, caplog, damage_kind):
    first = make_encoder(model).encode(TEXTS, "document")
    (path,) = shard_files(empty_cache)
    path.write_bytes(damage(path.read_bytes(), damage_kind))
    block_sizes = record_blocks(monkeypatch)
    with caplog.at_level(logging.WARNING, "harness"):
        again = make_encoder(model).encode(TEXTS, "document")
    assert block_sizes == [N]
    assert torch.equal(first, again)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("harness")]
    assert f"{path} are damaged" in warning
    make_encoder(model).encode(TEXTS, "document")
    assert block_sizes == [N], "the shard is intact again"


# -------------------------------------------------------------------------------------------------------- cached time


@pytest.fixture
def slow_encoding(monkeypatch):
    """Make encoding a block take 0.3 s longer, and return a list that receives the sizes of encoded blocks."""
    block_sizes = record_blocks(monkeypatch)
    join = DenseEncoder._join

    def slow_join(self, results, n):
        if n >= 256:
            time.sleep(0.3)
        return join(self, results, n)

    monkeypatch.setattr(DenseEncoder, "_join", slow_join)
    return block_sizes


def test_the_time_of_the_first_encoding_is_counted_again_for_cached_vectors(model, slow_encoding):
    first, second = measure_dense(model), measure_dense(model)
    assert slow_encoding.count(N) == 1
    assert first.timing.index.cached_s == 0
    index = second.timing.index
    assert 0.3 < index.cached_s <= first.timing.index.stages["encode"]
    assert index.wall_s >= index.stages["encode"] >= index.cached_s
    assert index.cpu_s > 0
    assert index.counters == first.timing.index.counters
    assert index.counters[""].texts == N
    assert second.timing.docs_per_s == N / index.wall_s <= N / index.cached_s
    assert second.timing.tokens_per_s is not None
    assert not index.foreign_machine
    assert second.means == first.means


def test_the_cached_time_stays_the_same_over_several_reads(model, slow_encoding):
    cached_s = []
    for _ in range(3):
        with instrument.recording() as recorder:
            make_encoder(model).encode(TEXTS, "document")
        cached_s.append(recorder.cached_s)
    assert cached_s[0] == 0
    assert cached_s[1] == cached_s[2] > 0.3


def test_cached_time_is_counted_in_the_stage_of_the_component(model):
    make_encoder(model).encode(TEXTS, "document")
    with instrument.recording() as recorder, instrument.component("dense"):
        make_encoder(model).encode(TEXTS, "document")
    assert recorder.stages["dense/encode"] >= recorder.cached_s > 0
    assert recorder.counters["dense"]["tokens"] > N
    ((shard,),) = recorder.shards.values()
    assert set(recorder.shards) == {"dense"}
    assert shard.wall_s == recorder.cached_s
    assert shard.work >= recorder.counters["dense"]["tokens"]


@pytest.mark.parametrize("delay", [0.25, None])
def test_the_run_delay_and_the_date_of_an_encoding_are_cached_with_its_time(model, monkeypatch, delay):
    delays = itertools.count(0.0, 0.25) if delay else itertools.repeat(None)
    with monkeypatch.context() as patch:
        patch.setattr(machine, "run_delay", lambda: next(delays))
        with instrument.recording() as first:
            make_encoder(model).encode(TEXTS, "document")
    assert first.phase().cached_since is None
    with instrument.recording() as second:
        make_encoder(model).encode(TEXTS, "document")
    assert (second.run_delay_s is None) == (first.run_delay_s is None)
    assert delay is None or 0 < second.run_delay_s < first.run_delay_s, "the delay of the shard alone"
    assert second.phase().cached_since.tzinfo is UTC


def shown_docs_per_s(timing) -> str:
    lines = writers.markdown(tables(build([make_record("dense", "made", timing=timing)]))).splitlines()
    headings, cells = ([cell.strip() for cell in lines[place].split("|")] for place in (0, 2))
    return cells[headings.index("docs/s")]


def test_vectors_from_another_machine_have_no_throughput_on_the_leaderboard(model, slow_encoding, monkeypatch):
    first = measure_dense(model)
    monkeypatch.setattr(shards, "fingerprint", lambda: "another machine")
    second = measure_dense(model)
    assert slow_encoding.count(N) == 1, "the cached vectors are used"
    assert second.means == first.means
    assert second.timing.index.foreign_machine
    assert second.timing.docs_per_s is None
    assert second.timing.tokens_per_s is None
    assert second.timing.index.cached_s == 0
    assert shown_docs_per_s(second.timing) == "-"
    assert shown_docs_per_s(first.timing) not in ("-", "")


def test_another_number_of_threads_is_encoded_again(model, slow_encoding):
    measure_dense(model, PLAN.model_copy(update={"threads": 1}))
    second = measure_dense(model, PLAN.model_copy(update={"threads": 2}))
    assert slow_encoding.count(N) == 2
    assert second.timing.index.cached_s == 0
    third = measure_dense(model, PLAN.model_copy(update={"threads": 2}))
    assert slow_encoding.count(N) == 2
    assert third.timing.index.cached_s > 0


# -------------------------------------------------------------------------------------------------------------- modes


def test_refresh_encodes_again_and_replaces_the_shard(model, empty_cache, monkeypatch):
    make_encoder(model).encode(TEXTS, "document")
    (path,) = shard_files(empty_cache)
    before = path.stat().st_ino
    block_sizes = record_blocks(monkeypatch)
    with cache.using("refresh"), instrument.recording() as recorder:
        make_encoder(model).encode(TEXTS, "document")
    assert block_sizes == [N]
    assert recorder.cached_s == 0
    assert shard_files(empty_cache) == [path]
    assert path.stat().st_ino != before, "the shard is a new file"
    make_encoder(model).encode(TEXTS, "document")
    assert block_sizes == [N], "refresh applies inside the context only"


def test_mode_off_neither_reads_nor_writes(model, empty_cache, monkeypatch):
    block_sizes = record_blocks(monkeypatch)
    with cache.using("off"):
        make_encoder(model).encode(TEXTS, "document")
    assert not shard_files(empty_cache)
    make_encoder(model).encode(TEXTS, "document")
    with cache.using("off"):
        make_encoder(model).encode(TEXTS, "document")
    make_encoder(model, cache=False).encode(TEXTS, "document")
    assert block_sizes == [N] * 4
    assert len(shard_files(empty_cache)) == 1


def test_the_warm_up_does_not_fill_the_cache(model, empty_cache):
    measure_dense(model, PLAN.model_copy(update={"warmup_documents": N - 20}))
    (path,) = shard_files(empty_cache)
    longest_first = [TEXTS[row] for row in by_length(TEXTS).tolist()]
    assert path.stem == shards.path_of({}, longest_first).stem, "the shard is of the whole corpus, not of the warm-up"


def test_queries_and_fewer_than_128_documents_are_not_cached(model, empty_cache):
    make_encoder(model).encode(TEXTS, "query")
    make_encoder(model).encode(TEXTS[:127], "document")
    assert not empty_cache.exists()
    make_encoder(model).encode(TEXTS[:128], "document")
    assert len(shard_files(empty_cache)) == 1


def test_paid_embeddings_are_cached_in_any_amount_and_shared_by_thread_counts(empty_cache):
    def encode(threads, compute, paid=True):
        with limited_threads(threads):
            return next(cache.encoded(TEXTS[:3], {}, compute, keep=True, paid=paid))[1]["vectors"].tolist()

    def zeros(block):
        return lambda: {"vectors": np.zeros(3)}

    assert encode(1, lambda block: lambda: {"vectors": np.arange(3.0)}) == [0.0, 1.0, 2.0]
    assert len(shard_files(empty_cache)) == 1
    assert encode(2, pytest.fail) == [0.0, 1.0, 2.0]
    assert encode(2, zeros, paid=False) == [0.0, 0.0, 0.0]
    with cache.using("off"):
        assert encode(1, zeros) == [0.0, 0.0, 0.0]


# ------------------------------------------------------------------------------------------------ interrupted encodes


def test_an_interrupted_encode_continues_after_its_last_complete_shard(model, empty_cache, monkeypatch):
    monkeypatch.setitem(cache.encoded.__kwdefaults__, "shard", 256)
    texts = StringColumn([f"text {number}" for number in range(600)])  # the last 88 are too few to be cached
    expected = make_encoder(model, cache=False).encode(texts, "document")
    join = DenseEncoder._join

    def interrupted_join(self, results, n):
        if len(shard_files(empty_cache)) == 1:
            raise KeyboardInterrupt
        return join(self, results, n)

    with monkeypatch.context() as patch:
        patch.setattr(DenseEncoder, "_join", interrupted_join)
        with pytest.raises(KeyboardInterrupt):
            make_encoder(model).encode(texts, "document")
    assert len(shard_files(empty_cache)) == 1
    block_sizes = record_blocks(monkeypatch)
    with instrument.recording() as recorder:
        vectors = make_encoder(model).encode(texts, "document")
    assert block_sizes == [256, 88]
    assert torch.equal(vectors, expected)
    assert 0 < recorder.cached_s < recorder.stages["encode"]
    assert recorder.counters[""]["texts"] == 600
    assert len(shard_files(empty_cache)) == 2


def test_a_cache_folder_that_cannot_be_written_is_a_warning(model, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "harness"):
        vectors = make_encoder(model).encode(TEXTS, "document")
    assert torch.equal(vectors, make_encoder(model, cache=False).encode(TEXTS, "document"))
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("harness")]
    assert f"{tmp_path}/file/embeddings/" in warning
    assert "Not a directory" in warning


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_no_file(model, empty_cache, monkeypatch, caplog, error):
    def failing_fsync(_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_fsync)
        if isinstance(error, OSError):
            with caplog.at_level(logging.WARNING, "harness"):
                make_encoder(model).encode(TEXTS, "document")
            assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["No space left on device"]
        else:
            with pytest.raises(KeyboardInterrupt):
                make_encoder(model).encode(TEXTS, "document")
    assert [path for path in empty_cache.rglob("*") if path.is_file()] == []


def test_encoding_leaves_no_temporary_files(model, empty_cache):
    make_encoder(model).encode(TEXTS, "document")
    names = [path.name for path in empty_cache.rglob("*") if path.is_file()]
    assert names == [path.name for path in shard_files(empty_cache)]


def test_paid_embeddings_are_cached_where_equally_few_free_ones_are_not(empty_cache, monkeypatch):
    block_sizes = []

    def begin(block):
        block_sizes.append(len(block))
        return lambda: {"vectors": np.ones((len(block), 2), np.float32)}

    for threads in (1, 2):
        monkeypatch.setattr(cache, "threads", lambda n=threads: n)
        _, arrays = next(cache.encoded(StringColumn(["a", "b"]), {"model": "m"}, begin, True, paid=True))
        assert len(arrays["vectors"]) == 2
    assert block_sizes == [2]
    for threads in (1, 2):
        monkeypatch.setattr(cache, "threads", lambda n=threads: n)
        next(cache.encoded(StringColumn(["a", "b"]), {"model": "m"}, begin, True))
    assert block_sizes == [2, 2, 2], "a few texts that this machine encodes are not cached"
