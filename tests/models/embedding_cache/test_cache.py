"""The embedding cache gives back what was encoded, never another's, and its price with it."""

import errno
import importlib
import logging
import os
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from support.records import make_record
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertModel

from harness import instrument, versions
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
CONFIG = BertConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(scope="module")
def model(models, tmp_path_factory):
    """A folder with a tiny dense model of random weights."""
    return _made(models, tmp_path_factory.mktemp("model"), seed=0)


def _made(models, folder, seed):
    torch.manual_seed(seed)
    BertModel(CONFIG).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(models / "all-MiniLM-L6-v2").save_pretrained(folder / "bert")
    SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16)]).save(str(folder / "saved"))
    return folder / "saved"


def encoder(model, **settings) -> DenseEncoder:
    return DenseEncoder(str(model), **{"device": "cpu", **settings})


OWN = """
from harness.encoders.dense import DenseEncoder


class Encoder(DenseEncoder):
    def _run(self, *arguments):
        return {sign}super()._run(*arguments)
"""


def test_an_encoder_of_ones_own_is_known_by_its_code(model, empty_cache, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for sign in ("", "-"):
        sys.modules.pop("encoder_of_mine", None)
        (tmp_path / "encoder_of_mine.py").write_text(OWN.format(sign=sign))
        importlib.invalidate_caches()
        found.append(
            importlib.import_module("encoder_of_mine").Encoder(str(model), device="cpu").encode(TEXTS, "document")
        )
    sys.modules.pop("encoder_of_mine")
    np.testing.assert_allclose(found[0], -found[1])
    assert len(files(empty_cache)) == 2
    assert cache.encoder_identity(DenseEncoder) == {"embeddings": ["dense", versions.EMBEDDINGS["dense"]]}


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def calls(monkeypatch, kind=DenseEncoder):
    """The number of texts of each block that is encoded from now on."""
    seen, join = [], kind._join

    def counted(self, found, n):
        seen.append(n)
        return join(self, found, n)

    monkeypatch.setattr(kind, "_join", counted)
    return seen


def dataset(n=N, texts=None):
    texts = texts or [f"text {number} of many" for number in range(n)]
    corpus = Corpus([f"d{number}" for number in range(n)], texts)
    return Dataset("made", "test", corpus, Queries(["q"], ["text 7"]), Qrels({"q": {"d7": 1}}))


def measured(model, plan=PLAN, data=None):
    return measure(Dense(encoder(model)), data or dataset(), k=1, metrics=["ndcg@1"], plan=plan)


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
def test_arrays_come_back_bit_for_bit(name):
    ((rows, first),) = cache.encoded(TEXTS, {}, lambda block: lambda: ARRAYS[name], keep=True)
    ((_, again),) = cache.encoded(TEXTS, {}, pytest.fail, keep=True)
    assert rows.tolist() == list(range(N))
    for key, array in ARRAYS[name].items():
        assert first[key].tobytes() == array.tobytes()
    assert set(again) == set(first)
    for key, array in again.items():
        assert (array.dtype, array.shape) == (first[key].dtype, first[key].shape)
        assert array.tobytes() == first[key].tobytes()
        assert array.flags.writeable, "torch warns of an array that it may not write"


@pytest.mark.parametrize("kind", ["dense", "sparse", "multi-vector"])
def test_each_family_reads_back_what_it_encoded(kind, model, models, tmp_path, empty_cache, monkeypatch):
    monkeypatch.setattr(cache, "_MIN_TEXTS", 10)
    monkeypatch.setitem(cache.encoded.__kwdefaults__, "shard", 20)
    texts = StringColumn([f"text {number}" for number in range(40)])
    if kind == "sparse":
        BertForMaskedLM(CONFIG).save_pretrained(tmp_path / "mlm")
        AutoTokenizer.from_pretrained(models / "all-MiniLM-L6-v2").save_pretrained(tmp_path / "mlm")
    make = {
        "dense": lambda: encoder(model),
        "sparse": lambda: SparseEncoder(str(tmp_path / "mlm"), device="cpu", document_terms=5),
        "multi-vector": lambda: MultiVectorEncoder(str(model), projection="none", device="cpu"),
    }[kind]
    first = make().encode(texts, "document")
    assert len(files(empty_cache)) == 2
    seen = calls(monkeypatch, type(make()))
    again = make().encode(texts, "document")
    assert not seen
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


def test_whatever_changes_a_vector_changes_the_key(model, models, tmp_path, empty_cache, monkeypatch):
    other = _made(models, tmp_path, seed=1)
    seen = calls(monkeypatch)
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
    for done, settings in enumerate(variants):
        encoder(model, **settings).encode(TEXTS, "document")
        assert (len(seen), len(files(empty_cache))) == (done + 1, done + 1), settings
    more = [
        (other, TEXTS),
        (model, StringColumn(list(TEXTS)[::-1])),
        (model, StringColumn([*list(TEXTS)[:-1], "text"])),
    ]
    for done, (weights, texts) in enumerate(more, start=len(variants)):
        encoder(weights).encode(texts, "document")
        assert (len(seen), len(files(empty_cache))) == (done + 1, done + 1)
    for projected in ({"storage_dtype": "float16"}, {"storage_dtype": "float32"}):
        MultiVectorEncoder(str(model), projection="none", device="cpu", **projected).encode(TEXTS, "document")
    assert len(files(empty_cache)) == done + 3
    for settings in variants:
        encoder(model, **settings).encode(TEXTS, "document")
    assert len(seen) == done + 1, "each has kept its own"


def test_the_side_is_part_of_the_key(model):
    own = encoder(model)
    paths = {shards.path_of(own._identity(own._loaded(), side), list(TEXTS)) for side in ("query", "document")}
    assert len(paths) == 2


def test_texts_are_told_apart_by_where_they_end():
    assert shards.path_of({}, ["ab", "c"]) != shards.path_of({}, ["a", "bc"])
    assert shards.path_of({}, ["\udcff"]) != shards.path_of({}, ["?"])


def test_the_place_of_the_weights_changes_nothing(model, tmp_path, monkeypatch):
    encoder(model).encode(TEXTS, "document")
    seen = calls(monkeypatch)
    shutil.copytree(model, tmp_path / "elsewhere")
    encoder(tmp_path / "elsewhere").encode(TEXTS, "document")
    assert not seen


def test_another_size_of_batch_has_another_price_and_is_encoded_anew(model, monkeypatch):
    first = encoder(model).encode(TEXTS, "document")
    seen = calls(monkeypatch)
    with recording() as recorder:
        second = encoder(model, batch_tokens=100).encode(TEXTS, "document")
    assert seen
    assert recorder.phase().cached_s == 0
    np.testing.assert_allclose(first.numpy(), second.numpy(), atol=1e-5)


def test_reading_and_writing_shards_is_no_part_of_the_price(empty_cache, monkeypatch):
    """A second of house-keeping, on a clock of the test's own, is in no figure."""
    now = [0.0]
    monkeypatch.setattr("harness.instrument.time.perf_counter", lambda: now[0])
    whole = shards.write

    def slow(*arguments):
        now[0] += 1.0
        whole(*arguments)

    def compute(block):
        now[0] += 0.25
        return {"vectors": np.ones((len(block), 2), np.float32)}

    def begin(block):
        return lambda: compute(block)

    monkeypatch.setattr(shards, "write", slow)
    with recording() as recorder, stage("encode"):
        list(cache.encoded(StringColumn(["a"] * 300), {"model": "m"}, begin, True))
    assert recorder.phase().wall_s == recorder.phase().stages["encode"] == 0.25


# ------------------------------------------------------------------------------------------------------------- damage


def damaged(data: bytes, how: str) -> bytes:
    if how == "cut short":
        return data[:-5]
    if how == "empty":
        return b""
    place = {"first byte": 0, "price": data.index(b"wall_s") + 12, "vector": len(data) - 9}[how]
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("how", ["cut short", "empty", "first byte", "price", "vector"])
def test_a_damaged_file_is_named_and_encoded_again(model, empty_cache, monkeypatch, caplog, how):
    first = encoder(model).encode(TEXTS, "document")
    (path,) = files(empty_cache)
    path.write_bytes(damaged(path.read_bytes(), how))
    seen = calls(monkeypatch)
    with caplog.at_level(logging.WARNING, "harness"):
        again = encoder(model).encode(TEXTS, "document")
    assert seen == [N]
    assert torch.equal(first, again)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("harness")]
    assert warning.startswith(f"cached vectors {path} are damaged and are encoded again: ")
    encoder(model).encode(TEXTS, "document")
    assert seen == [N], "the file is whole again"


