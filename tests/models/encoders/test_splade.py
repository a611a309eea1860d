"""SPLADE's vectors are its formula's and the library's, whatever the batches; its scores are inner products."""

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
    """splade_tiny's weights, as its yaml names them."""
    encoder = build.composed(["retriever=splade_tiny"])["retriever"]["encoder"]
    try:
        return weights.find(encoder["model"], build.construct(encoder["package"], "package")).path
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.fixture(scope="module")
def tiny(folder) -> Splade:
    """The retriever of conf/retriever/splade_tiny.yaml over CORPUS."""
    config = build.composed(["retriever=splade_tiny", "retriever.encoder.device=cpu"])["retriever"]
    retriever = build.construct(config, "retriever")
    retriever.index(CORPUS)
    return retriever


@pytest.fixture(scope="module")
def peer(folder):
    return Peer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def random_mlm(folder, tmp_path_factory):
    """A masked language model of random weights with splade_tiny's tokenizer, 64 tokens long."""
    made = tmp_path_factory.mktemp("mlm")
    torch.manual_seed(0)
    model = BertForMaskedLM(_config())
    torch.nn.init.normal_(model.cls.predictions.bias, mean=-1.0, std=0.5)  # some 700 terms of a text
    model.save_pretrained(made)
    _tokenizer(folder, made)
    return made


def _config():
    return BertConfig(
        vocab_size=WIDTH,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )


def _tokenizer(folder, target):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, target / name)


def filled(vectors: SparseRows) -> np.ndarray:
    """The rows as a matrix [texts, vocabulary]."""
    matrix = np.zeros((len(vectors), WIDTH), np.float32)
    for row in range(len(vectors)):
        span = slice(vectors.starts[row], vectors.starts[row + 1])
        assert len(set(vectors.terms[span])) == span.stop - span.start, "a term is there once"
        matrix[row, vectors.terms[span]] = vectors.weights[span]
    return matrix


def encoded(encoder, texts, side="document") -> np.ndarray:
    return filled(encoder.encode(StringColumn(texts), side))


def of_peer(model, texts, side="document") -> np.ndarray:
    encode = {"query": model.encode_query, "document": model.encode_document}[side]
    return encode(texts, batch_size=1, convert_to_sparse_tensor=False, show_progress_bar=False).numpy()


def formula(folder, texts, longest) -> np.ndarray:
    """max over the tokens of log(1 + relu(logit)), padding masked, from plain transformers and one padded batch."""
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
    )
    rows = []
    with torch.inference_mode():
        hidden = model.bert(**tokens).last_hidden_state
        for states, mask in zip(hidden, tokens["attention_mask"], strict=True):  # the head row by row: less memory
            impact = torch.log(1 + torch.relu(model.cls(states))) * mask[:, None]
            rows.append(impact.max(dim=0).values)
    return torch.stack(rows).numpy()


# ----------------------------------------------------------------------------------------------------------- vectors


def test_vectors_are_the_formulas_whatever_the_budget(folder):
    expected = formula(folder, TEXTS, 512)
    assert expected.any(axis=1).all()
    for budget in (None, 1, 100_000):
        encoder = SparseEncoder(str(folder), device="cpu", batch_tokens=budget, cache=False)
        np.testing.assert_allclose(encoded(encoder, TEXTS), expected, atol=1e-5)
        assert encoder.n_terms == WIDTH


def test_vectors_are_those_of_the_library(tiny, peer):
    for side, texts in (("query", SHORT), ("document", TEXTS)):
        np.testing.assert_allclose(encoded(tiny._encoder, texts, side), of_peer(peer, texts, side), atol=1e-5)


