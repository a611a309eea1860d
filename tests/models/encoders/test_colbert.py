"""Tests of ColBERT: token vectors by Stanford's definition, other checkpoint formats, MaxSim search, two stages."""

import json
import shutil
import string

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder as Peer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from harness.encoders.multi_vector import MultiVectorEncoder
from harness.errors import ConfigError, RunError, WeightsError
from harness.evaluation.timing import TimingPlan, measure
from harness.instrument import recording
from harness.retrievers.colbert import ColBERT
from harness.types import Corpus, Dataset, Qrels, Queries, StringColumn

HIDDEN, WIDTH, QUERY, DOCUMENT = 32, 128, 32, 48
VOCABULARY = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
TEXTS = [
    "what is a cat?",
    "",
    "word " * 100,
    "Punctuation, (here) and there: it's dropped!",
    "...",
    "日本語 and English",
    " ".join(f"w{number}" for number in range(12)),
]
WORDS = ["cat", "dog", "moon", "earth", "bread", "water", "bank", "rates", "river", "flood", "old", "new", "run", "eat"]


def sentences(n, seed, max_words=12):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, max_words))) for _ in range(n)]


CORPUS = Corpus([f"d{number}" for number in range(60)], sentences(60, 0, 30))
QUERIES = Queries([f"q{number}" for number in range(55)], sentences(55, 1))


@pytest.fixture(scope="module")
def minilm_folder(models):
    return models / "all-MiniLM-L6-v2"


class Checkpoint:
    """A ColBERT model of random weights in Stanford's file format, and its definition in plain transformers."""

    def __init__(self, folder, vocabulary, attend=False):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=30522,
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
        self.bert, self.linear, self.attend = BertModel(config).eval(), torch.randn(WIDTH, HIDDEN), attend
        weights = {f"bert.{name}": value for name, value in self.bert.state_dict().items()}
        save_file({**weights, "linear.weight": self.linear}, folder / "model.safetensors", {"format": "pt"})
        bert_config = {**config.to_dict(), "architectures": ["HF_ColBERT"]}
        (folder / "config.json").write_text(json.dumps(bert_config))
        settings = {
            "query_maxlen": QUERY,
            "doc_maxlen": DOCUMENT,
            "mask_punctuation": True,
            "query_token_id": "[unused0]",
            "doc_token_id": "[unused1]",
            "attend_to_mask_tokens": attend,
        }
        (folder / "artifact.metadata").write_text(json.dumps(settings))
        for name in VOCABULARY:
            shutil.copy(vocabulary / name, folder / name)
        self.tokenizer, self.path = AutoTokenizer.from_pretrained(vocabulary), str(folder)

    def ids(self, text, marker, max_length):
        """Return the token ids of `[CLS] marker text [SEP]`, truncated to `max_length`."""
        tokens = self.tokenizer.tokenize(text)[: max_length - 3]
        return self.tokenizer.convert_tokens_to_ids(["[CLS]", marker, *tokens, "[SEP]"])

    def vectors(self, ids, attention_mask):
        with torch.inference_mode():
            states = self.bert(torch.tensor([ids]), attention_mask=torch.tensor([attention_mask])).last_hidden_state[0]
            return torch.nn.functional.normalize(states @ self.linear.T, p=2, dim=1)

    def query(self, text):
        """Return the vectors of a query padded with [MASK], which is scored and, where `attend` is set, attended to."""
        ids = self.ids(text, "[unused0]", QUERY)
        n_masks = QUERY - len(ids)
        attention_mask = [1] * len(ids) + [int(self.attend)] * n_masks
        return self.vectors(ids + [self.tokenizer.mask_token_id] * n_masks, attention_mask)

    def document(self, text):
        """Return the vectors of a document without those of punctuation, which is attended to."""
        ids = self.ids(text, "[unused1]", DOCUMENT)
        skipped = set(self.tokenizer.convert_tokens_to_ids(list(string.punctuation)))
        scored = torch.tensor([token not in skipped for token in ids])
        return self.vectors(ids, [1] * len(ids))[scored]


