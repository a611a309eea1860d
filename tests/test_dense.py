"""Dense vectors are the model's own, whatever the batches; device, dtype and prompts are as the config says."""

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from harness.encoders.dense import DenseEncoder, batches
from harness.errors import ConfigError
from harness.retrievers.dense import Dense
from harness.types import Corpus, Queries, Strings

TEXTS = ["short", "", "a sentence of some more words than that", "long " * 600, "日本語 and English", "x"]


@pytest.fixture(scope="module")
def folder(models):
    return models / "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def peer(folder):
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def prompted(folder, tmp_path):
    """The same weights with prompts of their own."""
    copy = tmp_path / "prompted"
    shutil.copytree(folder.resolve(), copy)
    config = json.loads((copy / "config_sentence_transformers.json").read_text())
    config |= {"prompts": {"query": "ask: ", "passage": "say: "}, "default_prompt_name": None}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize("budget", [None, 1, 300, 100_000])
def test_vectors_are_those_of_sentence_transformers_whatever_the_budget(folder, peer, budget):
    encoder = DenseEncoder(str(folder), device="cpu", batch_tokens=budget)
    ours = encoder.encode(Strings(TEXTS), "document")
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), peer.encode(TEXTS), atol=2e-6)


def test_a_models_own_prompts_are_used_and_the_config_goes_before_them(prompted, peer):
    own = DenseEncoder(str(prompted), device="cpu")
    set_ = DenseEncoder(str(prompted), device="cpu", query_prompt="look for ", document_prompt="")
    for encoder, side, said in (
        (own, "query", "ask: "),
        (own, "document", "say: "),
        (set_, "query", "look for "),
        (set_, "document", ""),
    ):
        found = encoder.encode(Strings(["cats and dogs"]), side)
        np.testing.assert_allclose(found.numpy(), peer.encode([f"{said}cats and dogs"]), atol=2e-6)


def test_max_length_cuts_the_texts(folder, peer):
    cut = DenseEncoder(str(folder), device="cpu", max_length=4).encode(Strings(["one two three four five"]), "document")
    np.testing.assert_allclose(cut.numpy(), peer.encode(["one two"]), atol=2e-6)  # with [CLS] and [SEP]


def test_bfloat16_is_near_and_is_scored_in_float32(folder):
    exact = DenseEncoder(str(folder), device="cpu").encode(Strings(TEXTS), "document")
    near = DenseEncoder(str(folder), device="cpu", dtype="bfloat16").encode(Strings(TEXTS), "document")
    assert near.dtype == torch.float32
    assert 0.99 < float((exact * near).sum(dim=1).min()) < 1.01
    assert not torch.equal(exact, near)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_the_ranking_is_that_of_the_cpu(folder):
    texts = [f"{text} {number}" for number in range(50) for text in TEXTS]
    corpus, queries = Corpus(map(str, range(len(texts))), texts), Queries(["q"], ["some words"])
    runs = []
    for device, dtype in (("cpu", "float32"), ("cuda", "float32")):
        retriever = Dense(DenseEncoder(str(folder), device=device, dtype=dtype))
        retriever.index(corpus)
        runs.append(retriever.search(queries, 10))
    np.testing.assert_allclose(runs[0].scores, runs[1].scores, atol=1e-4)


def test_batches_cover_every_row_once_by_length_under_the_budget():
    lengths = np.random.default_rng(0).integers(1, 300, 500)
    made = list(batches(lengths, 2048))
    assert sorted(np.concatenate(made).tolist()) == list(range(500))
    for rows in made:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= 2048
    assert [lengths[rows].max() for rows in made] == sorted((lengths[rows].max() for rows in made), reverse=True)
    assert [rows.tolist() for rows in batches(np.array([5, 9000, 5]), 100)] == [[1], [0, 2]]


def test_no_texts_give_no_vectors_of_the_right_width(folder):
    assert DenseEncoder(str(folder), device="cpu").encode(Strings([]), "document").shape == (0, 384)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "int3"}, "encoder.dtype='int3'; choices: auto, float32, bfloat16, float16"),
        ({"device": "gpu"}, "encoder.device='gpu'; choices: auto, cpu, cuda, cuda:0, mps"),
        ({"max_length": 0}, "encoder.max_length=0 must be at least 1"),
        ({"batch_tokens": -1}, "encoder.batch_tokens=-1 must be at least 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_weights_are_looked_for(settings, said):
    with pytest.raises(ConfigError) as error:
        DenseEncoder("org/name", **settings)
    assert str(error.value) == said
