"""Tests of `optimize_cpu`: oneDNN's packed linear layers, malloc settings that keep freed memory, and arenas."""

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
def as_amd(monkeypatch):
    """Pack linear layers as on an AMD processor; every x86 processor has oneDNN's product."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        pytest.skip("oneDNN's product on packed weights is for x86 processors")
    monkeypatch.setattr(cpu, "_is_amd", lambda: True)


def encode(kind, folder, **settings):
    encoder = kind(str(folder), device="cpu", cache=False, **settings)
    vectors = encoder.encode(TEXTS, "document")
    return encoder, vectors


def packed_layers(encoder):
    return [name for name, module in encoder._model.named_modules() if cpu.is_packed(module)]


def test_all_linear_layers_are_packed_and_vectors_stay_the_same(tmp_path, monkeypatch, as_amd):
    folder = write_dense(tmp_path / "model")
    encoder, vectors = encode(DenseEncoder, folder)
    linear = [name for name, module in encoder._model.named_modules() if type(module) is nn.Linear]
    assert packed_layers(encoder) == linear
    assert linear
    assert any(
        isinstance(module.intermediate_act_fn, nn.Identity)
        for module in encoder._model.modules()
        if hasattr(module, "intermediate_act_fn")
    )
    monkeypatch.setattr(cpu, "_is_amd", lambda: False)
    unpacked, expected = encode(DenseEncoder, folder)
    assert packed_layers(unpacked) == []
    torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=0)


def test_the_vocabulary_layer_is_packed_and_sparse_vectors_stay_the_same(tmp_path, monkeypatch, as_amd):
    folder = write_masked(tmp_path / "model")
    encoder, rows = encode(SparseEncoder, folder)
    assert any(name.endswith("head") for name in packed_layers(encoder))
    (transform,) = (module for module in encoder._model.modules() if hasattr(module, "transform_act_fn"))
    assert isinstance(transform.transform_act_fn, nn.Identity)
    monkeypatch.setattr(cpu, "_is_amd", lambda: False)
    _, expected = encode(SparseEncoder, folder)
    assert rows.terms.tolist() == expected.terms.tolist()
    np.testing.assert_allclose(rows.weights, expected.weights, atol=1e-5)


@pytest.mark.parametrize(("function", "fused"), [("gelu", True), ("gelu_new", False), ("relu", False)])
def test_only_exact_gelu_is_fused_into_the_linear_layer(as_amd, function, fused):
    torch.manual_seed(0)
    network = DistilBertModel(
        DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=1, n_heads=2, activation=function)
    ).eval()
    tokens = {"input_ids": torch.arange(1, 13).reshape(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    with torch.inference_mode():
        expected = network(**tokens).last_hidden_state
        cpu.pack_linear_layers(network)
        cpu.pack_linear_layers(network)  # packed layers stay as they are
        states = network(**tokens).last_hidden_state
    assert isinstance(network.transformer.layer[0].ffn.activation, nn.Identity) is fused
    torch.testing.assert_close(states, expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_layers_are_not_packed_on_intel_in_bfloat16_or_with_openvino(tmp_path, as_amd, monkeypatch):
    folder = write_dense(tmp_path / "model")
    assert packed_layers(encode(DenseEncoder, folder, dtype="bfloat16")[0]) == []
    assert packed_layers(encode(DenseEncoder, folder, backend="openvino")[0]) == []
    monkeypatch.setattr(cpu, "_is_amd", lambda: False)
    assert packed_layers(encode(DenseEncoder, folder)[0]) == []


def test_layers_are_not_packed_if_memory_cannot_hold_a_copy_of_the_weights(tmp_path, as_amd, monkeypatch):
    monkeypatch.setattr(storage, "free_memory", lambda: 1000)
    assert packed_layers(encode(DenseEncoder, write_dense(tmp_path / "model"))[0]) == []


@pytest.mark.parametrize(
    ("is_amd", "settings", "layers"),
    [
        (True, {}, "onednn"),
        (False, {}, None),
        (True, {"optimize_cpu": False}, None),
        (True, {"dtype": "bfloat16"}, None),
    ],
)
def test_optimize_cpu_and_the_linear_layers_are_recorded(tmp_path, as_amd, monkeypatch, is_amd, settings, layers):
    monkeypatch.setattr(cpu, "_is_amd", lambda: is_amd)
    with instrument.recording() as recorder:
        encode(DenseEncoder, write_dense(tmp_path / "model"), **settings)
    assert recorder.encoders[""]["optimize_cpu"] is settings.get("optimize_cpu", True)
    assert recorder.encoders[""]["linear_layers"] == layers


@pytest.mark.parametrize("settings", [{}, {"optimize_cpu": False}])
def test_optimize_cpu_switches_layers_malloc_and_arenas_together(tmp_path, as_amd, monkeypatch, settings):
    folder, calls = write_dense(tmp_path / "model"), []
    open_model, copy = DenseEncoder.open, cpu.Arena.copy
    monkeypatch.setattr(cpu, "keep_freed_memory", lambda: calls.append("malloc"))
    monkeypatch.setattr(DenseEncoder, "open", lambda *arguments: calls.append("open") or open_model(*arguments))
    monkeypatch.setattr(cpu.Arena, "copy", lambda *arguments: calls.append("copy") or copy(*arguments))
    encoder, vectors = encode(DenseEncoder, folder, **settings)
    optimized = settings.get("optimize_cpu", True)
    assert calls[:2] == (["malloc", "open"] if optimized else ["open"]), "malloc is set before the model is loaded"
    assert ("copy" in calls) is optimized
    assert bool(packed_layers(encoder)) is optimized
    expected = SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS), normalize_embeddings=True)
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-6)


def test_a_wrapped_model_gets_malloc_settings_and_keeps_its_linear_layers(tmp_path, as_amd, monkeypatch):
    folder, calls = write_dense(tmp_path / "model"), []
    monkeypatch.setattr(cpu, "keep_freed_memory", lambda: calls.append("malloc"))
    for optimize_cpu in (True, False):
        encoder = DenseEncoder(str(folder), device="cpu", cache=False, optimize_cpu=optimize_cpu)
        encoder.wrap(SentenceTransformer(str(folder), device="cpu"))
        encoder.encode(TEXTS, "document")
        assert packed_layers(encoder) == []
        assert calls == ["malloc"]


def test_gemm_peak_measures_the_packed_layer_for_float32_only(as_amd, monkeypatch):
    shapes = []
    packed_linear = cpu.packed_linear
    monkeypatch.setattr(cpu, "packed_linear", lambda weight: shapes.append(weight.shape) or packed_linear(weight))
    assert mfu.gemm_peak("cpu", torch.float32) > 0
    assert mfu.gemm_peak("cpu", torch.bfloat16) > 0
    assert shapes == [(1024, 1024)]


def test_pickling_a_used_encoder_leaves_out_its_weights(tmp_path, as_amd):
    encoder, expected = encode(DenseEncoder, write_dense(tmp_path / "model"))
    unpickled = pickle.loads(pickle.dumps(encoder))
    assert unpickled._model is None
    torch.testing.assert_close(unpickled.encode(TEXTS, "document"), expected, atol=0, rtol=0)


PAGE_FAULTS = """
import ctypes, resource, sys, torch
from harness.encoders.runtime.cpu import keep_freed_memory
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # no huge pages, which would count as one fault each
libc.mallopt(-3, 65536)  # without the settings, each array is mapped and unmapped
if sys.argv[1] == "keep":
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


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these malloc settings")
def test_freed_memory_is_reused_without_page_faults():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def fault_bytes(mode, **variables):
        command = [sys.executable, "-c", PAGE_FAULTS, mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment | variables)
        return int(done.stdout) * resource.getpagesize()

    assert fault_bytes("keep") < 20 << 20
    assert fault_bytes("return") > 200 << 20
    assert fault_bytes("keep", MALLOC_TOP_PAD_="0") > 200 << 20, "a MALLOC_ variable of the user is not overridden"


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