def test_max_length_and_prompts_are_those_of_the_text_cut_and_prompted(folder):
    encoder = SparseEncoder(
        str(folder), device="cpu", max_length=6, query_prompt="ask ", document_prompt="", cache=False
    )
    cut = formula(folder, ["one two three four five six", "ask one two"], 6)
    np.testing.assert_allclose(encoded(encoder, ["one two three four five six"])[0], cut[0], atol=1e-5)
    np.testing.assert_allclose(encoded(encoder, ["one two"], "query")[0], cut[1], atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_any_activation_and_pooling_give_the_librarys_vectors(random_mlm, tmp_path, activation, pooling):
    model = Peer(
        modules=[
            Transformer(str(random_mlm), transformer_task="fill-mask"),
            SpladePooling(pooling_strategy=pooling, activation_function=activation),
        ],
        device="cpu",
    )
    model.save(str(tmp_path / "saved"))
    expected = of_peer(model, TEXTS)
    assert expected.any(axis=1).all()
    encoder = SparseEncoder(str(tmp_path / "saved"), device="cpu", cache=False)
    np.testing.assert_allclose(encoded(encoder, TEXTS), expected, rtol=1e-6, atol=1e-5)
    fused = any(isinstance(part, FusedPooling) for part in encoder._loaded().modules())
    assert fused == (pooling == "max")


def test_a_route_for_queries_and_another_for_documents_are_both_taken(random_mlm, tmp_path):
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
        expected = of_peer(model, TEXTS, side)
        np.testing.assert_allclose(encoded(encoder, TEXTS, side), expected, atol=1e-5)
    assert np.diff(encoder.encode(StringColumn(["", "cats and cats"]), "query").starts).tolist() == [0, 2]


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("chunk", [1, 3, 128])
def test_the_fused_head_pools_what_the_mask_leaves_as_the_library_does(monkeypatch, activation, chunk):
    monkeypatch.setitem(splade_head._TOKENS, "cpu", chunk)
    torch.manual_seed(2)
    head, hidden = torch.nn.Linear(5, 11), torch.randn(4, 7, 5)
    mask = torch.tensor([[1] * 7, [0, 0, 1, 1, 1, 0, 0], [0] * 7, [1, 0, 0, 0, 0, 0, 0]])
    pooling = SpladePooling("max", activation).eval()
    with torch.inference_mode():
        expected = pooling({"token_embeddings": head(hidden), "attention_mask": mask})["sentence_embedding"]
        fused = FusedPooling(pooling, head)
        found = fused({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
        torch.testing.assert_close(found, expected)
        assert not found[2].any(), "a text without tokens"
        whole = fused({"token_embeddings": hidden, "attention_mask": torch.ones(4, 7)})["sentence_embedding"]
        flat = {"token_embeddings": hidden.reshape(1, 28, 5), "cu_seq_lens_q": torch.arange(0, 29, 7)}
        torch.testing.assert_close(fused(flat)["sentence_embedding"], whole)


def test_a_tied_output_layer_is_used_and_an_own_bias_too(random_mlm):
    encoder = SparseEncoder(str(random_mlm), device="cpu", cache=False)
    np.testing.assert_allclose(encoded(encoder, TEXTS), formula(random_mlm, TEXTS, 64), atol=1e-5)


def test_no_texts_give_no_rows(tiny):
    assert len(tiny._encoder.encode(StringColumn([]), "document")) == 0
    assert len(tiny._encoder.encode(StringColumn([]), "query")) == 0


# ----------------------------------------------------------------------------------------------- pruning and decoding


def test_pruning_keeps_the_heaviest_terms_of_each_side(folder, tiny):
    pruned = SparseEncoder(str(folder), device="cpu", query_terms=3, document_terms=7, cache=False)
    for side, n in (("query", 3), ("document", 7)):
        whole, kept = encoded(tiny._encoder, SHORT, side), encoded(pruned, SHORT, side)
        for own, left in zip(whole, kept, strict=True):
            best = np.argsort(-own)[:n]
            expected = np.zeros_like(own)
            expected[best] = own[best]
            np.testing.assert_allclose(left, expected, atol=1e-6)
    only = SparseEncoder(str(folder), device="cpu", document_terms=10**6, cache=False)
    np.testing.assert_allclose(encoded(only, SHORT), encoded(tiny._encoder, SHORT), atol=1e-6)


def test_decode_gives_terms_by_weight(tiny):
    vectors = tiny._encoder.encode(StringColumn(["cats purr", "interest rates of the bank"]), "document")
    matrix, tokenizer = filled(vectors), AutoTokenizer.from_pretrained(tiny._encoder._weights.path)
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


def test_scores_are_inner_products_and_only_shared_terms_are_hits(tiny):
    exact = encoded(tiny._encoder, QUERIES.texts, "query").astype(np.float64) @ encoded(
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


def test_the_index_is_its_postings_and_the_record_says_how_many_terms(tiny):
    with recording() as seen:
        tiny.index(CORPUS)
    vectors = tiny._encoder.encode(CORPUS.texts, "document")
    assert tiny.nbytes() == (WIDTH + 1) * 8 + len(vectors.terms) * 8
    assert seen.metadata["terms_per_document"] == len(vectors.terms) / 5
    assert seen.encoders[""]["max_length"] == 512
    assert seen.phase().counters[""].texts == 5


def test_neither_the_vectors_nor_the_logits_are_ever_one_dense_matrix(random_mlm):
    class Largest(TorchDispatchMode):
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
    with Largest() as seen:
        retriever.index(Corpus(map(str, range(100)), texts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen.elements <= 64 * WIDTH, "32 texts of 64 tokens are a batch: one text's logits are the most"
    assert peak < 100 * WIDTH * 4 / 2, "half of a dense matrix"


def test_cached_vectors_are_the_same_and_cost_what_they_did(random_mlm, empty_cache):
    texts = StringColumn([f"document {number} about cats" for number in range(260)])
    found = []
    for _ in range(2):
        with recording() as seen:
            found.append(SparseEncoder(str(random_mlm), device="cpu").encode(texts, "document"))
        found.append(seen.phase())
    first, paid, again, billed = found
    for column in ("starts", "terms", "weights"):
        np.testing.assert_array_equal(getattr(first, column), getattr(again, column))
    assert len(list(empty_cache.rglob("*.safetensors"))) == 1
    assert paid.cached_s == 0 < billed.cached_s <= paid.stages["encode"]
    assert billed.wall_s >= billed.stages["encode"] >= billed.cached_s
    assert billed.counters == paid.counters
    other = SparseEncoder(str(random_mlm), device="cpu", document_terms=2)
    assert len(other.encode(texts, "document").terms) == 520, "other terms are another entry"


# -------------------------------------------------------------------------------------------------- weighted tokens

IDF = {"interest": 5.0, "rates": 3.5, "the": 0.25, "cat": 4.0, "##ring": 2.0, "of": 0.0}


@pytest.fixture
def weighted(folder, tmp_path):
    """A folder of a tokenizer and weights of tokens, as OpenSearch's document models have."""
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    _tokenizer(folder, tmp_path)
    (tmp_path / "idf.json").write_text(json.dumps(IDF))
    return tmp_path


def named(encoder, texts) -> list[dict[str, float]]:
    vectors = encoder.encode(StringColumn(texts), "query")
    names = encoder.decode_terms(vectors.terms)
    cut = zip(vectors.starts[:-1], vectors.starts[1:], strict=True)
    return [dict(zip(names[low:high], vectors.weights[low:high].tolist(), strict=True)) for low, high in cut]


def test_a_query_is_its_different_tokens_with_their_weights(weighted):
    texts = ["interest of the cat and the CAT", "unknown", "", "rates rates"]
    assert named(TokenWeights(str(weighted)), texts) == [
        {"interest": 5.0, "the": 0.25, "cat": 4.0},
        {},
        {},
        {"rates": 3.5},
    ]
    assert named(TokenWeights(str(weighted), file=None), texts) == [
        {"interest": 1.0, "of": 1.0, "the": 1.0, "cat": 1.0, "and": 1.0},
        {"unknown": 1.0},
        {},
        {"rates": 1.0},
    ]


def test_no_queries_have_no_tokens(weighted):
    assert len(TokenWeights(str(weighted)).encode(StringColumn([]), "query")) == 0


def test_weighted_tokens_are_the_librarys_static_embedding_for_long_queries_too(weighted):
    texts = ["interest rates of the cat", "", "cat " * 700 + "interest", "puttering and purring"]
    tokenizer = AutoTokenizer.from_pretrained(weighted)
    model = Peer(modules=[SparseStaticEmbedding.from_json(str(weighted / "idf.json"), tokenizer)], device="cpu")
    expected = of_peer(model, texts, "query")
    assert expected.any()
    np.testing.assert_array_equal(encoded(TokenWeights(str(weighted)), texts, "query"), expected)


def test_a_weight_of_a_token_that_the_vocabulary_has_not_is_no_weight_of_the_unknown(weighted):
    (weighted / "idf.json").write_text(json.dumps({**IDF, "nosuchtoken": 9.0}))
    assert named(TokenWeights(str(weighted)), ["\u4e2d\ufffd cat"]) == [{"cat": 4.0}]


def test_weights_that_are_not_there_or_not_weights_are_refused(weighted):
    with pytest.raises(WeightsError) as error:
        TokenWeights(str(weighted), file="other.json").encode(StringColumn(["x"]), "query")
    path = weighted / "other.json"
    assert str(error.value) == (
        f"no token weights in {str(path)!r} ([Errno 2] No such file or directory: {str(path)!r}); "
        "give the file's name: query_encoder.file=NAME, or null"
    )
    for said in ("not json", "[1, 2]", '{"cat": "heavy"}', '{"cat": null}'):
        path.write_text(said)
        with pytest.raises(WeightsError, match=r"^no token weights in .*other\.json.*file=NAME, or null$"):
            TokenWeights(str(weighted), file="other.json").encode(StringColumn(["x"]), "query")


def test_documents_are_ranked_by_the_weights_of_the_querys_own_tokens(folder, weighted, tiny):
    retriever = Splade(tiny._encoder, TokenWeights(str(weighted)))
    retriever.index(CORPUS)
    run = retriever.search(Queries(["q"], ["the interest of the cat"]), 5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = np.zeros(WIDTH)
    for token in ("the", "interest", "cat"):
        asked[tokenizer.convert_tokens_to_ids(token)] = IDF[token]
    exact = encoded(tiny._encoder, CORPUS.texts).astype(np.float64) @ asked
    expected = {name: score for name, score in zip(CORPUS.ids, exact, strict=True) if score > 0}
    docs, scores = run.hits(0)
    assert docs == sorted(expected, key=lambda name: -expected[name])
    assert scores.tolist() == pytest.approx([expected[name] for name in docs], rel=1e-5)
    assert len(docs) > 1
    why = retriever.explain(Queries(["q"], ["the interest of the cat"]), [CORPUS.ids.arrow.to_pylist().index(docs[0])])
    assert sum(row[3] for row in why[0].rows) == pytest.approx(float(scores[0]), rel=1e-5)


# ----------------------------------------------------------------------------------------------------------- refusals


def test_a_model_without_a_vocabulary_head_is_refused(folder, models, tmp_path):
    bare = tmp_path / "bare"
    BertModel(_config()).save_pretrained(bare)
    _tokenizer(folder, bare)
    for path in (bare, models / "all-MiniLM-L6-v2"):
        with pytest.raises(WeightsError) as error:
            SparseEncoder(str(path), device="cpu").encode(StringColumn(["x"]), "document")
        assert str(error.value) == (
            f"{str(path)!r} has no masked-language-model head, so its sparse vectors would be random; "
            "give a SPLADE model: retriever.encoder.model=naver/splade-v3"
        )


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_an_error(random_mlm, tmp_path, broken):
    shutil.copytree(random_mlm, tmp_path / "broken")
    path = tmp_path / "broken" / "model.safetensors"
    held = load_file(path)
    held["cls.predictions.bias"][77] = broken
    save_file(held, path, {"format": "pt"})
    encoder = SparseEncoder(str(tmp_path / "broken"), device="cpu", cache=False)
    with pytest.raises(RunError) as error:
        encoder.encode(StringColumn(["some words"]), "document")
    assert str(error.value) == f"the sparse encoder {str(tmp_path / 'broken')!r} gave a weight that is not finite"


@pytest.mark.parametrize("side", ["query", "document"])
def test_no_terms_at_all_cannot_be_asked_for(side):
    with pytest.raises(ConfigError) as error:
        SparseEncoder("org/name", **{f"{side}_terms": 0})
    assert str(error.value) == f"encoder.{side}_terms=0 must be at least 1, or null for all"


def test_a_query_over_a_larger_vocabulary_than_the_documents_is_refused():
    def one(term):
        return SparseRows(np.array([0, 1]), np.array([term], np.int32), np.ones(1, np.float32))

    with pytest.raises(RunError, match=r"term 9.*vocabulary only 5"):
        Postings(one(4), 5).search(one(9), 1, np.zeros(1, np.int32), 1)


def test_sides_that_share_a_transformer_are_both_fused(tmp_path):
    """What `fuse` takes off once serves every pooling that follows the same model."""
    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    language_model = BertForMaskedLM(config).eval()

    class Before(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = language_model

    sides = torch.nn.ModuleList(torch.nn.Sequential(Before(), SpladePooling("max")) for _ in range(2))
    splade_head.fuse(sides)
    assert [type(side[1]) for side in sides] == [FusedPooling, FusedPooling]
    assert sides[0][1].head is sides[1][1].head
    assert sides[0][1].head.out_features == 50
