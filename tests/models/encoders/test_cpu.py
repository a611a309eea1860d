"""`optimize_cpu`: oneDNN's layers give the numbers of torch's, freed memory is kept, arenas hold small results."""

import os
import pickle
import platform
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from support.models import write_dense, write_masked
from torch import nn
from transformers import DistilBertConfig, DistilBertModel

from harness import instrument
from harness.encoders.dense import DenseEncoder
from harness.encoders.runtime import cpu, mfu, storage
from harness.encoders.sparse import SparseEncoder
from harness.types import StringColumn

TEXTS = StringColumn(["a short text", "b", "", "another text that is longer than the first one by far", "c d e f g"])


@pytest.fixture
def amd(monkeypatch):
    """oneDNN's product is on every x86 processor; which is quicker is another matter."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        pytest.skip("oneDNN's product on packed weights is for x86 processors")
    monkeypatch.setattr(cpu, "_is_amd", lambda: True)


def encoded(kind, folder, **settings):
    encoder = kind(str(folder), device="cpu", cache=False, **settings)
    found = encoder.encode(TEXTS, "document")
    return encoder, found


def packed_layers(encoder):
    return [name for name, module in encoder._model.named_modules() if cpu.is_packed(module)]


def test_every_layer_is_packed_and_the_vectors_are_the_same(tmp_path, monkeypatch, amd):
    folder = write_dense(tmp_path / "model")
    encoder, found = encoded(DenseEncoder, folder)
    linear = [name for name, module in encoder._model.named_modules() if type(module) is nn.Linear]
    assert packed_layers(encoder) == linear
    assert linear
    assert any(
        isinstance(module.intermediate_act_fn, nn.Identity)
        for module in encoder._model.modules()
        if hasattr(module, "intermediate_act_fn")
    )
    monkeypatch.setattr(cpu, "_is_amd", lambda: False)
    plain, expected = encoded(DenseEncoder, folder)
    assert packed_layers(plain) == []
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_vocabulary_layer_is_packed_and_the_terms_are_the_same(tmp_path, monkeypatch, amd):
    folder = write_masked(tmp_path / "model")
    encoder, found = encoded(SparseEncoder, folder)
    assert any(name.endswith("head") for name in packed_layers(encoder))
    (transform,) = (own for own in encoder._model.modules() if hasattr(own, "transform_act_fn"))
    assert isinstance(transform.transform_act_fn, nn.Identity)
    monkeypatch.setattr(cpu, "_is_amd", lambda: False)
    _, expected = encoded(SparseEncoder, folder)
    assert found.terms.tolist() == expected.terms.tolist()
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-5)


@pytest.mark.parametrize(("function", "fused"), [("gelu", True), ("gelu_new", False), ("relu", False)])
def test_only_the_exact_gelu_is_taken_into_the_product(amd, function, fused):
    torch.manual_seed(0)
    network = DistilBertModel(
        DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=1, n_heads=2, activation=function)
    ).eval()
    tokens = {"input_ids": torch.arange(1, 13).reshape(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    with torch.inference_mode():
        expected = network(**tokens).last_hidden_state
        cpu.pack_linear_layers(network)
        cpu.pack_linear_layers(network)  # packed layers stay as they are
        found = network(**tokens).last_hidden_state
    assert isinstance(network.transformer.layer[0].ffn.activation, nn.Identity) is fused
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_intels_processors_and_other_precisions_keep_torchs_own(tmp_path, amd, monkeypatch):
    folder = write_dense(tmp_path / "model")
    assert packed_layers(encoded(DenseEncoder, folder, dtype="bfloat16")[0]) == []
    assert packed_layers(encoded(DenseEncoder, folder, backend="openvino")[0]) == []
    monkeypatch.setattr(cpu, "_is_amd", lambda: False)
    assert packed_layers(encoded(DenseEncoder, folder)[0]) == []


def test_weights_that_memory_would_not_hold_twice_stay_as_they_are(tmp_path, amd, monkeypatch):
    monkeypatch.setattr(storage, "free_memory", lambda: 1000)
    assert packed_layers(encoded(DenseEncoder, write_dense(tmp_path / "model"))[0]) == []


@pytest.mark.parametrize(
    ("is_amd", "settings", "layers"),
    [
        (True, {}, "onednn"),
        (False, {}, None),
        (True, {"optimize_cpu": False}, None),
        (True, {"dtype": "bfloat16"}, None),
    ],
)
def test_the_record_shows_the_setting_and_the_layers(tmp_path, amd, monkeypatch, is_amd, settings, layers):
    monkeypatch.setattr(cpu, "_is_amd", lambda: is_amd)
    with instrument.recording() as recorder:
        encoded(DenseEncoder, write_dense(tmp_path / "model"), **settings)
    assert recorder.encoders[""]["optimize_cpu"] is settings.get("optimize_cpu", True)
    assert recorder.encoders[""]["linear_layers"] == layers


@pytest.mark.parametrize("settings", [{}, {"optimize_cpu": False}])
def test_one_key_switches_layers_malloc_and_arenas_together(tmp_path, amd, monkeypatch, settings):
    folder, calls = write_dense(tmp_path / "model"), []
    open_model, copy = DenseEncoder.open, cpu.Arena.copy
    monkeypatch.setattr(cpu, "keep_freed_memory", lambda: calls.append("malloc"))
    monkeypatch.setattr(DenseEncoder, "open", lambda *arguments: calls.append("open") or open_model(*arguments))
    monkeypatch.setattr(cpu.Arena, "copy", lambda *arguments: calls.append("copy") or copy(*arguments))
    encoder, vectors = encoded(DenseEncoder, folder, **settings)
    optimized = settings.get("optimize_cpu", True)
    assert calls[:2] == (["malloc", "open"] if optimized else ["open"]), "malloc is set before anything is allocated"
    assert ("copy" in calls) is optimized
    assert bool(packed_layers(encoder)) is optimized
    expected = SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS), normalize_embeddings=True)
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-6)


def test_a_wrapped_model_has_arenas_and_malloc_settings_but_its_own_layers(tmp_path, amd, monkeypatch):
    folder, calls = write_dense(tmp_path / "model"), []
    monkeypatch.setattr(cpu, "keep_freed_memory", lambda: calls.append("malloc"))
    for optimize_cpu in (True, False):
        encoder = DenseEncoder(str(folder), device="cpu", cache=False, optimize_cpu=optimize_cpu)
        encoder.wrap(SentenceTransformer(str(folder), device="cpu"))
        encoder.encode(TEXTS, "document")
        assert packed_layers(encoder) == []
        assert calls == ["malloc"]


def test_the_machines_product_is_the_one_that_the_layers_use(amd, monkeypatch):
    seen = []
    packed_linear = cpu.packed_linear
    monkeypatch.setattr(cpu, "packed_linear", lambda weight: seen.append(weight.shape) or packed_linear(weight))
    assert mfu.gemm_peak("cpu", torch.float32) > 0
    assert mfu.gemm_peak("cpu", torch.bfloat16) > 0
    assert seen == [(1024, 1024)]


def test_an_encoder_that_was_used_is_sent_without_its_weights(tmp_path, amd):
    encoder, found = encoded(DenseEncoder, write_dense(tmp_path / "model"))
    again = pickle.loads(pickle.dumps(encoder))
    assert again._model is None
    torch.testing.assert_close(again.encode(TEXTS, "document"), found, atol=0, rtol=0)


FAULTS = """
import ctypes, resource, sys, torch
from harness.encoders.runtime.cpu import keep_freed_memory
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # pages of 4 KiB: a huge one is one fault
libc.mallopt(-3, 65536)  # every layer's arrays come from the system and go back
if sys.argv[1] == "kept":
    keep_freed_memory()