# --------------------------------------------------------------------------------------------------------------- cost


@pytest.fixture
def slow(monkeypatch):
    """Encoding a block takes a while longer; gives the blocks that were encoded."""
    seen = calls(monkeypatch)
    join = DenseEncoder._join

    def slowed(self, found, n):
        if n >= 256:
            time.sleep(0.3)
        return join(self, found, n)

    monkeypatch.setattr(DenseEncoder, "_join", slowed)
    return seen


def test_the_price_of_the_first_encode_is_paid_again_on_the_clock(model, slow):
    first, second = measured(model), measured(model)
    assert slow.count(N) == 1
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


def test_the_price_is_that_of_the_encoding_however_often_it_was_read(model, slow):
    prices = []
    for _ in range(3):
        with instrument.recording() as seen:
            encoder(model).encode(TEXTS, "document")
        prices.append(seen.cached_s)
    assert prices[0] == 0
    assert prices[1] == prices[2] > 0.3


def test_the_price_is_in_the_stage_of_the_part_of_a_hybrid(model):
    encoder(model).encode(TEXTS, "document")
    with instrument.recording() as seen, instrument.component("dense"):
        encoder(model).encode(TEXTS, "document")
    assert seen.stages["dense/encode"] >= seen.cached_s > 0
    assert seen.counters["dense"]["tokens"] > N


