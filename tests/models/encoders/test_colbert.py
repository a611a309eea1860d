"""ColBERT's vectors are Stanford's definition on Stanford's own files, and its scores are MaxSim over them."""

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


def sentences(n, seed, longest=12):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(n)]


CORPUS = Corpus([f"d{number}" for number in range(60)], sentences(60, 0, 30))
QUERIES = Queries([f"q{number}" for number in range(55)], sentences(55, 1))


@pytest.fixture(scope="module")
def minilm_folder(models):
    return models / "all-MiniLM-L6-v2"


class Checkpoint:
    """A ColBERT of random weights in Stanford's files, and its definition in plain transformers."""

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
        said = {**config.to_dict(), "architectures": ["HF_ColBERT"]}
        (folder / "config.json").write_text(json.dumps(said))
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

    def ids(self, text, marker, longest):
        """[CLS] marker tokens [SEP]"""
        tokens = self.tokenizer.tokenize(text)[: longest - 3]
        return self.tokenizer.convert_tokens_to_ids(["[CLS]", marker, *tokens, "[SEP]"])

    def vectors(self, ids, seen):
        with torch.inference_mode():
            states = self.bert(torch.tensor([ids]), attention_mask=torch.tensor([seen])).last_hidden_state[0]
            return torch.nn.functional.normalize(states @ self.linear.T, p=2, dim=1)

    def query(self, text):
        """Filled up with [MASK], which is scored and, where the checkpoint says so, attended to."""
        ids = self.ids(text, "[unused0]", QUERY)
        masks = QUERY - len(ids)
        seen = [1] * len(ids) + [int(self.attend)] * masks
        return self.vectors(ids + [self.tokenizer.mask_token_id] * masks, seen)

    def document(self, text):
        """Without the vectors of punctuation, which is attended to all the same."""
        ids = self.ids(text, "[unused1]", DOCUMENT)
        skipped = set(self.tokenizer.convert_tokens_to_ids(list(string.punctuation)))
        kept = torch.tensor([token not in skipped for token in ids])
        return self.vectors(ids, [1] * len(ids))[kept]


@pytest.fixture(scope="module", params=[False, True], ids=["masks unseen", "masks attended to"])
def either(request, minilm_folder, tmp_path_factory):
    """A checkpoint with each setting of attend_to_mask_tokens."""
    return Checkpoint(tmp_path_factory.mktemp("colbert"), minilm_folder, request.param)


@pytest.fixture(scope="module")
def checkpoint(minilm_folder, tmp_path_factory):
    return Checkpoint(tmp_path_factory.mktemp("colbert"), minilm_folder)


def encoder(path, **settings) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(path), **{"device": "cpu", "cache": False, **settings})


def indexed(checkpoint, storage_dtype="float32", **settings) -> ColBERT:
    retriever = ColBERT(encoder(checkpoint.path, storage_dtype=storage_dtype), **settings)
    retriever.index(CORPUS)
    return retriever


def assert_vectors(tokens, expected, atol=1e-5):
    assert len(tokens) == len(expected)
    for text, right in enumerate(expected):
        assert tokens.vectors_of(text).shape == right.shape
        np.testing.assert_allclose(tokens.vectors_of(text).numpy(), right.numpy(), atol=atol)


def maxsim(queries, documents) -> np.ndarray:
    """[queries, documents] in float64 from lists of matrices."""
    edges = np.cumsum([0, *map(len, documents)])[:-1]
    tokens = torch.cat(documents).double().numpy().T
    return np.stack([np.maximum.reduceat(own.double().numpy() @ tokens, edges, axis=1).sum(axis=0) for own in queries])


@pytest.fixture(scope="module")
def asked(checkpoint):
    """Each query's vectors by Stanford's definition."""
    return [checkpoint.query(text) for text in QUERIES.texts]


@pytest.fixture(scope="module")
def exact(checkpoint, asked):
    """MaxSim [queries, documents] over the vectors of Stanford's definition."""
    return maxsim(asked, [checkpoint.document(text) for text in CORPUS.texts])


def assert_run(run, exact, k, atol=1e-4):
    """The k best of the exact scores, with those scores; neighbours within rounding may change places."""
    best = -np.sort(-exact, axis=1)[:, :k]
    np.testing.assert_allclose(run.scores, best, atol=atol)
    np.testing.assert_allclose(np.take_along_axis(exact, run.docs.astype(np.int64), axis=1), best, atol=atol)


