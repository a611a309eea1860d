"""Tests of SPLADE: sparse vectors, pruning, the fused output layer, search scores, and queries of weighted tokens."""

import json
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder as Peer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertModel

from harness import weights
from harness.config import build
from harness.encoders import splade_head
from harness.encoders.sparse import SparseEncoder, TokenWeights
from harness.encoders.splade_head import FusedPooling
from harness.errors import ConfigError, RunError, WeightsError
from harness.instrument import recording
from harness.retrievers.splade import Splade
from harness.search.postings import Postings, SparseRows
from harness.types import Corpus, Queries, StringColumn

SHORT = ["short", "", "a sentence of some more words than that", "日本語 and English", "x", "!?"]
TEXTS = [*SHORT[:3], "long words " * 600, *SHORT[3:]]
WIDTH = 30522
CORPUS = Corpus(
    ["cats", "moon", "bread", "none", "banks"],
    [
        "Cats purr when they are content.",
        "The moon orbits the earth once a month.",
        "Bread is baked from flour, water and salt.",
        "",
        "The central bank raised interest rates again.",
    ],
)
QUERIES = Queries(["a", "b", "c", "d"], ["why does a cat purr", "interest rates", "", "baking bread under the moon"])


@pytest.fixture(scope="module")
def folder():
    """Return the folder of the weights that conf/retriever/splade_tiny.yaml names."""
    encoder = build.composed(["retriever=splade_tiny"])["retriever"]["encoder"]
    try:
        return weights.find(encoder["model"], build.construct(encoder["package"], "package")).path
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.fixture(scope="module")
def tiny(folder) -> Splade:
    """Return the retriever of conf/retriever/splade_tiny.yaml with CORPUS indexed."""
    config = build.composed(["retriever=splade_tiny", "retriever.encoder.device=cpu"])["retriever"]
    retriever = build.construct(config, "retriever")
    retriever.index(CORPUS)
    return retriever


@pytest.fixture(scope="module")
def peer(folder):
    return Peer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def random_mlm(folder, tmp_path_factory):
    """Write a masked language model of random weights with splade_tiny's tokenizer; it reads 64 tokens."""
    model_folder = tmp_path_factory.mktemp("mlm")
    torch.manual_seed(0)
    model = BertForMaskedLM(bert_config())
    torch.nn.init.normal_(model.cls.predictions.bias, mean=-1.0, std=0.5)  # about 700 terms per text
    model.save_pretrained(model_folder)
    copy_tokenizer(folder, model_folder)
    return model_folder


def bert_config():
    return BertConfig(
        vocab_size=WIDTH,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )


def copy_tokenizer(folder, target):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, target / name)


def to_matrix(vectors: SparseRows) -> np.ndarray:
    """Return the rows as a dense matrix, shape [texts, vocabulary]."""
    matrix = np.zeros((len(vectors), WIDTH), np.float32)
    for row in range(len(vectors)):
        span = slice(vectors.starts[row], vectors.starts[row + 1])
        assert len(set(vectors.terms[span])) == span.stop - span.start, "each term occurs once"
        matrix[row, vectors.terms[span]] = vectors.weights[span]
    return matrix


def encode(encoder, texts, side="document") -> np.ndarray:
    return to_matrix(encoder.encode(StringColumn(texts), side))


def encode_with_peer(model, texts, side="document") -> np.ndarray:
    encode = {"query": model.encode_query, "document": model.encode_document}[side]
    return encode(texts, batch_size=1, convert_to_sparse_tensor=False, show_progress_bar=False).numpy()


def splade_formula(folder, texts, max_length) -> np.ndarray:
    """Return max over tokens of log(1 + relu(logit)), padding masked, from transformers in one padded batch."""
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    rows = []
    with torch.inference_mode():
        hidden = model.bert(**tokens).last_hidden_state
        for states, mask in zip(hidden, tokens["attention_mask"], strict=True):  # one row at a time to save memory
            impact = torch.log(1 + torch.relu(model.cls(states))) * mask[:, None]
            rows.append(impact.max(dim=0).values)
    return torch.stack(rows).numpy()


# ----------------------------------------------------------------------------------------------------------- vectors