def shown_docs_per_s(timing) -> str:
    lines = writers.markdown(tables(build([make_record("dense", "made", timing=timing)]))).splitlines()
    headings, cells = ([cell.strip() for cell in lines[place].split("|")] for place in (0, 2))
    return cells[headings.index("docs/s")]


def test_vectors_from_another_machine_have_no_throughput_and_the_board_shows_a_gap(model, slow, monkeypatch):
    first = measured(model)
    monkeypatch.setattr(shards, "fingerprint", lambda: "another machine")
    second = measured(model)
    assert slow.count(N) == 1, "they are used all the same"
    assert second.means == first.means
    assert second.timing.index.foreign_machine
    assert second.timing.docs_per_s is None
    assert second.timing.tokens_per_s is None
    assert second.timing.index.cached_s == 0
    assert shown_docs_per_s(second.timing) == "-"
    assert shown_docs_per_s(first.timing) not in ("-", "")


def test_another_number_of_threads_is_encoded_again_at_its_own_price(model, slow):
    measured(model, PLAN.model_copy(update={"threads": 1}))
    second = measured(model, PLAN.model_copy(update={"threads": 2}))
    assert slow.count(N) == 2
    assert second.timing.index.cached_s == 0
    third = measured(model, PLAN.model_copy(update={"threads": 2}))
    assert slow.count(N) == 2
    assert third.timing.index.cached_s > 0


# ---------------------------------------------------------------------------------------------------------------- use


def test_renew_encodes_anew_and_keeps_that(model, empty_cache, monkeypatch):
    encoder(model).encode(TEXTS, "document")
    (path,) = files(empty_cache)
    before = path.stat().st_ino
    seen = calls(monkeypatch)
    with cache.using("refresh"), instrument.recording() as renewed:
        encoder(model).encode(TEXTS, "document")
    assert seen == [N]
    assert renewed.cached_s == 0
    assert files(empty_cache) == [path]
    assert path.stat().st_ino != before, "written anew"
    encoder(model).encode(TEXTS, "document")
    assert seen == [N], "the block has ended"


def test_off_neither_reads_nor_writes(model, empty_cache, monkeypatch):
    seen = calls(monkeypatch)
    with cache.using("off"):
        encoder(model).encode(TEXTS, "document")
    assert not files(empty_cache)
    encoder(model).encode(TEXTS, "document")
    with cache.using("off"):
        encoder(model).encode(TEXTS, "document")
    encoder(model, cache=False).encode(TEXTS, "document")
    assert seen == [N] * 4
    assert len(files(empty_cache)) == 1


def test_the_warm_up_does_not_fill_the_cache(model, empty_cache):
    measured(model, PLAN.model_copy(update={"warmup_documents": N - 20}))
    (path,) = files(empty_cache)
    longest_first = [TEXTS[row] for row in by_length(TEXTS).tolist()]
    assert path.stem == shards.path_of({}, longest_first).stem, "the whole corpus, not its beginning"


