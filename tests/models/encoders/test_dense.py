"""Tests of the dense encoder: vectors, pooling, dimensions, normalisation, static models, prompts and instructions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from support.command_line import harness
from support.datasets import write_beir
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModel, AutoTokenizer

from harness.config import build
from harness.encoders.dense import DenseEncoder
from harness.encoders.runtime.batching import batches
from harness.errors import ConfigError
from harness.instrument import recording
from harness.leaderboard import build as build_leaderboard
from harness.retrievers.dense import Dense
from harness.store import Store
from harness.types import Corpus, Queries, StringColumn

TEXTS = ["short", "", "a sentence of some more words than that", "long " * 600, "日本語 and English", "x"]


@pytest.fixture(scope="module")
def folder(models):
    return models / "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def peer(folder):
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def prompted(folder, tmp_path):
    """Return a copy of MiniLM with a query prompt and a document prompt in its config."""
    copy = tmp_path / "prompted"
    shutil.copytree(folder.resolve(), copy)
    config = json.loads((copy / "config_sentence_transformers.json").read_text())
    config |= {"prompts": {"query": "ask: ", "passage": "say: "}, "default_prompt_name": None}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize("budget", [None, 1, 300, 100_000])
def test_vectors_equal_sentence_transformers_for_any_batch_size(folder, peer, budget):
    encoder = DenseEncoder(str(folder), device="cpu", batch_tokens=budget)
    vectors = encoder.encode(StringColumn(TEXTS), "document")
    assert vectors.dtype == torch.float32
    np.testing.assert_allclose(vectors.numpy(), peer.encode(TEXTS), atol=2e-6)


def test_prompts_of_the_model_are_used_unless_the_config_has_others(prompted, peer):
    with_model_prompts = DenseEncoder(str(prompted), device="cpu")
    with_config_prompts = DenseEncoder(str(prompted), device="cpu", query_prompt="look for ", document_prompt="")
    for encoder, side, prompt in (
        (with_model_prompts, "query", "ask: "),
        (with_model_prompts, "document", "say: "),
        (with_config_prompts, "query", "look for "),
        (with_config_prompts, "document", ""),
    ):
        vectors = encoder.encode(StringColumn(["cats and dogs"]), side)
        np.testing.assert_allclose(vectors.numpy(), peer.encode([f"{prompt}cats and dogs"]), atol=2e-6)


def test_max_length_truncates_texts(folder, peer):
    truncated = DenseEncoder(str(folder), device="cpu", max_length=4).encode(
        StringColumn(["one two three four five"]), "document"
    )
    np.testing.assert_allclose(truncated.numpy(), peer.encode(["one two"]), atol=2e-6)  # with [CLS] and [SEP]


def test_bfloat16_vectors_are_close_and_returned_as_float32(folder):
    exact = DenseEncoder(str(folder), device="cpu").encode(StringColumn(TEXTS), "document")
    rounded = DenseEncoder(str(folder), device="cpu", dtype="bfloat16").encode(StringColumn(TEXTS), "document")
    assert rounded.dtype == torch.float32
    assert 0.99 < float((exact * rounded).sum(dim=1).min()) < 1.01
    assert not torch.equal(exact, rounded)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_scores_on_a_gpu_equal_those_on_the_cpu(folder):
    texts = [f"{text} {number}" for number in range(50) for text in TEXTS]
    corpus, queries = Corpus(map(str, range(len(texts))), texts), Queries(["q"], ["some words"])
    runs = []
    for device, dtype in (("cpu", "float32"), ("cuda", "float32")):
        retriever = Dense(DenseEncoder(str(folder), device=device, dtype=dtype))
        retriever.index(corpus)
        runs.append(retriever.search(queries, 10))
    np.testing.assert_allclose(runs[0].scores, runs[1].scores, atol=1e-4)


def test_batches_hold_each_row_once_by_length_within_the_token_limit():
    lengths = np.random.default_rng(0).integers(1, 300, 500)
    row_batches = list(batches(lengths, 2048))
    assert sorted(np.concatenate(row_batches).tolist()) == list(range(500))
    for rows in row_batches:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= 2048
    assert [lengths[rows].max() for rows in row_batches] == sorted(
        (lengths[rows].max() for rows in row_batches), reverse=True
    )
    assert [rows.tolist() for rows in batches(np.array([5, 9000, 5]), 100)] == [[1], [0, 2]]


def test_encoding_no_texts_gives_an_empty_matrix_of_the_right_width(folder):
    assert DenseEncoder(str(folder), device="cpu").encode(StringColumn([]), "document").shape == (0, 384)


@pytest.mark.parametrize(
    ("settings", "value", "choices"),
    [
        ({"dtype": "int3"}, "encoder.dtype='int3'", "choices: auto, float32, bfloat16, float16"),
        ({"device": "gpu"}, "encoder.device='gpu'", "choices: auto, all, cpu, cuda, cuda:1, mps, or a list of them"),
        ({"max_length": 0}, "encoder.max_length=0", "at least 1"),
        ({"batch_tokens": -1}, "encoder.batch_tokens=-1", "at least 1"),
        (
            {"pooling": "average"},
            "encoder.pooling='average'",
            "choices: null, mean, cls, last_token, weighted_mean, max",
        ),
        ({"dimensions": 0}, "encoder.dimensions=0", "at least 1"),
    ],
)
def test_an_invalid_dense_setting_is_refused_before_weights_are_loaded(settings, value, choices):
    with pytest.raises(ConfigError) as error:
        DenseEncoder("org/name", **settings)
    assert value in str(error.value)
    assert choices in str(error.value)


# ----------------------------------------------------------------------------------------------------------- pooling


def hidden_states(folder, texts):
    """Return each text's last hidden states, shape [tokens, dimensions], from transformers, one text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [
            model(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt")).last_hidden_state[0].numpy()
            for text in texts
        ]