def test_bm25_imports_neither_torch_nor_the_malloc_settings():
    done = subprocess.run([sys.executable, "-c", BM25_ONLY], capture_output=True, text=True, check=True)
    value, *modules = done.stdout.split()
    assert float(value) == 1
    assert not {"torch", cpu.__name__} & set(modules)


def test_an_arena_copies_arrays_next_to_each_other():
    arena, rng = cpu.Arena(), np.random.default_rng(0)
    arrays = [
        rng.random((3, 5), np.float32),
        rng.integers(0, 9, 7).astype(np.int64),
        np.empty((0, 4), np.float16),
        np.array(2.5),
        rng.random((2000, 1200)),  # more than a block
        rng.random((4, 3), np.float32)[:, ::2],
    ]
    copies = [arena.copy(array) for array in arrays]
    for array_copy, array in zip(copies, arrays, strict=True):
        assert array_copy.dtype == array.dtype
        assert not np.shares_memory(array_copy, array)
        np.testing.assert_array_equal(array_copy, array)
    assert copies[0].__array_interface__["data"][0] + 64 == copies[1].__array_interface__["data"][0]
    copies[0][:] = 1
    np.testing.assert_array_equal(copies[1], arrays[1])


def test_an_arena_copies_tensors_and_tuples_and_returns_other_values_unchanged():
    rows, tensor = np.arange(3), torch.rand(3, 2)
    copied = cpu.Arena().copy((rows, (tensor, 7)))
    assert torch.equal(copied[1][0], tensor)
    assert copied[1][0].data_ptr() != tensor.data_ptr()
    assert copied[1][1] == 7
    np.testing.assert_array_equal(copied[0], rows)
