"""Tests of training data: rows of anchors and documents, held-out dev queries, and the check for leaks."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from harness.datasets import folder
from harness.encoders.dense import DenseEncoder
from harness.errors import ConfigError
from harness.metrics import parse, score
from harness.retrievers.dense import Dense
from harness.train.dev import Evaluator, from_split, hold_out
from harness.train.examples import Examples, from_dataset, from_file
from harness.train.leaks import check_leaks, find_leaks
from harness.train.negatives import Mined, Random
from harness.train.plan import LeakPlan
from harness.train.triplets import Triplets, write
from harness.types import Corpus, Dataset, Qrels, Queries, Run

LONG = " ".join(f"word{number}" for number in range(60))
CATS = "why do cats purr?"
SMALL = Corpus(["a", "b", "c", "d"], ["Cats purr.", f"A title {LONG}", "Dogs bark.", "The moon."])


def rows_of(anchors, documents, rows):
    """Return training examples; each of `rows` has the numbers of an anchor, its positive and its negatives."""
    known = {}
    for anchor, positive, *_ in rows:
        known.setdefault(anchor, {})[positive] = 1
    corpus = Corpus([str(number) for number in range(len(documents))], documents)
    return Examples(anchors, corpus, np.array(rows, np.int64), known, "tiny")


def dataset_of(*queries, relevant):
    """Return the test split of a small dataset, in which one document is relevant to every query."""
    ids = [f"t{number}" for number in range(len(queries))]
    return Dataset("small", "test", SMALL, Queries(ids, queries), Qrels({key: {relevant: 1} for key in ids}))


def leaks_by_kind(anchors, documents, test):
    """Return the leaks of a test split into rows of one anchor and one document each."""
    rows = [[number, number] for number in range(len(anchors))]
    return {leak.kind: leak for leak in find_leaks(rows_of(list(anchors), list(documents), rows), test)}


@pytest.mark.parametrize("query", ["why do cats purr?", "Why do CATS purr", "  why\tdo cats—purr "])
def test_test_query_in_other_spelling_is_a_leak(query):
    leak = leaks_by_kind([query, "what else"], ["x", "y"], dataset_of(CATS, relevant="a"))["queries"]
    assert (leak.count, leak.total) == (1, 1)
    assert leak.rows.tolist() == [True, False]


def test_different_query_is_not_a_leak():
    assert leaks_by_kind(["why do cats sleep?"], ["x"], dataset_of(CATS, relevant="a")) == {}


@pytest.mark.parametrize(
    "text", [f"A title {LONG}", LONG, f"A title {LONG} more", f"other {LONG}", f"A TITLE {LONG.upper()}!"]
)
def test_test_document_without_its_title_or_end_is_a_leak(text):
    leak = leaks_by_kind(["anything"], [text], dataset_of(CATS, relevant="b"))["positives"]
    assert (leak.count, leak.total) == (1, 1)


def test_document_relevant_to_no_test_query_is_not_a_leak():
    assert leaks_by_kind(["anything"], ["Dogs bark."], dataset_of(CATS, relevant="b")) == {}


def test_leak_is_refused_dropped_or_allowed():
    examples = rows_of(
        ["Why do cats purr", "dogs", "moon"], ["Cats purr.", "Dogs bark.", "x"], [[0, 1], [1, 0], [2, 2]]
    )
    test = dataset_of(CATS, relevant="a")
    with pytest.raises(ConfigError) as error:
        check_leaks(examples, test, LeakPlan())
    assert "1 of 1 queries of small test (such as 'why do cats purr?')" in str(error.value)
    assert "1 of 1 positives of small test (such as 'Cats purr.')" in str(error.value)
    assert "leaks.queries=drop leaks.positives=drop" in str(error.value)
    assert "leaks.queries=allow leaks.positives=allow" in str(error.value)
    with pytest.raises(ConfigError, match="positives"):
        check_leaks(examples, test, LeakPlan(queries="drop"))
    remaining, leaks = check_leaks(examples, test, LeakPlan(queries="drop", positives="allow"))
    assert remaining.rows.tolist() == [[1, 0], [2, 2]]
    assert [leak.kind for leak in leaks] == ["queries", "positives"]
    remaining, _ = check_leaks(examples, test, LeakPlan(queries="drop", positives="drop"))
    assert remaining.rows.tolist() == [[2, 2]]
    remaining, _ = check_leaks(examples, test, LeakPlan(queries="allow", positives="allow"))
    assert len(remaining.rows) == 3


def test_leaks_between_the_splits_of_scifact_are_counted(real_dataset, data):
    train = folder.read(data / "scifact", "scifact", "train")
    rows = from_dataset(train, Random(0), 10, 0)
    leaks = {leak.kind: leak for leak in find_leaks(rows, real_dataset("scifact"))}
    assert leaks["queries"].count == 2, "for example: Obesity decreases life quality."
    assert leaks["positives"].count == 181
    assert len(rows.rows) == 919


def test_negatives_of_a_dataset_exclude_positives():
    corpus = Corpus([f"d{number}" for number in range(30)], [f"text {number}" for number in range(30)])
    judged = {f"q{row}": {f"d{row}": 1, f"d{row + 1}": 2, "d29": 0, "lost": 1} for row in range(10)}
    dataset = Dataset("tiny", "train", corpus, Queries(judged, judged), Qrels(judged))
    rows = from_dataset(dataset, Random(3), 1, 0)
    assert rows.rows.shape == (10, 5)
    for anchor, positive, *negatives in rows.rows.tolist():
        assert positive in (anchor, anchor + 1)
        assert not {anchor, anchor + 1} & set(negatives)
    assert rows.known[3] == {3: 1, 4: 2}
    assert len(from_dataset(dataset, Random(1), 5, 0).rows) == 20, "one row for each positive"
    assert rows.fingerprint == from_dataset(dataset, Random(3), 1, 0).fingerprint
    assert rows.fingerprint != from_dataset(dataset, Random(3), 1, 1).fingerprint


class LastDocumentFirst:
    """A retriever that ranks all documents, the last first, and records the queries of each search."""

    def __init__(self):
        self.searches = []

    def index(self, corpus):
        self.ids = corpus.ids

    def search(self, queries, k):
        self.searches.append(list(queries.texts))
        docs = np.tile(np.arange(len(self.ids), dtype=np.int32)[::-1][:k], (len(queries), 1))
        return Run(queries.ids, self.ids, docs, -np.tile(np.arange(docs.shape[1], dtype=np.float32), (len(docs), 1)))


def dataset_of_three_positives(documents=30):
    """Return a training split of five queries with three relevant documents each."""
    corpus = Corpus([f"d{number}" for number in range(documents)], [f"text {number}" for number in range(documents)])
    judged = {f"q{row}": {f"d{row + step}": 1 for step in (0, 4, 9)} for row in range(5)}
    return Dataset("tiny", "train", corpus, Queries(judged, judged), Qrels(judged))


def test_nearest_positives_are_ranked_first_by_the_retriever():
    rows = from_dataset(dataset_of_three_positives(), Random(0), 2, 0, LastDocumentFirst()).rows
    assert rows.tolist() == [[row, row + step] for row in range(5) for step in (9, 4)]


def test_unranked_positives_come_last(monkeypatch):
    monkeypatch.setattr("harness.train.examples._RANK_DEPTH", 1)
    rows = from_dataset(dataset_of_three_positives(), Random(0), 3, 0, LastDocumentFirst()).rows
    assert [set(rows[rows[:, 0] == row, 1].tolist()) for row in range(5)] == [{n, n + 4, n + 9} for n in range(5)]
    assert rows[rows[:, 0] == 4, 1].tolist()[0] == 13, "the only ranked positive of the last query"


def test_query_of_several_positives_is_searched_once():
    retriever = LastDocumentFirst()
    rows = from_dataset(dataset_of_three_positives(), Mined(retriever, 2, [1, 5]), 3, 0).rows
    assert retriever.searches == [["q0", "q1", "q2", "q3", "q4"]]
    assert len(rows) == 15
    assert set(rows[:, 2:].ravel().tolist()) <= set(range(25, 30))
    assert len(np.unique(rows[:3, 2:], axis=0)) > 1, "negatives are drawn for each row"


def test_equal_texts_of_a_file_share_one_anchor_or_document(tmp_path):
    write(tmp_path / "t.jsonl", Triplets(["a", "a", "b"], ["x", "y", "x"], [["y"], ["z"], ["z"]]))
    examples = from_file(tmp_path / "t.jsonl")
    assert examples.anchors == ["a", "b"]
    assert list(examples.documents.texts) == ["x", "y", "z"]
    assert examples.rows.tolist() == [[0, 0, 1], [0, 1, 2], [1, 0, 2]]
    assert examples.known == {0: {0: 1, 1: 1}, 1: {0: 1}}


def single_positive_rows(n=60):
    """Return `n` rows, each of another anchor and its positive."""
    return rows_of(
        [f"q{row}" for row in range(n)], [f"text {row}" for row in range(n)], [[row, row] for row in range(n)]
    )


def test_dev_queries_are_not_trained_on_and_their_positives_are_documents():
    dev, remaining = hold_out(single_positive_rows(), 100, 20, 0)
    dev_anchors = {int(key) for key in dev.queries.ids}
    assert len(dev_anchors) == 6, "a tenth at most"
    assert not dev_anchors & set(remaining.rows[:, 0].tolist())
    assert len(remaining.rows) == 54
    assert len(dev.corpus) == 20
    assert {doc for docs in dev.qrels.values() for doc in docs} <= set(dev.corpus.ids)


def test_at_most_half_of_the_dev_documents_are_relevant():
    rows = [[row, 10 * row + column] for row in range(40) for column in range(10)]
    examples = rows_of([f"q{row}" for row in range(40)], [f"text {row}" for row in range(400)], rows)
    dev, remaining = hold_out(examples, 100, 50, 0)
    assert len(dev.queries) == 2
    assert len(dev.corpus) == 50
    assert len({int(anchor) for anchor in remaining.rows[:, 0]}) == 38, "the other queries are trained on"
    all_documents, _ = hold_out(examples, 100, None, 0)
    assert (len(all_documents.queries), len(all_documents.corpus)) == (4, 400)


def test_too_few_queries_for_a_dev_split_are_refused():
    with pytest.raises(ConfigError, match=r"tiny has 5 training queries, too few .* dev\.split=dev"):
        hold_out(single_positive_rows(5), 100, 20, 0)


def test_dev_split_is_sampled(real_dataset):
    dev = from_split(real_dataset("cranfield"), 10, 200, 0)
    assert len(dev.queries) == 10
    assert len(dev.corpus) == 200
    assert all(docs for docs in dev.qrels.values())


def test_dev_metric_equals_the_metric_of_the_harness(minilm, models):
    dev, _ = hold_out(single_positive_rows(), 100, 60, 0)
    encoder = DenseEncoder(str(models / "all-MiniLM-L6-v2"), device="cpu")
    model = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    evaluator = Evaluator(dev, Dense(encoder), encoder, parse("mrr@10"), bfloat16=False)
    minilm.index(dev.corpus)
    run: Run = minilm.search(dev.queries, 10)
    _, values = score(run, dev.qrels, [parse("mrr@10")])
    assert evaluator(model) == {"mrr@10": pytest.approx(float(values["mrr@10"].mean()))}


def test_max_length_of_config_and_training_is_applied(models):
    path = str(models / "all-MiniLM-L6-v2")
    model = SentenceTransformer(path, device="cpu")  # reads 256 tokens
    for configured, trained, used in (
        (None, None, 256),
        (None, 64, 64),
        (None, 400, 256),
        (32, 64, 32),
        (512, None, 512),
    ):
        with DenseEncoder(path, device="cpu", max_length=configured).truncated_to(model, trained):
            assert model.max_seq_length == used
        assert model.max_seq_length == 256
    encoder = DenseEncoder(path, device="cpu")
    encoder.limit_length(64)
    encoder.load()
    assert encoder._model.max_seq_length == 64