# --------------------------------------------------------------------------------------------- Stanford's definition


@pytest.mark.parametrize("budget", [None, 1, 10_000])
def test_vectors_are_stanfords_definition_on_stanfords_files(either, budget):
    found = encoder(either.path, storage_dtype="float32", batch_tokens=budget)
    assert_vectors(found.encode(StringColumn(TEXTS), "query"), [either.query(text) for text in TEXTS])
    assert_vectors(found.encode(StringColumn(TEXTS), "document"), [either.document(text) for text in TEXTS])


def test_attending_to_the_masks_makes_a_difference(minilm_folder, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    made = [Checkpoint(tmp_path / "a", minilm_folder, False), Checkpoint(tmp_path / "b", minilm_folder, True)]
    unseen, attended = (encoder(one.path).encode(StringColumn(["cats"]), "query").vectors_of(0) for one in made)
    assert (unseen - attended).abs().max() > 0.01


def test_queries_and_documents_are_cut_at_the_checkpoints_lengths_and_the_record_says_so(checkpoint):
    found = encoder(checkpoint.path)
    with recording() as seen:
        documents = found.encode(StringColumn(["word " * 100, "word", ".,."]), "document")
    assert np.diff(documents.starts).tolist() == [48, 4, 3]
    assert seen.encoders[""]["max_length"] == {"query": QUERY, "document": DOCUMENT}
    assert seen.encoders[""]["prompts"] == {"query": "[unused0] ", "document": "[unused1] "}
    assert seen.phase().counters[""].model_dump() == {
        **{"texts": 3, "tokens": 48 + 4 + 6, "truncated": 1, "padding": 86, "vectors": 55}
    }
    with recording() as seen:
        assert np.diff(found.encode(StringColumn(["word " * 100, ""]), "query").starts).tolist() == [32, 32]
    assert seen.phase().counters[""].truncated == 1


def test_max_length_cuts_documents_and_not_queries(checkpoint, minilm_folder):
    for found in (encoder(checkpoint.path, max_length=5), encoder(minilm_folder, projection="none", max_length=5)):
        whole = encoder(found._name, projection=found._projection)
        texts = StringColumn(["one two three four five six seven"])
        assert len(found.encode(texts, "document").vectors_of(0)) == 5
        assert torch.equal(found.encode(texts, "query").vectors_of(0), whole.encode(texts, "query").vectors_of(0))


def test_tokens_are_named_as_their_vectors_lie(checkpoint):
    found = encoder(checkpoint.path)
    names = found.token_names("A cat, purring.", "document")
    assert names == ["[CLS]", "[unused1]", "a", "cat", "pu", "##rring", "[SEP]"]
    names = found.token_names("A cat.", "query")
    assert names == ["[CLS]", "[unused0]", "a", "cat", ".", "[SEP]", *["[MASK]"] * 26]


# ------------------------------------------------------------------------------------------------ other checkpoints


def test_a_checkpoint_as_pylate_saves_it_is_the_librarys(checkpoint, minilm_folder, tmp_path):
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
    parts = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(parts)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    said = {
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 16,
        "document_length": 20,
        "attend_to_expansion_tokens": False,
        "skiplist_words": ["!", ","],
    }
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "ColBERT", **said}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 31, "do_lower_case": False}))
    found, peer = encoder(tmp_path, storage_dtype="float32"), Peer(str(tmp_path), device="cpu")
    assert_equal_to_the_library(found, peer)
    ids = tokenizer.convert_tokens_to_ids(["[CLS]", "[D] ", "a", "b", ".", "[SEP]"])
    with torch.inference_mode():
        states = bert.eval()(torch.tensor([ids])).last_hidden_state[0]
    own = torch.nn.functional.normalize(states @ checkpoint.linear.T, dim=1)
    assert_vectors(found.encode(StringColumn(["a b."]), "document"), [own])
    assert found.token_names("a, b.", "document")[2:] == ["a", "b", ".", "[SEP]"]
    assert found.token_names("a, b.", "query")[2:] == ["a", ",", "b", ".", "[SEP]", *["[MASK]"] * 9]


