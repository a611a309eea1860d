"""Dense vectors are the model's own, whatever the batches; device, dtype and prompts are as the config says."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from support.datasets import write_beir
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModel, AutoTokenizer

from harness import __main__
from harness.config import build
from harness.encoders.dense import DenseEncoder
from harness.encoders.runtime.batching import batches
from harness.errors import ConfigError
from harness.instrument import recording
from harness.leaderboard import build as build_board
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
    ours = encoder.encode(StringColumn(TEXTS), "document")
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
        found = encoder.encode(StringColumn(["cats and dogs"]), side)
        np.testing.assert_allclose(found.numpy(), peer.encode([f"{said}cats and dogs"]), atol=2e-6)


def test_max_length_cuts_the_texts(folder, peer):
    cut = DenseEncoder(str(folder), device="cpu", max_length=4).encode(
        StringColumn(["one two three four five"]), "document"
    )
    np.testing.assert_allclose(cut.numpy(), peer.encode(["one two"]), atol=2e-6)  # with [CLS] and [SEP]


def test_bfloat16_is_near_and_is_scored_in_float32(folder):
    exact = DenseEncoder(str(folder), device="cpu").encode(StringColumn(TEXTS), "document")
    near = DenseEncoder(str(folder), device="cpu", dtype="bfloat16").encode(StringColumn(TEXTS), "document")
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
    assert DenseEncoder(str(folder), device="cpu").encode(StringColumn([]), "document").shape == (0, 384)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "int3"}, "encoder.dtype='int3'; choices: auto, float32, bfloat16, float16"),
        ({"device": "gpu"}, "encoder.device='gpu'; choices: auto, all, cpu, cuda, cuda:1, mps, or a list of them"),
        ({"max_length": 0}, "encoder.max_length=0 must be at least 1"),
        ({"batch_tokens": -1}, "encoder.batch_tokens=-1 must be at least 1"),
        (
            {"pooling": "average"},
            "encoder.pooling='average'; choices: null, mean, cls, last_token, weighted_mean, max",
        ),
        ({"dimensions": 0}, "encoder.dimensions=0 must be at least 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_weights_are_looked_for(settings, said):
    with pytest.raises(ConfigError) as error:
        DenseEncoder("org/name", **settings)
    assert str(error.value) == said


# ----------------------------------------------------------------------------------------------------------- pooling


def hidden_states(folder, texts):
    """Each text's last hidden states [tokens, dimensions] with transformers alone, one text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [
            model(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt")).last_hidden_state[0].numpy()
            for text in texts
        ]


def weighted_mean(states):
    weights = np.arange(1, len(states) + 1)[:, None]  # SGPT: by position
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
def test_a_pooling_is_its_formula_over_the_last_hidden_states(folder, states, pooling):
    encoder = DenseEncoder(str(folder), device="cpu", pooling=pooling, max_length=256, normalize=False)
    # that model has a module of its own that normalises, after the pooling
    expected = np.stack([POOLINGS[pooling](one) for one in states])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(StringColumn(TEXTS), "document").numpy(), expected, atol=2e-6)


def test_a_model_without_pooling_refuses_another(static):
    with pytest.raises(ConfigError) as error:
        DenseEncoder(str(static), device="cpu", pooling="cls").encode(StringColumn(["x"]), "query")
    assert str(error.value) == "encoder.pooling='cls': this model has no pooling to replace"


# ----------------------------------------------------------------------------------------- dimensions, normalisation


FEW = TEXTS[:3]


@pytest.fixture
def bare(folder, tmp_path):
    """MiniLM without the module that normalises, and with the similarity that is asked for."""

    def made(similarity):
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

    return made


@pytest.mark.parametrize("n", [1, 64, 384])
def test_dimensions_are_the_first_of_each_vector_put_to_length_one_again(folder, peer, n):
    found = DenseEncoder(str(folder), device="cpu", dimensions=n).encode(StringColumn(FEW), "document").numpy()
    expected = peer.encode(FEW)[:, :n]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=2e-6)
    np.testing.assert_allclose(found, peer.encode(FEW, truncate_dim=n, normalize_embeddings=True), atol=2e-6)


def test_fewer_dimensions_take_less_memory_and_search_as_they_do(folder):
    corpus = Corpus(map(str, range(len(FEW))), FEW)
    whole, cut = (Dense(DenseEncoder(str(folder), device="cpu", dimensions=n)) for n in (None, 96))
    for retriever in (whole, cut):
        retriever.index(corpus)
    assert cut.nbytes() * 4 == whole.nbytes() == len(FEW) * 384 * 4
    run = cut.search(Queries(["q"], [FEW[2]]), 3)
    assert run.hits(0)[0][0] == "2"
    assert run.scores[0, 0] == pytest.approx(1, abs=1e-5)
    assert DenseEncoder(str(folder), device="cpu", dimensions=96).encode(StringColumn([]), "query").shape == (0, 96)