def weighted_mean(states):
    weights = np.arange(1, len(states) + 1)[:, None]  # as in SGPT: weight = position
    return (states * weights).sum(axis=0) / weights.sum()


POOLINGS = {
    "mean": lambda states: states.mean(axis=0),
    "cls": lambda states: states[0],
    "last_token": lambda states: states[-1],
    "weighted_mean": weighted_mean,
    "max": lambda states: states.max(axis=0),
}


@pytest.fixture(scope="module")
def states(folder):
    return hidden_states(folder, TEXTS)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_pooling_equals_its_formula_over_the_last_hidden_states(folder, states, pooling):
    encoder = DenseEncoder(str(folder), device="cpu", pooling=pooling, max_length=256, normalize=False)
    # MiniLM has a Normalize module after the pooling, which `normalize=False` does not remove
    expected = np.stack([POOLINGS[pooling](matrix) for matrix in states])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(StringColumn(TEXTS), "document").numpy(), expected, atol=2e-6)


def test_pooling_is_refused_for_a_model_without_a_pooling_module(static):
    with pytest.raises(ConfigError) as error:
        DenseEncoder(str(static), device="cpu", pooling="cls").encode(StringColumn(["x"]), "query")
    assert "encoder.pooling='cls'" in str(error.value)
    assert "no pooling" in str(error.value)


# ----------------------------------------------------------------------------------------- dimensions, normalisation


FEW = TEXTS[:3]


@pytest.fixture
def without_normalize(folder, tmp_path):
    """Return a function that writes MiniLM without its Normalize module and with another similarity function."""

    def write(similarity):
        copy = tmp_path / f"bare-{similarity}"
        shutil.copytree(folder.resolve(), copy, copy_function=lambda source, to: Path(to).symlink_to(source))
        config = json.loads((copy / "config_sentence_transformers.json").read_text())
        for name, content in (
            ("modules.json", json.loads((copy / "modules.json").read_text())[:2]),
            ("config_sentence_transformers.json", config | {"similarity_fn_name": similarity}),
        ):
            (copy / name).unlink()
            (copy / name).write_text(json.dumps(content))
        return copy

    return write


@pytest.mark.parametrize("n", [1, 64, 384])
def test_dimensions_truncate_vectors_and_normalise_them_again(folder, peer, n):
    vectors = DenseEncoder(str(folder), device="cpu", dimensions=n).encode(StringColumn(FEW), "document").numpy()
    expected = peer.encode(FEW)[:, :n]
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=2e-6)
    np.testing.assert_allclose(vectors, peer.encode(FEW, truncate_dim=n, normalize_embeddings=True), atol=2e-6)


def test_fewer_dimensions_take_less_memory_in_a_search(folder):
    corpus = Corpus(map(str, range(len(FEW))), FEW)
    whole, truncated = (Dense(DenseEncoder(str(folder), device="cpu", dimensions=n)) for n in (None, 96))
    for retriever in (whole, truncated):
        retriever.index(corpus)
    assert truncated.nbytes() * 4 == whole.nbytes() == len(FEW) * 384 * 4
    run = truncated.search(Queries(["q"], [FEW[2]]), 3)
    assert run.hits(0)[0][0] == "2"
    assert run.scores[0, 0] == pytest.approx(1, abs=1e-5)
    assert DenseEncoder(str(folder), device="cpu", dimensions=96).encode(StringColumn([]), "query").shape == (0, 96)