def test_queries_and_a_handful_of_documents_are_never_cached(model, empty_cache):
    encoder(model).encode(TEXTS, "query")
    encoder(model).encode(TEXTS[:127], "document")
    assert not empty_cache.exists()
    encoder(model).encode(TEXTS[:128], "document")
    assert len(files(empty_cache)) == 1


def test_what_was_paid_for_is_kept_however_little_and_for_any_number_of_threads(empty_cache):
    def encoded(threads, compute, paid=True):
        with limited_threads(threads):
            return next(cache.encoded(TEXTS[:3], {}, compute, keep=True, paid=paid))[1]["vectors"].tolist()

    def zeros(block):
        return lambda: {"vectors": np.zeros(3)}

    assert encoded(1, lambda block: lambda: {"vectors": np.arange(3.0)}) == [0.0, 1.0, 2.0]
    assert len(files(empty_cache)) == 1
    assert encoded(2, pytest.fail) == [0.0, 1.0, 2.0]
    assert encoded(2, zeros, paid=False) == [0.0, 0.0, 0.0]
    with cache.using("off"):
        assert encoded(1, zeros) == [0.0, 0.0, 0.0]


# ----------------------------------------------------------------------------------------------------------- accidents


def test_an_encode_that_was_killed_goes_on_after_its_last_whole_shard(model, empty_cache, monkeypatch):
    monkeypatch.setitem(cache.encoded.__kwdefaults__, "shard", 256)
    texts = StringColumn([f"text {number}" for number in range(600)])  # 256, 256 and 88, which are not worth a file
    whole = encoder(model, cache=False).encode(texts, "document")
    join = DenseEncoder._join

    def killed(self, found, n):
        if len(files(empty_cache)) == 1:
            raise KeyboardInterrupt
        return join(self, found, n)

    with monkeypatch.context() as patched:
        patched.setattr(DenseEncoder, "_join", killed)
        with pytest.raises(KeyboardInterrupt):
            encoder(model).encode(texts, "document")
    assert len(files(empty_cache)) == 1
    seen = calls(monkeypatch)
    with instrument.recording() as again:
        found = encoder(model).encode(texts, "document")
    assert seen == [256, 88]
    assert torch.equal(found, whole)
    assert 0 < again.cached_s < again.stages["encode"]
    assert again.counters[""]["texts"] == 600
    assert len(files(empty_cache)) == 2


def test_a_folder_that_cannot_be_written_is_a_warning_and_no_failure(model, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "harness"):
        found = encoder(model).encode(TEXTS, "document")
    assert torch.equal(found, encoder(model, cache=False).encode(TEXTS, "document"))
    (warning,) = [one.getMessage() for one in caplog.records if one.name.startswith("harness")]
    assert warning.startswith(f"vectors cannot be cached in {tmp_path}/file/embeddings/")
    assert warning.endswith(": Not a directory")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_no_file_behind(model, empty_cache, monkeypatch, caplog, error):
    def full(_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        if isinstance(error, OSError):
            with caplog.at_level(logging.WARNING, "harness"):
                encoder(model).encode(TEXTS, "document")
            assert [one.getMessage().rpartition(": ")[2] for one in caplog.records] == ["No space left on device"]
        else:
            with pytest.raises(KeyboardInterrupt):
                encoder(model).encode(TEXTS, "document")
    assert [path for path in empty_cache.rglob("*") if path.is_file()] == []


def test_no_temporary_files_remain(model, empty_cache):
    encoder(model).encode(TEXTS, "document")
    names = [path.name for path in empty_cache.rglob("*") if path.is_file()]
    assert names == [path.name for path in files(empty_cache)]


def test_what_was_paid_for_is_kept_however_little_and_whatever_the_threads(empty_cache, monkeypatch):
    calls = []

    def compute(block):
        calls.append(len(block))
        return lambda: {"vectors": np.ones((len(block), 2), np.float32)}

    for threads in (1, 2):
        monkeypatch.setattr(cache, "threads", lambda n=threads: n)
        _, found = next(cache.encoded(StringColumn(["a", "b"]), {"model": "m"}, compute, True, paid=True))
        assert len(found["vectors"]) == 2
    assert calls == [2]
    for threads in (1, 2):
        monkeypatch.setattr(cache, "threads", lambda n=threads: n)
        next(cache.encoded(StringColumn(["a", "b"]), {"model": "m"}, compute, True))
    assert calls == [2, 2, 2], "what this machine computes in a moment is not kept"