def test_more_dimensions_than_the_model_has_are_an_error(folder):
    with pytest.raises(ConfigError) as error:
        DenseEncoder(str(folder), device="cpu", dimensions=385).encode(StringColumn(["x"]), "query")
    assert str(error.value) == "encoder.dimensions=385 is more than the model's 384"


@pytest.mark.parametrize(
    ("similarity", "normalize", "of_length_one"),
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
def test_vectors_are_normalised_as_the_similarity_says_or_as_is_chosen(
    bare, peer, similarity, normalize, of_length_one
):
    folder = bare(similarity)
    found = DenseEncoder(str(folder), device="cpu", normalize=normalize).encode(StringColumn(FEW), "document").numpy()
    raw = SentenceTransformer(str(folder), device="cpu").encode(FEW)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=0.1)
    np.testing.assert_allclose(found, peer.encode(FEW) if of_length_one else raw, atol=1e-5)


def test_a_similarity_that_dense_search_does_not_know_is_refused(bare):
    with pytest.raises(ConfigError) as error:
        DenseEncoder(str(bare("manhattan")), device="cpu").encode(StringColumn(["x"]), "query")
    assert str(error.value) == (
        "the model's similarity is 'manhattan', and dense search takes cosine or dot; set "
        "retriever.encoder.normalize=true for the cosine, false for the inner product"
    )


# ------------------------------------------------------------------------------------------------------------ static

WORDS = ["[UNK]", "cat", "cats", "dog", "dogs", "bread", "water", "flour", "and", "moon", "of", "##s", "purr", "bark"]
SAID = ["cats and dogs", "", "the moon", "bread of flour and water " * 9, "zzyzx", "cat cats"]


def word_pieces(most=None):
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if most is not None:
        tokenizer.enable_truncation(most)
    return tokenizer


@pytest.fixture
def static(tmp_path):
    """A static model of 64 dimensions as sentence-transformers writes it; nothing in it normalises."""
    weights = torch.randn(len(WORDS), 64, generator=torch.Generator().manual_seed(0))
    model = SentenceTransformer(modules=[StaticEmbedding(word_pieces(), embedding_weights=weights)], device="cpu")
    model.save(str(tmp_path / "static"))
    return tmp_path / "static"


@pytest.fixture
def potion(tmp_path):
    """A static model as model2vec writes it for sentence-transformers, potion-base-8M's layout; it truncates at 8."""
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
    word_pieces(most=8).save(str(folder / "tokenizer.json"))
    return folder


def by_hand(weights, texts):
    """The mean of the vectors of each text's tokens; a text without tokens is 0."""
    found = []
    for text in texts:
        ids = word_pieces().encode(text, add_special_tokens=False).ids
        found.append(weights[ids].mean(axis=0) if ids else np.zeros(weights.shape[1]))
    return np.stack(found)


@pytest.mark.parametrize("budget", [None, 5, 262144])
def test_a_static_models_vectors_are_the_librarys(static, budget):
    peer = SentenceTransformer(str(static), device="cpu")
    encoder = DenseEncoder(str(static), device="cpu", batch_tokens=budget, normalize=False)
    found = encoder.encode(StringColumn(SAID), "document").numpy()
    np.testing.assert_allclose(found, peer.encode(SAID), atol=1e-6)
    np.testing.assert_allclose(found, by_hand(peer[0].embedding.weight.detach().numpy(), SAID), atol=1e-6)
    cosine = DenseEncoder(str(static), device="cpu").encode(StringColumn(SAID), "document").numpy()
    np.testing.assert_allclose(cosine, peer.encode(SAID, normalize_embeddings=True), atol=1e-6)


def test_a_model2vec_model_is_read_in_its_own_layout_and_cuts_texts_where_its_tokenizer_does(potion):
    peer = SentenceTransformer(str(potion), device="cpu")
    assert isinstance(peer[1], Normalize)
    found = DenseEncoder(str(potion), device="cpu").encode(StringColumn(SAID), "document").numpy()
    np.testing.assert_allclose(found, peer.encode(SAID), atol=1e-6)
    weights = peer[0].embedding.weight.detach().numpy()
    eight = by_hand(weights, ["bread of flour and water bread of flour"])[0]
    np.testing.assert_allclose(found[3], eight / np.linalg.norm(eight), atol=1e-6)