def test_more_dimensions_than_the_model_has_are_refused(folder):
    with pytest.raises(ConfigError) as error:
        DenseEncoder(str(folder), device="cpu", dimensions=385).encode(StringColumn(["x"]), "query")
    assert "encoder.dimensions=385" in str(error.value)
    assert "384" in str(error.value)


@pytest.mark.parametrize(
    ("similarity", "normalize", "is_unit"),
    [
        ("cosine", None, True),
        ("cosine", True, True),
        ("cosine", False, False),
        ("dot", None, False),
        ("dot", True, True),
        ("dot", False, False),
        ("euclidean", True, True),
        ("euclidean", False, False),
    ],
)
def test_normalisation_follows_the_similarity_unless_it_is_set(without_normalize, peer, similarity, normalize, is_unit):
    folder = without_normalize(similarity)
    vectors = DenseEncoder(str(folder), device="cpu", normalize=normalize).encode(StringColumn(FEW), "document").numpy()
    raw = SentenceTransformer(str(folder), device="cpu").encode(FEW)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=0.1)
    np.testing.assert_allclose(vectors, peer.encode(FEW) if is_unit else raw, atol=1e-5)


def test_a_similarity_other_than_cosine_or_dot_is_refused(without_normalize):
    with pytest.raises(ConfigError) as error:
        DenseEncoder(str(without_normalize("manhattan")), device="cpu").encode(StringColumn(["x"]), "query")
    for part in ("'manhattan'", "cosine or dot", "retriever.encoder.normalize=true"):
        assert part in str(error.value)


# ------------------------------------------------------------------------------------------------------------ static

WORDS = ["[UNK]", "cat", "cats", "dog", "dogs", "bread", "water", "flour", "and", "moon", "of", "##s", "purr", "bark"]
STATIC_TEXTS = ["cats and dogs", "", "the moon", "bread of flour and water " * 9, "zzyzx", "cat cats"]


def word_pieces(max_tokens=None):
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer


@pytest.fixture
def static(tmp_path):
    """Write a static model of 64 dimensions as sentence-transformers does, without a Normalize module."""
    weights = torch.randn(len(WORDS), 64, generator=torch.Generator().manual_seed(0))
    model = SentenceTransformer(modules=[StaticEmbedding(word_pieces(), embedding_weights=weights)], device="cpu")
    model.save(str(tmp_path / "static"))
    return tmp_path / "static"


@pytest.fixture
def potion(tmp_path):
    """Write a static model in the layout of model2vec's potion-base-8M; its tokenizer truncates at 8 tokens."""
    folder = tmp_path / "potion"
    (folder / "1_Normalize").mkdir(parents=True)
    module = "sentence_transformers.models"
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "name": "0", "path": ".", "type": f"{module}.StaticEmbedding"},
                {"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{module}.Normalize"},
            ]
        )
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True, "hidden_dim": 32}))
    weights = torch.randn(len(WORDS), 32, generator=torch.Generator().manual_seed(1))
    save_file({"embeddings": weights}, folder / "model.safetensors")
    word_pieces(max_tokens=8).save(str(folder / "tokenizer.json"))
    return folder


def mean_vectors(weights, texts):
    """Return the mean of the vectors of each text's tokens; the zero vector for a text without tokens."""
    means = []
    for text in texts:
        ids = word_pieces().encode(text, add_special_tokens=False).ids
        means.append(weights[ids].mean(axis=0) if ids else np.zeros(weights.shape[1]))
    return np.stack(means)


@pytest.mark.parametrize("budget", [None, 5, 262144])
def test_static_vectors_equal_sentence_transformers_and_token_means(static, budget):
    peer = SentenceTransformer(str(static), device="cpu")
    encoder = DenseEncoder(str(static), device="cpu", batch_tokens=budget, normalize=False)
    vectors = encoder.encode(StringColumn(STATIC_TEXTS), "document").numpy()
    np.testing.assert_allclose(vectors, peer.encode(STATIC_TEXTS), atol=1e-6)
    np.testing.assert_allclose(
        vectors, mean_vectors(peer[0].embedding.weight.detach().numpy(), STATIC_TEXTS), atol=1e-6
    )
    cosine = DenseEncoder(str(static), device="cpu").encode(StringColumn(STATIC_TEXTS), "document").numpy()
    np.testing.assert_allclose(cosine, peer.encode(STATIC_TEXTS, normalize_embeddings=True), atol=1e-6)


def test_a_model2vec_model_is_read_and_truncates_as_its_tokenizer_does(potion):
    peer = SentenceTransformer(str(potion), device="cpu")
    assert isinstance(peer[1], Normalize)
    vectors = DenseEncoder(str(potion), device="cpu").encode(StringColumn(STATIC_TEXTS), "document").numpy()
    np.testing.assert_allclose(vectors, peer.encode(STATIC_TEXTS), atol=1e-6)
    weights = peer[0].embedding.weight.detach().numpy()
    mean_of_eight = mean_vectors(weights, ["bread of flour and water bread of flour"])[0]
    np.testing.assert_allclose(vectors[3], mean_of_eight / np.linalg.norm(mean_of_eight), atol=1e-6)