EXPANSIONS = [
    None,
    {"strategy": "fixed", "length": 8},
    {"strategy": "fixed", "length": 8, "attend": True},
    {"strategy": "min", "length": 8},
]


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
def test_a_checkpoint_as_sentence_transformers_saves_it_is_the_librarys(checkpoint, tmp_path, expansion):
    projection = Dense(HIDDEN, WIDTH, bias=False, activation_function=None, module_input_name="token_embeddings")
    bert = Transformer(checkpoint.path, query_expansion=expansion, document_length=24)
    modules = [bert, projection, MultiVectorMask(skiplist_words=["."]), Normalize(module_input_name="token_embeddings")]
    peer = Peer(modules=modules, prompts={"query": "ask: ", "document": "say: "}, device="cpu")
    peer.save(str(tmp_path / "saved"))
    found = encoder(tmp_path / "saved", storage_dtype="float32", batch_tokens=60)
    assert_equal_to_the_library(found, peer)
    with recording() as seen:
        found.encode(StringColumn(["a b c d e f g h i j", "a"]), "query")
    fixed = expansion is not None and expansion["strategy"] == "fixed"
    assert seen.encoders[""]["max_length"] == {"query": 8 if fixed else 64, "document": 24}
    assert seen.phase().counters[""].truncated == int(fixed)


def assert_equal_to_the_library(found, peer):
    for side, encode in (("query", peer.encode_query), ("document", peer.encode_document)):
        assert_vectors(found.encode(StringColumn(TEXTS), side), encode(TEXTS, show_progress_bar=False))


def test_without_a_projection_the_vectors_are_the_encoders_own_token_states(minilm_folder):
    model, tokenizer = AutoModel.from_pretrained(minilm_folder), AutoTokenizer.from_pretrained(minilm_folder)
    expected = []
    for text in TEXTS:
        with torch.inference_mode():
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            expected.append(torch.nn.functional.normalize(model(**tokens).last_hidden_state[0], dim=1))
    found = encoder(minilm_folder, projection="none", storage_dtype="float32")
    for side in ("query", "document"):
        tokens = found.encode(StringColumn(TEXTS), side)
        assert_vectors(tokens, expected)
        np.testing.assert_allclose(tokens.vectors.norm(dim=1).numpy(), 1.0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_bare_encoder_is_refused_where_a_projection_is_expected(checkpoint, minilm_folder, tmp_path):
    checkpoint.bert.save_pretrained(tmp_path)
    for name in VOCABULARY:
        shutil.copy(minilm_folder / name, tmp_path / name)
    for path in (minilm_folder, tmp_path):
        with pytest.raises(WeightsError) as error:
            encoder(path).encode(StringColumn(["x"]), "document")
        assert str(error.value) == (
            f"{str(path)!r} is not a late-interaction checkpoint: it has no projection, and a random one would give "
            "random rankings. Give a ColBERT model: retriever.encoder.model=colbert-ir/colbertv2.0; or use its token "
            "vectors as they are: retriever.encoder.projection=none"
        )


def test_a_vector_that_is_not_finite_is_an_error(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint.path, broken)
    held = load_file(broken / "model.safetensors")
    held["linear.weight"][5, 5] = float("nan")
    save_file(held, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError) as error:
        encoder(broken).encode(StringColumn(["some words"]), "query")
    assert str(error.value) == f"the late-interaction encoder {str(broken)!r} gave a vector that is not finite"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MultiVectorEncoder("o/n", projection="mean"), "encoder.projection='mean'; choices: own, none"),
        (
            lambda: MultiVectorEncoder("o/n", storage_dtype="int8"),
            "encoder.storage_dtype='int8'; choices: float16, float32",
        ),
        (
            lambda: ColBERT(MultiVectorEncoder("o/n"), candidates=0),
            "retriever.candidates=0 must be at least 1, or null for all documents",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_weights_are_looked_for(make, said):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value) == said


# ----------------------------------------------------------------------------------------------------------- ranking


def test_a_search_is_brute_force_maxsim_over_stanfords_vectors(checkpoint, exact):
    retriever = indexed(checkpoint)
    assert_run(retriever.search(QUERIES, 10), exact, 10)
    assert_run(retriever.search(QUERIES, 100), exact, 60)


def test_half_precision_takes_half_the_bytes_and_scores_the_vectors_it_holds(checkpoint, asked):
    whole, half = indexed(checkpoint), indexed(checkpoint, storage_dtype="float16")
    vectors = half._tokens.vectors
    assert (whole._tokens.vectors.dtype, vectors.dtype) == (torch.float32, torch.float16)
    assert torch.equal(vectors, whole._tokens.vectors.half())
    held = 61 * 8
    assert half.nbytes() == held + len(vectors) * WIDTH * 2
    assert (half.nbytes() - held) * 2 == whole.nbytes() - held
    assert_run(half.search(QUERIES, 10), maxsim(asked, [half._tokens.vectors_of(doc) for doc in range(60)]), 10)