@pytest.mark.slow
def test_sparse_vectors_equal_the_formula_for_any_batch_size(folder):
    expected = splade_formula(folder, TEXTS, 512)
    assert expected.any(axis=1).all()
    for budget in (None, 1, 100_000):
        encoder = SparseEncoder(str(folder), device="cpu", batch_tokens=budget, cache=False)
        np.testing.assert_allclose(encode(encoder, TEXTS), expected, atol=1e-5)
        assert encoder.n_terms == WIDTH


def test_sparse_vectors_equal_sentence_transformers(tiny, peer):
    for side, texts in (("query", SHORT), ("document", TEXTS)):
        np.testing.assert_allclose(encode(tiny._encoder, texts, side), encode_with_peer(peer, texts, side), atol=1e-5)


def test_max_length_and_prompts_apply_to_sparse_vectors(folder):
    encoder = SparseEncoder(
        str(folder), device="cpu", max_length=6, query_prompt="ask ", document_prompt="", cache=False
    )
    expected = splade_formula(folder, ["one two three four five six", "ask one two"], 6)
    np.testing.assert_allclose(encode(encoder, ["one two three four five six"])[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(encode(encoder, ["one two"], "query")[0], expected[1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_every_activation_and_pooling_equals_sentence_transformers(random_mlm, tmp_path, activation, pooling):
    model = Peer(
        modules=[
            Transformer(str(random_mlm), transformer_task="fill-mask"),
            SpladePooling(pooling_strategy=pooling, activation_function=activation),
        ],
        device="cpu",
    )
    model.save(str(tmp_path / "saved"))
    expected = encode_with_peer(model, TEXTS)
    assert expected.any(axis=1).all()
    encoder = SparseEncoder(str(tmp_path / "saved"), device="cpu", cache=False)
    np.testing.assert_allclose(encode(encoder, TEXTS), expected, rtol=1e-6, atol=1e-5)
    fused = any(isinstance(module, FusedPooling) for module in encoder._loaded().modules())
    assert fused == (pooling == "max")


@pytest.mark.slow
def test_a_router_model_encodes_queries_and_documents_by_their_own_modules(random_mlm, tmp_path):
    documents = Transformer(str(random_mlm), transformer_task="fill-mask")
    impacts = torch.rand(WIDTH, generator=torch.Generator().manual_seed(1))
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(documents.tokenizer, impacts, frozen=True)],
        document_modules=[documents, SpladePooling("max")],
    )
    model = Peer(modules=[router], device="cpu")
    model.save(str(tmp_path / "saved"))
    encoder = SparseEncoder(str(tmp_path / "saved"), device="cpu", cache=False)
    for side in ("query", "document"):
        expected = encode_with_peer(model, TEXTS, side)
        np.testing.assert_allclose(encode(encoder, TEXTS, side), expected, atol=1e-5)
    assert np.diff(encoder.encode(StringColumn(["", "cats and cats"]), "query").starts).tolist() == [0, 2]


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("chunk", [1, 3, 128])
def test_fused_pooling_equals_splade_pooling_under_any_mask(monkeypatch, activation, chunk):
    monkeypatch.setitem(splade_head._TOKENS, "cpu", chunk)
    torch.manual_seed(2)
    head, hidden = torch.nn.Linear(5, 11), torch.randn(4, 7, 5)
    mask = torch.tensor([[1] * 7, [0, 0, 1, 1, 1, 0, 0], [0] * 7, [1, 0, 0, 0, 0, 0, 0]])
    pooling = SpladePooling("max", activation).eval()
    with torch.inference_mode():
        expected = pooling({"token_embeddings": head(hidden), "attention_mask": mask})["sentence_embedding"]
        fused = FusedPooling(pooling, head)
        pooled = fused({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
        torch.testing.assert_close(pooled, expected)
        assert not pooled[2].any(), "a text without tokens"
        unmasked = fused({"token_embeddings": hidden, "attention_mask": torch.ones(4, 7)})["sentence_embedding"]
        end_to_end = {"token_embeddings": hidden.reshape(1, 28, 5), "cu_seq_lens_q": torch.arange(0, 29, 7)}
        torch.testing.assert_close(fused(end_to_end)["sentence_embedding"], unmasked)


def test_a_tied_output_layer_and_its_bias_are_used(random_mlm):
    encoder = SparseEncoder(str(random_mlm), device="cpu", cache=False)
    np.testing.assert_allclose(encode(encoder, TEXTS), splade_formula(random_mlm, TEXTS, 64), atol=1e-5)


def test_encoding_no_texts_gives_no_sparse_rows(tiny):
    assert len(tiny._encoder.encode(StringColumn([]), "document")) == 0
    assert len(tiny._encoder.encode(StringColumn([]), "query")) == 0


# ----------------------------------------------------------------------------------------------- pruning and decoding


@pytest.mark.slow
def test_pruning_keeps_the_terms_with_the_largest_weights(folder, tiny):
    pruned = SparseEncoder(str(folder), device="cpu", query_terms=3, document_terms=7, cache=False)
    for side, n in (("query", 3), ("document", 7)):
        unpruned, kept_rows = encode(tiny._encoder, SHORT, side), encode(pruned, SHORT, side)
        for row, pruned_row in zip(unpruned, kept_rows, strict=True):
            best = np.argsort(-row)[:n]
            expected = np.zeros_like(row)
            expected[best] = row[best]
            np.testing.assert_allclose(pruned_row, expected, atol=1e-6)
    above_vocabulary = SparseEncoder(str(folder), device="cpu", document_terms=10**6, cache=False)
    np.testing.assert_allclose(encode(above_vocabulary, SHORT), encode(tiny._encoder, SHORT), atol=1e-6)


def test_decode_lists_terms_by_descending_weight(tiny):
    vectors = tiny._encoder.encode(StringColumn(["cats purr", "interest rates of the bank"]), "document")
    matrix, tokenizer = to_matrix(vectors), AutoTokenizer.from_pretrained(tiny._encoder._weights.path)
    for row in range(2):
        best = np.argsort(-matrix[row])[: (matrix[row] > 0).sum()]
        expected = [(tokenizer.convert_ids_to_tokens(int(term)), float(matrix[row, term])) for term in best]
        assert tiny._encoder.decode(vectors, row) == expected
        assert tiny._encoder.decode(vectors, row, 4) == expected[:4]
    assert tiny._encoder.decode(vectors, 1, 1)[0][0] in {"interest", "bank", "rates"}


def test_decode_breaks_ties_by_term(tiny):
    vectors = SparseRows(
        np.array([0, 3]), np.array([2054, 1037, 2003], np.int32), np.array([1.0, 1.0, 2.0], np.float32)
    )
    assert tiny._encoder.decode(vectors, 0) == [("is", 2.0), ("a", 1.0), ("what", 1.0)]


# ----------------------------------------------------------------------------------------------------- the retriever


def test_splade_scores_are_inner_products_and_hits_share_a_term(tiny):
    exact = encode(tiny._encoder, QUERIES.texts, "query").astype(np.float64) @ encode(
        tiny._encoder, CORPUS.texts
    ).T.astype(np.float64)
    run = tiny.search(QUERIES, 10)
    assert run.docs.shape == (4, 5)
    for row in range(len(QUERIES)):
        docs, scores = run.hits(row)
        expected = {name: score for name, score in zip(CORPUS.ids, exact[row], strict=True) if score > 0}
        assert dict(zip(docs, scores.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)
    assert run.hits(0)[0][0] == "cats"
    assert run.hits(1)[0][0] == "banks"
    assert tiny.search(QUERIES, 2).docs.tolist() == run.docs[:, :2].tolist()


def test_splade_index_size_and_terms_per_document_are_recorded(tiny):
    with recording() as recorder:
        tiny.index(CORPUS)
    vectors = tiny._encoder.encode(CORPUS.texts, "document")
    assert tiny.nbytes() == (WIDTH + 1) * 8 + len(vectors.terms) * 8
    assert recorder.metadata["terms_per_document"] == len(vectors.terms) / 5
    assert recorder.encoders[""]["max_length"] == 512
    assert recorder.phase().counters[""].texts == 5


@pytest.mark.slow
def test_neither_vectors_nor_logits_are_held_as_one_dense_matrix(random_mlm):
    class LargestTensor(TorchDispatchMode):
        """Records the size of the largest tensor that torch creates."""

        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.elements = max(self.elements, out.numel())
            return out

    texts = [f"number {number} " + "of some words " * 30 for number in range(100)]
    retriever = Splade(SparseEncoder(str(random_mlm), device="cpu", batch_tokens=2048, cache=False))
    retriever._encoder.encode(StringColumn(["load"]), "document")
    tracemalloc.start()
    with LargestTensor() as largest:
        retriever.index(Corpus(map(str, range(100)), texts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest.elements <= 64 * WIDTH, (
        "a batch has 32 texts of 64 tokens, and only one text's logits may exist at a time"
    )
    assert peak < 100 * WIDTH * 4 / 2, "less than half of a dense matrix"


@pytest.mark.slow
def test_cached_sparse_vectors_are_the_same_and_count_the_first_encoding_time(random_mlm, empty_cache):
    texts = StringColumn([f"document {number} about cats" for number in range(260)])
    vectors, phases = [], []
    for _ in range(2):
        with recording() as recorder:
            vectors.append(SparseEncoder(str(random_mlm), device="cpu").encode(texts, "document"))
        phases.append(recorder.phase())
    (first, second), (encoding, cached) = vectors, phases
    for column in ("starts", "terms", "weights"):
        np.testing.assert_array_equal(getattr(first, column), getattr(second, column))
    assert len(list(empty_cache.rglob("*.safetensors"))) == 1
    assert encoding.cached_s == 0 < cached.cached_s <= encoding.stages["encode"]
    assert cached.wall_s >= cached.stages["encode"] >= cached.cached_s
    assert cached.counters == encoding.counters
    pruned = SparseEncoder(str(random_mlm), device="cpu", document_terms=2)
    assert len(pruned.encode(texts, "document").terms) == 520, "another document_terms is another cache key"


# -------------------------------------------------------------------------------------------------- weighted tokens

IDF = {"interest": 5.0, "rates": 3.5, "the": 0.25, "cat": 4.0, "##ring": 2.0, "of": 0.0}


@pytest.fixture
def idf_folder(folder, tmp_path):
    """Write a folder with a tokenizer and idf.json, as OpenSearch's document-only models have."""
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    copy_tokenizer(folder, tmp_path)
    (tmp_path / "idf.json").write_text(json.dumps(IDF))
    return tmp_path


def weights_by_token(encoder, texts) -> list[dict[str, float]]:
    vectors = encoder.encode(StringColumn(texts), "query")
    names = encoder.decode_terms(vectors.terms)
    spans = zip(vectors.starts[:-1], vectors.starts[1:], strict=True)
    return [dict(zip(names[low:high], vectors.weights[low:high].tolist(), strict=True)) for low, high in spans]


def test_a_query_is_its_distinct_tokens_with_their_weights(idf_folder):
    texts = ["interest of the cat and the CAT", "unknown", "", "rates rates"]
    assert weights_by_token(TokenWeights(str(idf_folder)), texts) == [
        {"interest": 5.0, "the": 0.25, "cat": 4.0},
        {},
        {},
        {"rates": 3.5},
    ]
    assert weights_by_token(TokenWeights(str(idf_folder), file=None), texts) == [
        {"interest": 1.0, "of": 1.0, "the": 1.0, "cat": 1.0, "and": 1.0},
        {"unknown": 1.0},
        {},
        {"rates": 1.0},
    ]


def test_encoding_no_queries_gives_no_token_weights(idf_folder):
    assert len(TokenWeights(str(idf_folder)).encode(StringColumn([]), "query")) == 0


def test_token_weights_equal_sparse_static_embedding_for_short_and_long_queries(idf_folder):
    texts = ["interest rates of the cat", "", "cat " * 700 + "interest", "puttering and purring"]
    tokenizer = AutoTokenizer.from_pretrained(idf_folder)
    model = Peer(modules=[SparseStaticEmbedding.from_json(str(idf_folder / "idf.json"), tokenizer)], device="cpu")
    expected = encode_with_peer(model, texts, "query")
    assert expected.any()
    np.testing.assert_array_equal(encode(TokenWeights(str(idf_folder)), texts, "query"), expected)


def test_weights_of_tokens_outside_the_vocabulary_are_ignored(idf_folder):
    (idf_folder / "idf.json").write_text(json.dumps({**IDF, "nosuchtoken": 9.0}))
    assert weights_by_token(TokenWeights(str(idf_folder)), ["\u4e2d\ufffd cat"]) == [{"cat": 4.0}]


def test_missing_or_malformed_token_weights_are_refused(idf_folder):
    with pytest.raises(WeightsError) as error:
        TokenWeights(str(idf_folder), file="other.json").encode(StringColumn(["x"]), "query")
    path = idf_folder / "other.json"
    for part in (str(path), "No such file or directory", "query_encoder.file=NAME, or null"):
        assert part in str(error.value)
    for content in ("not json", "[1, 2]", '{"cat": "heavy"}', '{"cat": null}'):
        path.write_text(content)
        with pytest.raises(WeightsError, match=r"other\.json.*file=NAME, or null"):
            TokenWeights(str(idf_folder), file="other.json").encode(StringColumn(["x"]), "query")


def test_documents_are_ranked_by_the_weights_of_the_query_tokens(folder, idf_folder, tiny):
    retriever = Splade(tiny._encoder, TokenWeights(str(idf_folder)))
    retriever.index(CORPUS)
    run = retriever.search(Queries(["q"], ["the interest of the cat"]), 5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    query_weights = np.zeros(WIDTH)
    for token in ("the", "interest", "cat"):
        query_weights[tokenizer.convert_tokens_to_ids(token)] = IDF[token]
    exact = encode(tiny._encoder, CORPUS.texts).astype(np.float64) @ query_weights
    expected = {name: score for name, score in zip(CORPUS.ids, exact, strict=True) if score > 0}
    docs, scores = run.hits(0)
    assert docs == sorted(expected, key=lambda name: -expected[name])
    assert scores.tolist() == pytest.approx([expected[name] for name in docs], rel=1e-5)
    assert len(docs) > 1
    explanations = retriever.explain(
        Queries(["q"], ["the interest of the cat"]), [CORPUS.ids.arrow.to_pylist().index(docs[0])]
    )
    assert sum(row[3] for row in explanations[0].rows) == pytest.approx(float(scores[0]), rel=1e-5)


# ----------------------------------------------------------------------------------------------------------- refusals


def test_a_model_without_a_masked_language_model_head_is_refused(folder, models, tmp_path):
    bert_folder = tmp_path / "bare"
    BertModel(bert_config()).save_pretrained(bert_folder)
    copy_tokenizer(folder, bert_folder)
    for path in (bert_folder, models / "all-MiniLM-L6-v2"):
        with pytest.raises(WeightsError) as error:
            SparseEncoder(str(path), device="cpu").encode(StringColumn(["x"]), "document")
        for part in (str(path), "no masked-language-model head", "retriever.encoder.model=naver/splade-v3"):
            assert part in str(error.value)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_sparse_weight_that_is_not_finite_is_an_error(random_mlm, tmp_path, broken):
    shutil.copytree(random_mlm, tmp_path / "broken")
    path = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(path)
    tensors["cls.predictions.bias"][77] = broken
    save_file(tensors, path, {"format": "pt"})
    encoder = SparseEncoder(str(tmp_path / "broken"), device="cpu", cache=False)
    with pytest.raises(RunError) as error:
        encoder.encode(StringColumn(["some words"]), "document")
    assert str(tmp_path / "broken") in str(error.value)
    assert "not finite" in str(error.value)


@pytest.mark.parametrize("side", ["query", "document"])
def test_keeping_zero_terms_is_refused(side):
    with pytest.raises(ConfigError) as error:
        SparseEncoder("org/name", **{f"{side}_terms": 0})
    assert f"encoder.{side}_terms=0" in str(error.value)
    assert "at least 1, or null" in str(error.value)


def test_a_query_term_outside_the_documents_vocabulary_is_refused():
    def single_term(term):
        return SparseRows(np.array([0, 1]), np.array([term], np.int32), np.ones(1, np.float32))

    with pytest.raises(RunError, match=r"term 9.*vocabulary only 5"):
        Postings(single_term(4), 5).search(single_term(9), 1, np.zeros(1, np.int32), 1)


def test_fuse_replaces_the_pooling_of_both_sides_of_a_shared_model(tmp_path):
    """The output layer that `fuse` removes from the model is shared by every pooling after that model."""
    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    language_model = BertForMaskedLM(config).eval()

    class LanguageModel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = language_model

    sides = torch.nn.ModuleList(torch.nn.Sequential(LanguageModel(), SpladePooling("max")) for _ in range(2))
    splade_head.fuse(sides)
    assert [type(side[1]) for side in sides] == [FusedPooling, FusedPooling]
    assert sides[0][1].head is sides[1][1].head
    assert sides[0][1].head.out_features == 50