@pytest.fixture(scope="module", params=[False, True], ids=["masks not attended to", "masks attended to"])
def any_checkpoint(request, minilm_folder, tmp_path_factory):
    """Return a checkpoint, with and without attend_to_mask_tokens."""
    return Checkpoint(tmp_path_factory.mktemp("colbert"), minilm_folder, request.param)


@pytest.fixture(scope="module")
def checkpoint(minilm_folder, tmp_path_factory):
    return Checkpoint(tmp_path_factory.mktemp("colbert"), minilm_folder)


def make_encoder(path, **settings) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(path), **{"device": "cpu", "cache": False, **settings})


def index(checkpoint, storage_dtype="float32", **settings) -> ColBERT:
    retriever = ColBERT(make_encoder(checkpoint.path, storage_dtype=storage_dtype), **settings)
    retriever.index(CORPUS)
    return retriever


def assert_vectors(tokens, expected, atol=1e-5):
    assert len(tokens) == len(expected)
    for text, expected_vectors in enumerate(expected):
        assert tokens.vectors_of(text).shape == expected_vectors.shape
        np.testing.assert_allclose(tokens.vectors_of(text).numpy(), expected_vectors.numpy(), atol=atol)


def maxsim(queries, documents) -> np.ndarray:
    """Return MaxSim scores, shape [queries, documents], in float64 from lists of matrices."""
    edges = np.cumsum([0, *map(len, documents)])[:-1]
    tokens = torch.cat(documents).double().numpy().T
    return np.stack(
        [np.maximum.reduceat(query.double().numpy() @ tokens, edges, axis=1).sum(axis=0) for query in queries]
    )


@pytest.fixture(scope="module")
def query_vectors(checkpoint):
    """Return each query's vectors by Stanford's definition."""
    return [checkpoint.query(text) for text in QUERIES.texts]


@pytest.fixture(scope="module")
def exact(checkpoint, query_vectors):
    """Return MaxSim scores, shape [queries, documents], over vectors by Stanford's definition."""
    return maxsim(query_vectors, [checkpoint.document(text) for text in CORPUS.texts])


def assert_run(run, exact, k, atol=1e-4):
    """Assert that a run has the k best exact scores; documents whose scores differ by rounding may swap places."""
    best = -np.sort(-exact, axis=1)[:, :k]
    np.testing.assert_allclose(run.scores, best, atol=atol)
    np.testing.assert_allclose(np.take_along_axis(exact, run.docs.astype(np.int64), axis=1), best, atol=atol)


# --------------------------------------------------------------------------------------------- Stanford's definition


@pytest.mark.parametrize("budget", [None, 1, 10_000])
def test_token_vectors_equal_stanfords_definition(any_checkpoint, budget):
    encoder = make_encoder(any_checkpoint.path, storage_dtype="float32", batch_tokens=budget)
    assert_vectors(encoder.encode(StringColumn(TEXTS), "query"), [any_checkpoint.query(text) for text in TEXTS])
    assert_vectors(encoder.encode(StringColumn(TEXTS), "document"), [any_checkpoint.document(text) for text in TEXTS])