def test_a_static_model_is_indexed_and_searched_by_dense(potion, empty_cache):
    overrides = ["retriever=static_potion", f"retriever.encoder.model={potion}", "retriever.encoder.dimensions=16"]
    retriever = build.construct(build.composed(overrides)["retriever"], "retriever")
    retriever.index(Corpus(["1", "2", "3"], ["cats purr", "dogs bark", "bread"]))
    with recording() as recorder:
        run = retriever.search(Queries(["q", "none"], ["dogs", ""]), 2)
    assert run.hits(0)[0][0] == "2"
    assert (retriever.nbytes(), recorder.encoders[""]["max_length"]) == (3 * 16 * 4, None)
    assert run.hits(1)[1].tolist() == [0, 0]


def test_max_length_is_refused_for_a_static_model_without_truncation(static):
    with pytest.raises(ConfigError) as error:
        DenseEncoder(str(static), device="cpu", max_length=5).encode(StringColumn(["x"]), "query")
    assert "encoder.max_length=5" in str(error.value)
    assert "set it to null" in str(error.value)


# ------------------------------------------------------------------------------------------------------ instructions

INSTRUCTION_PROMPT = "Instruct: {}\nQuery: "


def test_the_instruction_of_a_dataset_becomes_the_query_prompt():
    config = build.composed(["retriever=e5_instruct", "dataset=scifact"])["retriever"]
    instruction = "Given a scientific claim, retrieve documents that support or refute the claim"
    assert config["encoder"]["query_prompt"] == INSTRUCTION_PROMPT.format(instruction)
    assert config["encoder"]["document_prompt"] is None
    assert build.construct(config, "retriever")


@pytest.fixture
def run_instructed(folder, tmp_path, empty_cache, monkeypatch):
    """Return a function that runs retriever=e5_instruct with MiniLM's weights and returns the exit code and stderr."""
    for name in ("made", "other"):
        write_beir(tmp_path / name)
    monkeypatch.chdir(tmp_path)

    def run(capsys, *arguments):
        model = ["retriever=e5_instruct", f"retriever.encoder.model={folder}", "timing.latency_queries=1"]
        rest = ["timing.repeats=1", "retriever.encoder.max_length=64"]
        code = harness(monkeypatch, *model, *rest, *arguments)
        return code, capsys.readouterr().err

    return run


def test_a_folder_without_an_instruction_is_refused_with_the_key_to_set(run_instructed, capsys):
    code, stderr = run_instructed(capsys, "dataset=folder", "dataset.path=made")
    assert code == 2
    assert "dataset.instruction" in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_two_datasets_with_different_instructions_share_a_leaderboard_row(run_instructed, capsys):
    for path, instruction in (("made", "Given a question, retrieve the answer"), ("other", "Another")):
        override = f'+dataset.instruction="{instruction}"'
        assert run_instructed(capsys, "dataset=folder", f"dataset.path={path}", override)[0] == 0
    first, second = Store(Path("results")).records()
    prompts = [record.encoders[""].prompts["query"] for record in (first, second)]
    assert prompts == [
        INSTRUCTION_PROMPT.format("Given a question, retrieve the answer"),
        INSTRUCTION_PROMPT.format("Another"),
    ]
    assert set(first.retriever.differences) == {"encoder.model", "encoder.max_length"}
    assert first.retriever.label == second.retriever.label
    assert [row.label for row in build_leaderboard([first, second], "ndcg@10").rows] == [first.retriever.label]


# ------------------------------------------------------------------------------------------------- released vectors


def test_recall_sample_0_releases_the_float32_vectors(folder):
    from harness.search.quantised import Int8

    retriever = Dense(DenseEncoder(str(folder), device="cpu"), Int8(), recall_sample=0)
    retriever.index(Corpus(["a", "b"], ["one", "two"]))
    assert retriever._vectors.untyped_storage().nbytes() == 0
    assert retriever.search(Queries(["q"], ["two"]), 1).hits(0)[0] == ["b"]
    for call, task in (
        (lambda: retriever.score(Queries(["q"], ["two"]), np.array([[0]], np.int32)), "scoring"),
        (lambda: retriever.explain(Queries(["q"], ["two"]), [0]), "explaining"),
    ):
        with pytest.raises(ConfigError) as error:
            call()
        for part in (task, "retriever.recall_sample=0", "set it to 1 or more"):
            assert part in str(error.value)