def test_a_static_model_runs_through_dense(potion, empty_cache):
    overrides = ["retriever=static_potion", f"retriever.encoder.model={potion}", "retriever.encoder.dimensions=16"]
    retriever = build.construct(build.composed(overrides)["retriever"], "retriever")
    retriever.index(Corpus(["1", "2", "3"], ["cats purr", "dogs bark", "bread"]))
    with recording() as seen:
        run = retriever.search(Queries(["q", "none"], ["dogs", ""]), 2)
    assert run.hits(0)[0][0] == "2"
    assert (retriever.nbytes(), seen.encoders[""]["max_length"]) == (3 * 16 * 4, None)
    assert run.hits(1)[1].tolist() == [0, 0]


def test_a_static_model_that_reads_everything_takes_no_max_length(static):
    with pytest.raises(ConfigError) as error:
        DenseEncoder(str(static), device="cpu", max_length=5).encode(StringColumn(["x"]), "query")
    assert str(error.value) == "encoder.max_length=5: this model reads texts of any length; set it to null"


# ------------------------------------------------------------------------------------------------------ instructions

ASKS = "Instruct: {}\nQuery: "


def test_an_instruction_of_the_dataset_is_the_words_before_a_query():
    config = build.composed(["retriever=e5_instruct", "dataset=scifact"])["retriever"]
    said = "Given a scientific claim, retrieve documents that support or refute the claim"
    assert config["encoder"]["query_prompt"] == ASKS.format(said)
    assert config["encoder"]["document_prompt"] is None
    assert build.construct(config, "retriever")


@pytest.fixture
def instructed(folder, tmp_path, empty_cache, monkeypatch):
    """The command with MiniLM's weights in e5_instruct's place; gives the code and what was said on stderr."""
    for name in ("made", "other"):
        write_beir(tmp_path / name)
    monkeypatch.chdir(tmp_path)

    def give(capsys, *arguments):
        model = ["retriever=e5_instruct", f"retriever.encoder.model={folder}", "timing.latency_queries=1"]
        rest = ["timing.repeats=1", "retriever.encoder.max_length=64"]
        monkeypatch.setattr(sys, "argv", ["harness", *model, *rest, *arguments])
        with pytest.raises(SystemExit) as stop:
            __main__.main()
        return stop.value.code, capsys.readouterr().err

    return give


def test_a_folder_without_an_instruction_is_told_which_key_to_set(instructed, capsys):
    code, said = instructed(capsys, "dataset=folder", "dataset.path=made")
    assert code == 2
    assert "dataset.instruction" in said
    assert "Traceback" not in said


def test_two_datasets_with_instructions_of_their_own_are_one_row_of_the_board(instructed, capsys):
    for path, said in (("made", "Given a question, retrieve the answer"), ("other", "Another")):
        told = f'+dataset.instruction="{said}"'
        assert instructed(capsys, "dataset=folder", f"dataset.path={path}", told)[0] == 0
    made, other = Store(Path("results")).records()
    asked = [record.encoders[""].prompts["query"] for record in (made, other)]
    assert asked == [ASKS.format("Given a question, retrieve the answer"), ASKS.format("Another")]
    assert set(made.retriever.differences) == {"encoder.model", "encoder.max_length"}
    assert made.retriever.label == other.retriever.label
    assert [row.label for row in build_board([made, other], "ndcg@10").rows] == [made.retriever.label]


# ---------------------------------------------------------------------------------------------- vectors that are let go


def test_an_index_that_is_not_checked_lets_the_float_vectors_go(folder):
    from harness.search.quantised import Int8

    retriever = Dense(DenseEncoder(str(folder), device="cpu"), Int8(), recall_sample=0)
    retriever.index(Corpus(["a", "b"], ["one", "two"]))
    assert retriever._vectors.untyped_storage().nbytes() == 0
    assert retriever.search(Queries(["q"], ["two"]), 1).hits(0)[0] == ["b"]
    for ask, what in (
        (lambda: retriever.score(Queries(["q"], ["two"]), np.array([[0]], np.int32)), "scoring"),
        (lambda: retriever.explain(Queries(["q"], ["two"]), [0]), "explaining"),
    ):
        with pytest.raises(ConfigError) as error:
            ask()
        assert str(error.value) == (
            f"{what} needs the float32 vectors, which retriever.recall_sample=0 releases; set it to 1 or more"
        )