def test_attending_to_mask_tokens_changes_query_vectors(minilm_folder, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    checkpoints = [Checkpoint(tmp_path / "a", minilm_folder, False), Checkpoint(tmp_path / "b", minilm_folder, True)]
    ignored, attended = (
        make_encoder(checkpoint.path).encode(StringColumn(["cats"]), "query").vectors_of(0)
        for checkpoint in checkpoints
    )
    assert (ignored - attended).abs().max() > 0.01


def test_checkpoint_lengths_truncate_queries_and_documents_and_are_recorded(checkpoint):
    encoder = make_encoder(checkpoint.path)
    with recording() as recorder:
        documents = encoder.encode(StringColumn(["word " * 100, "word", ".,."]), "document")
    assert np.diff(documents.starts).tolist() == [48, 4, 3]
    assert recorder.encoders[""]["max_length"] == {"query": QUERY, "document": DOCUMENT}
    assert recorder.encoders[""]["prompts"] == {"query": "[unused0] ", "document": "[unused1] "}
    assert recorder.phase().counters[""].model_dump() == {
        **{"texts": 3, "tokens": 48 + 4 + 6, "truncated": 1, "padding": 86, "vectors": 55}
    }
    with recording() as recorder:
        assert np.diff(encoder.encode(StringColumn(["word " * 100, ""]), "query").starts).tolist() == [32, 32]
    assert recorder.phase().counters[""].truncated == 1


def test_max_length_truncates_documents_and_not_queries(checkpoint, minilm_folder):
    for encoder in (
        make_encoder(checkpoint.path, max_length=5),
        make_encoder(minilm_folder, projection="none", max_length=5),
    ):
        untruncated = make_encoder(encoder._name, projection=encoder._projection)
        texts = StringColumn(["one two three four five six seven"])
        assert len(encoder.encode(texts, "document").vectors_of(0)) == 5
        assert torch.equal(
            encoder.encode(texts, "query").vectors_of(0), untruncated.encode(texts, "query").vectors_of(0)
        )


def test_token_names_are_in_the_order_of_the_vectors(checkpoint):
    encoder = make_encoder(checkpoint.path)
    names = encoder.token_names("A cat, purring.", "document")
    assert names == ["[CLS]", "[unused1]", "a", "cat", "pu", "##rring", "[SEP]"]
    names = encoder.token_names("A cat.", "query")
    assert names == ["[CLS]", "[unused0]", "a", "cat", ".", "[SEP]", *["[MASK]"] * 26]


# ------------------------------------------------------------------------------------------------ other checkpoints


def test_a_pylate_checkpoint_equals_sentence_transformers(checkpoint, minilm_folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.save_pretrained(tmp_path)
    bert = BertModel(checkpoint.bert.config)
    bert.load_state_dict(checkpoint.bert.state_dict())
    bert.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    bert.save_pretrained(tmp_path)
    (tmp_path / "1_Dense").mkdir()
    dense = {"in_features": HIDDEN, "out_features": WIDTH, "bias": False}
    dense["activation_function"] = "torch.nn.modules.linear.Identity"
    (tmp_path / "1_Dense" / "config.json").write_text(json.dumps(dense))
    save_file({"linear.weight": checkpoint.linear}, tmp_path / "1_Dense" / "model.safetensors")
    module_types = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": type_name} for i, (path, type_name) in enumerate(module_types)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    settings = {
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 16,
        "document_length": 20,
        "attend_to_expansion_tokens": False,
        "skiplist_words": ["!", ","],
    }
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "ColBERT", **settings}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 31, "do_lower_case": False}))
    encoder, peer = make_encoder(tmp_path, storage_dtype="float32"), Peer(str(tmp_path), device="cpu")
    assert_equals_peer(encoder, peer)
    ids = tokenizer.convert_tokens_to_ids(["[CLS]", "[D] ", "a", "b", ".", "[SEP]"])
    with torch.inference_mode():
        states = bert.eval()(torch.tensor([ids])).last_hidden_state[0]
    expected = torch.nn.functional.normalize(states @ checkpoint.linear.T, dim=1)
    assert_vectors(encoder.encode(StringColumn(["a b."]), "document"), [expected])
    assert encoder.token_names("a, b.", "document")[2:] == ["a", "b", ".", "[SEP]"]
    assert encoder.token_names("a, b.", "query")[2:] == ["a", ",", "b", ".", "[SEP]", *["[MASK]"] * 9]


EXPANSIONS = [
    None,
    {"strategy": "fixed", "length": 8},
    {"strategy": "fixed", "length": 8, "attend": True},
    {"strategy": "min", "length": 8},
]


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
def test_a_sentence_transformers_checkpoint_equals_the_library(checkpoint, tmp_path, expansion):
    projection = Dense(HIDDEN, WIDTH, bias=False, activation_function=None, module_input_name="token_embeddings")
    bert = Transformer(checkpoint.path, query_expansion=expansion, document_length=24)
    modules = [bert, projection, MultiVectorMask(skiplist_words=["."]), Normalize(module_input_name="token_embeddings")]
    peer = Peer(modules=modules, prompts={"query": "ask: ", "document": "say: "}, device="cpu")
    peer.save(str(tmp_path / "saved"))
    encoder = make_encoder(tmp_path / "saved", storage_dtype="float32", batch_tokens=60)
    assert_equals_peer(encoder, peer)
    with recording() as recorder:
        encoder.encode(StringColumn(["a b c d e f g h i j", "a"]), "query")
    fixed = expansion is not None and expansion["strategy"] == "fixed"
    assert recorder.encoders[""]["max_length"] == {"query": 8 if fixed else 64, "document": 24}
    assert recorder.phase().counters[""].truncated == int(fixed)


