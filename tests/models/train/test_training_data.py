"""What is trained on: rows, dev queries that are held out, and the guard against leaks."""

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.metrics import parse, score
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
    known = {}
    for anchor, positive, *_ in rows:
        known.setdefault(anchor, {})[positive] = 1
    corpus = Corpus([str(number) for number in range(len(documents))], documents)
    return Examples(anchors, corpus, np.array(rows, np.int64), known, "made")


def held(*queries, relevant):
    """The test split of a small collection, each query answered by one document."""
    ids = [f"t{number}" for number in range(len(queries))]
    return Dataset("small", "test", SMALL, Queries(ids, queries), Qrels({key: {relevant: 1} for key in ids}))


def found(anchors, documents, test):
    rows = [[number, number] for number in range(len(anchors))]
    return {leak.kind: leak for leak in find_leaks(rows_of(list(anchors), list(documents), rows), test)}


@pytest.mark.parametrize("asked", ["why do cats purr?", "Why do CATS purr", "  why\tdo cats—purr "])
def test_a_test_query_is_found_also_in_other_writing(asked):
    leak = found([asked, "what else"], ["x", "y"], held(CATS, relevant="a"))["queries"]
    assert (leak.count, leak.total) == (1, 1)
    assert leak.rows.tolist() == [True, False]


def test_another_query_is_no_leak():
    assert found(["why do cats sleep?"], ["x"], held(CATS, relevant="a")) == {}


@pytest.mark.parametrize(
    "text", [f"A title {LONG}", LONG, f"A title {LONG} more", f"other {LONG}", f"A TITLE {LONG.upper()}!"]
)
def test_a_test_document_is_found_also_without_its_title_or_its_end(text):
    leak = found(["anything"], [text], held(CATS, relevant="b"))["positives"]
    assert (leak.count, leak.total) == (1, 1)


def test_a_document_that_answers_no_test_query_may_be_trained_on():
    assert found(["anything"], ["Dogs bark."], held(CATS, relevant="b")) == {}


def test_a_leak_is_refused_dropped_or_allowed():
    made = rows_of(["Why do cats purr", "dogs", "moon"], ["Cats purr.", "Dogs bark.", "x"], [[0, 1], [1, 0], [2, 2]])
    with pytest.raises(ConfigError) as refused:
        check_leaks(made, held(CATS, relevant="a"), LeakPlan())
    assert "1 of 1 queries of small test (such as 'why do cats purr?')" in str(refused.value)
    assert "1 of 1 positives of small test (such as 'Cats purr.')" in str(refused.value)
    assert "leaks.queries=drop leaks.positives=drop" in str(refused.value)
    assert "leaks.queries=allow leaks.positives=allow" in str(refused.value)
    with pytest.raises(ConfigError, match="positives"):
        check_leaks(made, held(CATS, relevant="a"), LeakPlan(queries="drop"))
    kept, told = check_leaks(made, held(CATS, relevant="a"), LeakPlan(queries="drop", positives="allow"))
    assert kept.rows.tolist() == [[1, 0], [2, 2]]
    assert [leak.kind for leak in told] == ["queries", "positives"]
    assert check_leaks(made, held(CATS, relevant="a"), LeakPlan(queries="drop", positives="drop"))[0].rows.tolist() == [
        [2, 2]
    ]
    assert len(check_leaks(made, held(CATS, relevant="a"), LeakPlan(queries="allow", positives="allow"))[0].rows) == 3


def test_the_splits_of_a_real_collection_leak(real_dataset, data):
    from harness.datasets import folder

    train = folder.read(data / "scifact", "scifact", "train")
    rows = from_dataset(train, Random(0), 10, 0)
    told = {leak.kind: leak for leak in find_leaks(rows, real_dataset("scifact"))}
    assert told["queries"].count == 2, "such as: Obesity decreases life quality."
    assert told["positives"].count == 181
    assert len(rows.rows) == 919


def test_rows_of_a_dataset_have_only_negatives_that_are_no_positives():
    corpus = Corpus([f"d{number}" for number in range(30)], [f"text {number}" for number in range(30)])
    judged = {f"q{row}": {f"d{row}": 1, f"d{row + 1}": 2, "d29": 0, "lost": 1} for row in range(10)}
    made = Dataset("made", "train", corpus, Queries(judged, judged), Qrels(judged))
    rows = from_dataset(made, Random(3), 1, 0)
    assert rows.rows.shape == (10, 5)
    for anchor, positive, *negatives in rows.rows.tolist():
        assert positive in (anchor, anchor + 1)
        assert not {anchor, anchor + 1} & set(negatives)
    assert rows.known[3] == {3: 1, 4: 2}
    assert len(from_dataset(made, Random(1), 5, 0).rows) == 20, "each positive is a row"
    assert rows.fingerprint == from_dataset(made, Random(3), 1, 0).fingerprint
    assert rows.fingerprint != from_dataset(made, Random(3), 1, 1).fingerprint


class Ranks:
    """Ranks every document by its number, the last first; counts the queries that it is asked."""

    def __init__(self):
        self.asked = []

    def index(self, corpus):
        self.ids = corpus.ids

    def search(self, queries, k):
        self.asked.append(list(queries.texts))
        docs = np.tile(np.arange(len(self.ids), dtype=np.int32)[::-1][:k], (len(queries), 1))
        return Run(queries.ids, self.ids, docs, -np.tile(np.arange(docs.shape[1], dtype=np.float32), (len(docs), 1)))