def work():
    for _ in range(20):
        narrow, wide = torch.ones(750_000), torch.ones(3_000_000)
        after = wide + 1
        back = after[: len(narrow)] + narrow
        del narrow, wide, after, back
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told to keep memory")
def test_freed_memory_is_kept_for_the_next_layer():
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def faults(how, **variables):
        words = [sys.executable, "-c", FAULTS, how]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=plain | variables)
        return int(done.stdout) * resource.getpagesize()

    assert faults("kept") < 20 << 20
    assert faults("given back") > 200 << 20
    assert faults("kept", MALLOC_TOP_PAD_="0") > 200 << 20, "the user's own choice stays"


BM25_ONLY = """
import sys
from harness.evaluation.timing import TimingPlan, measure
from harness.retrievers.bm25 import BM25
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Dataset, Qrels, Queries
corpus, queries = Corpus(["a", "b"], ["red fox", "blue sky"]), Queries(["q"], ["red"])
dataset = Dataset("made", "test", corpus, queries, Qrels({"q": {"a": 1}}))
measured = measure(BM25(Tokenizer()), dataset, k=2, metrics=["ndcg@2"], plan=TimingPlan())
print(measured.means["ndcg@2"], *sys.modules)
"""


def test_bm25_alone_loads_neither_torch_nor_the_malloc_settings():
    done = subprocess.run([sys.executable, "-c", BM25_ONLY], capture_output=True, text=True, check=True)
    value, *modules = done.stdout.split()
    assert float(value) == 1
    assert not {"torch", cpu.__name__} & set(modules)


def test_an_arena_holds_copies_that_lie_together():
    arena, rng = cpu.Arena(), np.random.default_rng(0)
    given = [
        rng.random((3, 5), np.float32),
        rng.integers(0, 9, 7).astype(np.int64),
        np.empty((0, 4), np.float16),
        np.array(2.5),
        rng.random((2000, 1200)),  # more than a block
        rng.random((4, 3), np.float32)[:, ::2],
    ]
    kept = [arena.copy(array) for array in given]
    for own, array in zip(kept, given, strict=True):
        assert own.dtype == array.dtype
        assert not np.shares_memory(own, array)
        np.testing.assert_array_equal(own, array)
    assert kept[0].__array_interface__["data"][0] + 64 == kept[1].__array_interface__["data"][0]
    kept[0][:] = 1
    np.testing.assert_array_equal(kept[1], given[1])


def test_an_arena_copies_tensors_and_tuples_and_leaves_the_rest():
    rows, tensor = np.arange(3), torch.rand(3, 2)
    kept = cpu.Arena().copy((rows, (tensor, 7)))
    assert torch.equal(kept[1][0], tensor)
    assert kept[1][0].data_ptr() != tensor.data_ptr()
    assert kept[1][1] == 7
    np.testing.assert_array_equal(kept[0], rows)