def assert_equals_peer(encoder, peer):
    for side, encode in (("query", peer.encode_query), ("document", peer.encode_document)):
        assert_vectors(encoder.encode(StringColumn(TEXTS), side), encode(TEXTS, show_progress_bar=False))


def test_projection_none_gives_normalised_hidden_states(minilm_folder):
    model, tokenizer = AutoModel.from_pretrained(minilm_folder), AutoTokenizer.from_pretrained(minilm_folder)
    expected = []
    for text in TEXTS:
        with torch.inference_mode():
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            expected.append(torch.nn.functional.normalize(model(**tokens).last_hidden_state[0], dim=1))
    encoder = make_encoder(minilm_folder, projection="none", storage_dtype="float32")
    for side in ("query", "document"):
        tokens = encoder.encode(StringColumn(TEXTS), side)
        assert_vectors(tokens, expected)
        np.testing.assert_allclose(tokens.vectors.norm(dim=1).numpy(), 1.0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_checkpoint_without_a_projection_is_refused(checkpoint, minilm_folder, tmp_path):
    checkpoint.bert.save_pretrained(tmp_path)
    for name in VOCABULARY:
        shutil.copy(minilm_folder / name, tmp_path / name)
    for path in (minilm_folder, tmp_path):
        with pytest.raises(WeightsError) as error:
            make_encoder(path).encode(StringColumn(["x"]), "document")
        for part in (
            str(path),
            "no projection",
            "retriever.encoder.model=colbert-ir/colbertv2.0",
            "retriever.encoder.projection=none",
        ):
            assert part in str(error.value)


def test_a_token_vector_that_is_not_finite_is_an_error(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint.path, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["linear.weight"][5, 5] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError) as error:
        make_encoder(broken).encode(StringColumn(["some words"]), "query")
    assert str(broken) in str(error.value)
    assert "not finite" in str(error.value)


@pytest.mark.parametrize(
    ("make", "value", "choices"),
    [
        (lambda: MultiVectorEncoder("o/n", projection="mean"), "encoder.projection='mean'", "choices: own, none"),
        (
            lambda: MultiVectorEncoder("o/n", storage_dtype="int8"),
            "encoder.storage_dtype='int8'",
            "choices: float16, float32",
        ),
        (
            lambda: ColBERT(MultiVectorEncoder("o/n"), candidates=0),
            "retriever.candidates=0",
            "at least 1, or null",
        ),
    ],
)
def test_an_invalid_colbert_setting_is_refused_before_weights_are_loaded(make, value, choices):
    with pytest.raises(ConfigError) as error:
        make()
    assert value in str(error.value)
    assert choices in str(error.value)


# ----------------------------------------------------------------------------------------------------------- ranking


def test_exact_search_equals_brute_force_maxsim(checkpoint, exact):
    retriever = index(checkpoint)
    assert_run(retriever.search(QUERIES, 10), exact, 10)
    assert_run(retriever.search(QUERIES, 100), exact, 60)


def test_float16_storage_takes_half_the_bytes_and_scores_the_stored_vectors(checkpoint, query_vectors):
    float32, float16 = index(checkpoint), index(checkpoint, storage_dtype="float16")
    vectors = float16._tokens.vectors
    assert (float32._tokens.vectors.dtype, vectors.dtype) == (torch.float32, torch.float16)
    assert torch.equal(vectors, float32._tokens.vectors.half())
    start_bytes = 61 * 8
    assert float16.nbytes() == start_bytes + len(vectors) * WIDTH * 2
    assert (float16.nbytes() - start_bytes) * 2 == float32.nbytes() - start_bytes
    assert_run(
        float16.search(QUERIES, 10), maxsim(query_vectors, [float16._tokens.vectors_of(doc) for doc in range(60)]), 10
    )


def test_colbert_scores_of_candidates_equal_search_and_padding_is_minus_infinity(checkpoint):
    retriever = index(checkpoint)
    run = retriever.search(QUERIES, 8)
    docs = run.docs[:, ::-1].copy()
    docs[3, 2:5] = -1
    docs[4] = -1
    scores = retriever.score(QUERIES, docs)
    expected = np.where(docs >= 0, run.scores[:, ::-1], -np.inf)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert retriever.score(QUERIES[:0], docs[:0]).shape == (0, 8)


def test_explained_similarities_add_up_to_the_score(checkpoint):
    retriever = index(checkpoint)
    docs, scores = retriever.search(QUERIES[:1], 2).hits(0)
    for doc, score, explanation in zip(
        docs, scores, retriever.explain(QUERIES[:1], [int(doc[1:]) for doc in docs]), strict=True
    ):
        assert len(explanation.rows) == QUERY
        assert sum(row[3] for row in explanation.rows) == pytest.approx(float(score), abs=1e-4)
        names = retriever._encoder.token_names(CORPUS.texts[int(doc[1:])], "document")
        assert all(names[row[2] - 1] == row[1] for row in explanation.rows)


# -------------------------------------------------------------------------------------------------------- two stages


def test_two_stage_search_over_all_documents_equals_exact_search(checkpoint):
    exact = index(checkpoint).search(QUERIES, 7)
    for candidates in (60, 1000):
        run = index(checkpoint, candidates=candidates).search(QUERIES, 7)
        assert run.docs.tolist() == exact.docs.tolist()
        np.testing.assert_allclose(run.scores, exact.scores, atol=1e-5)


def test_two_stage_scores_are_exact_and_recall_is_recorded(checkpoint, exact):
    dataset = Dataset("made", "test", CORPUS, QUERIES, Qrels({query: {"d0": 1} for query in QUERIES.ids}))
    plan = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)
    recalls = []
    for candidates in (5, 6, 20):
        retriever = ColBERT(make_encoder(checkpoint.path, storage_dtype="float32"), candidates=candidates)
        measured = measure(retriever, dataset, k=5, metrics=["ndcg@5"], plan=plan)
        run = measured.run
        assert run.docs.shape == (55, 5)
        np.testing.assert_allclose(run.scores, np.take_along_axis(exact, run.docs.astype(np.int64), axis=1), atol=1e-4)
        best = np.argsort(-exact, axis=1, kind="stable")[:50, :5]
        recall = np.mean(
            [len(set(docs) & set(best_docs)) / 5 for docs, best_docs in zip(run.docs[:50], best, strict=True)]
        )
        assert measured.description.recall_of_exact[""].recall == pytest.approx(recall, abs=1e-9)
        recalls.append(recall)
        assert measured.timing.index_bytes == retriever._tokens.nbytes + retriever._centroids.nbytes
    assert 0 < recalls[0] < 1
    assert recalls == sorted(recalls)