def test_given_candidates_score_as_in_a_search_and_empty_places_do_not(checkpoint):
    retriever = indexed(checkpoint)
    run = retriever.search(QUERIES, 8)
    docs = run.docs[:, ::-1].copy()
    docs[3, 2:5] = -1
    docs[4] = -1
    scores = retriever.score(QUERIES, docs)
    expected = np.where(docs >= 0, run.scores[:, ::-1], -np.inf)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert retriever.score(QUERIES[:0], docs[:0]).shape == (0, 8)


def test_why_a_document_ranks_adds_up_to_its_score(checkpoint):
    retriever = indexed(checkpoint)
    docs, scores = retriever.search(QUERIES[:1], 2).hits(0)
    for doc, score, why in zip(
        docs, scores, retriever.explain(QUERIES[:1], [int(doc[1:]) for doc in docs]), strict=True
    ):
        assert len(why.rows) == QUERY
        assert sum(row[3] for row in why.rows) == pytest.approx(float(score), abs=1e-4)
        names = retriever._encoder.token_names(CORPUS.texts[int(doc[1:])], "document")
        assert all(names[row[2] - 1] == row[1] for row in why.rows)


# -------------------------------------------------------------------------------------------------------- two stages


def test_as_many_candidates_as_documents_give_the_exact_run(checkpoint):
    exact = indexed(checkpoint).search(QUERIES, 7)
    for candidates in (60, 1000):
        run = indexed(checkpoint, candidates=candidates).search(QUERIES, 7)
        assert run.docs.tolist() == exact.docs.tolist()
        np.testing.assert_allclose(run.scores, exact.scores, atol=1e-5)


def test_few_candidates_have_exact_scores_and_their_recall_is_in_the_record(checkpoint, exact):
    dataset = Dataset("made", "test", CORPUS, QUERIES, Qrels({query: {"d0": 1} for query in QUERIES.ids}))
    plan = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)
    recalls = []
    for candidates in (5, 6, 20):
        retriever = ColBERT(encoder(checkpoint.path, storage_dtype="float32"), candidates=candidates)
        measured = measure(retriever, dataset, k=5, metrics=["ndcg@5"], plan=plan)
        run = measured.run
        assert run.docs.shape == (55, 5)
        np.testing.assert_allclose(run.scores, np.take_along_axis(exact, run.docs.astype(np.int64), axis=1), atol=1e-4)
        best = np.argsort(-exact, axis=1, kind="stable")[:50, :5]
        by_hand = np.mean([len(set(own) & set(right)) / 5 for own, right in zip(run.docs[:50], best, strict=True)])
        assert measured.description.recall_of_exact[""].recall == pytest.approx(by_hand, abs=1e-9)
        recalls.append(by_hand)
        assert measured.timing.index_bytes == retriever._tokens.nbytes + retriever._centroids.nbytes
    assert 0 < recalls[0] < 1
    assert recalls == sorted(recalls)


def test_a_search_gives_no_more_than_k_however_many_candidates(checkpoint):
    assert indexed(checkpoint, candidates=20).search(QUERIES, 3).docs.shape == (55, 3)
    assert indexed(checkpoint, candidates=2).search(QUERIES, 9).docs.shape == (55, 9), "at least k are candidates"


def test_an_exact_search_says_nothing_of_recall(checkpoint):
    with recording() as seen:
        indexed(checkpoint).search(QUERIES, 5)
    assert not seen.deferred


@pytest.mark.parametrize("candidates", [None, 4])
def test_a_corpus_without_documents_can_be_indexed_and_searched(checkpoint, candidates):
    retriever = ColBERT(encoder(checkpoint.path), candidates=candidates)
    retriever.index(Corpus([], []))
    assert retriever.search(QUERIES[:2], 3).docs.shape == (2, 0)


def test_a_stanford_checkpoint_without_its_projection_is_refused(checkpoint, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint.path, bare)
    held = load_file(bare / "model.safetensors")
    del held["linear.weight"]
    save_file(held, bare / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"has no tensor 'linear.weight': its projection is missing"):
        encoder(bare).encode(StringColumn(["x"]), "document")