def judged_by_many(documents=30):
    corpus = Corpus([f"d{number}" for number in range(documents)], [f"text {number}" for number in range(documents)])
    judged = {f"q{row}": {f"d{row + step}": 1 for step in (0, 4, 9)} for row in range(5)}
    return Dataset("made", "train", corpus, Queries(judged, judged), Qrels(judged))


def test_the_nearest_positives_are_those_that_a_retriever_ranks_first():
    rows = from_dataset(judged_by_many(), Random(0), 2, 0, Ranks()).rows
    assert rows.tolist() == [[row, row + step] for row in range(5) for step in (9, 4)]


def test_positives_that_are_not_ranked_come_after_those_that_are(monkeypatch):
    monkeypatch.setattr("harness.train.examples._RANK_DEPTH", 1)
    found = from_dataset(judged_by_many(), Random(0), 3, 0, Ranks()).rows
    assert [set(found[found[:, 0] == row, 1].tolist()) for row in range(5)] == [{n, n + 4, n + 9} for n in range(5)]
    assert found[found[:, 0] == 4, 1].tolist()[0] == 13, "the only one of the last query that is ranked"


def test_a_query_of_many_positives_is_searched_once_for_its_negatives():
    ranks = Ranks()
    rows = from_dataset(judged_by_many(), Mined(ranks, 2, [1, 5]), 3, 0).rows
    assert ranks.asked == [["q0", "q1", "q2", "q3", "q4"]]
    assert len(rows) == 15
    assert set(rows[:, 2:].ravel().tolist()) <= set(range(25, 30))
    assert len(np.unique(rows[:3, 2:], axis=0)) > 1, "each row draws its own"


def test_equal_texts_of_a_file_are_one_anchor_and_one_document(tmp_path):
    write(tmp_path / "t.jsonl", Triplets(["a", "a", "b"], ["x", "y", "x"], [["y"], ["z"], ["z"]]))
    made = from_file(tmp_path / "t.jsonl")
    assert made.anchors == ["a", "b"]
    assert list(made.documents.texts) == ["x", "y", "z"]
    assert made.rows.tolist() == [[0, 0, 1], [0, 1, 2], [1, 0, 2]]
    assert made.known == {0: {0: 1, 1: 1}, 1: {0: 1}}


def many(n=60):
    return rows_of(
        [f"q{row}" for row in range(n)], [f"text {row}" for row in range(n)], [[row, row] for row in range(n)]
    )


def test_dev_queries_are_in_no_row_and_their_answers_are_among_the_documents():
    dev, left = hold_out(many(), 100, 20, 0)
    asked = {int(key) for key in dev.queries.ids}
    assert len(asked) == 6, "a tenth at most"
    assert not asked & set(left.rows[:, 0].tolist())
    assert len(left.rows) == 54
    assert len(dev.corpus) == 20
    assert {doc for docs in dev.qrels.values() for doc in docs} <= set(dev.corpus.ids)


def test_no_more_than_half_of_the_dev_documents_answer_a_query():
    rows = [[row, 10 * row + place] for row in range(40) for place in range(10)]
    made = rows_of([f"q{row}" for row in range(40)], [f"text {row}" for row in range(400)], rows)
    dev, left = hold_out(made, 100, 50, 0)
    assert len(dev.queries) == 2
    assert len(dev.corpus) == 50
    assert len({int(anchor) for anchor in left.rows[:, 0]}) == 38, "those that are not asked are trained on"
    whole, _ = hold_out(made, 100, None, 0)
    assert (len(whole.queries), len(whole.corpus)) == (4, 400)


def test_too_few_queries_to_hold_some_out_are_refused():
    with pytest.raises(ConfigError, match=r"made has 5 training queries, too few .* dev\.split=dev"):
        hold_out(many(5), 100, 20, 0)


def test_a_dev_split_is_sampled(real_dataset):
    dev = from_split(real_dataset("cranfield"), 10, 200, 0)
    assert len(dev.queries) == 10
    assert len(dev.corpus) == 200
    assert all(docs for docs in dev.qrels.values())


def test_the_dev_figure_is_our_metric(minilm, models):
    from sentence_transformers import SentenceTransformer

    from harness.encoders.dense import DenseEncoder
    from harness.retrievers.dense import Dense

    dev, _ = hold_out(many(), 100, 60, 0)
    encoder = DenseEncoder(str(models / "all-MiniLM-L6-v2"), device="cpu")
    model = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    evaluator = Evaluator(dev, Dense(encoder), encoder, parse("mrr@10"), bfloat16=False)
    minilm.index(dev.corpus)
    run: Run = minilm.search(dev.queries, 10)
    _, values = score(run, dev.qrels, [parse("mrr@10")])
    assert evaluator(model) == {"mrr@10": pytest.approx(float(values["mrr@10"].mean()))}


def test_a_model_that_is_trained_reads_what_the_config_says_and_no_more_than_the_training(models):
    from sentence_transformers import SentenceTransformer

    from harness.encoders.dense import DenseEncoder

    path = str(models / "all-MiniLM-L6-v2")
    model = SentenceTransformer(path, device="cpu")  # reads 256 tokens
    for own, trained, read in ((None, None, 256), (None, 64, 64), (None, 400, 256), (32, 64, 32), (512, None, 512)):
        with DenseEncoder(path, device="cpu", max_length=own).truncated_to(model, trained):
            assert model.max_seq_length == read
        assert model.max_seq_length == 256
    encoder = DenseEncoder(path, device="cpu")
    encoder.limit_length(64)
    encoder.load()
    assert encoder._model.max_seq_length == 64