def test_two_stage_search_returns_k_documents_for_any_number_of_candidates(checkpoint):
    assert index(checkpoint, candidates=20).search(QUERIES, 3).docs.shape == (55, 3)
    assert index(checkpoint, candidates=2).search(QUERIES, 9).docs.shape == (55, 9), (
        "at least k documents are candidates"
    )


def test_exact_search_measures_no_recall(checkpoint):
    with recording() as recorder:
        index(checkpoint).search(QUERIES, 5)
    assert not recorder.deferred


@pytest.mark.parametrize("candidates", [None, 4])
def test_an_empty_corpus_can_be_indexed_and_searched(checkpoint, candidates):
    retriever = ColBERT(make_encoder(checkpoint.path), candidates=candidates)
    retriever.index(Corpus([], []))
    assert retriever.search(QUERIES[:2], 3).docs.shape == (2, 0)


def test_a_stanford_checkpoint_without_a_projection_tensor_is_refused(checkpoint, tmp_path):
    without_projection = tmp_path / "bare"
    shutil.copytree(checkpoint.path, without_projection)
    tensors = load_file(without_projection / "model.safetensors")
    del tensors["linear.weight"]
    save_file(tensors, without_projection / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"has no tensor 'linear.weight': its projection is missing"):
        make_encoder(without_projection).encode(StringColumn(["x"]), "document")
