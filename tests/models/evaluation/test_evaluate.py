"""Tests of harness/evaluation/evaluate.py: records are reused, and failures leave failed records."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.datasets import fruit_dataset
from support.retrievers import UNTIMED, CorpusOrder

from harness.errors import RunError
from harness.evaluation.evaluate import Settings, evaluate
from harness.evaluation.identity import retriever_identity
from harness.evaluation.timing import TimingPlan
from harness.retrievers.bm25 import BM25
from harness.store import Store
from harness.text.tokenizer import Tokenizer
from harness.types import Qrels, Run


def test_an_evaluation_without_a_config_is_stored_and_reused(tmp_path):
    store = Store(tmp_path)
    first, second = CorpusOrder(), CorpusOrder()
    record = evaluate(first, fruit_dataset(), settings=UNTIMED, store=store)
    assert record.metrics == {"ndcg@10": pytest.approx(1 / np.log2(3))}
    assert record.timing is None
    assert record.retriever.label == "CorpusOrder"
    assert evaluate(second, fruit_dataset(), settings=UNTIMED, store=store) == record
    assert (first.n_indexed, second.n_indexed) == (1, 0)
    assert evaluate(CorpusOrder(), fruit_dataset(), settings=UNTIMED, store=store, resume=False) != record
    assert evaluate(BM25(Tokenizer()), fruit_dataset(), settings=UNTIMED, store=store).metrics["ndcg@10"] == 1.0


def test_a_record_of_other_code_is_reused_unless_the_same_code_is_wanted(tmp_path, monkeypatch):
    store = Store(tmp_path)
    record = evaluate(CorpusOrder(), fruit_dataset(), settings=UNTIMED, store=store)
    assert evaluate(CorpusOrder(), fruit_dataset(), settings=UNTIMED, store=store, resume="same_code") == record
    monkeypatch.setattr("harness.environment.code_hash", lambda config: "0" * 16)
    assert evaluate(CorpusOrder(), fruit_dataset(), settings=UNTIMED, store=store) == record
    newer = evaluate(CorpusOrder(), fruit_dataset(), settings=UNTIMED, store=store, resume="same_code")
    assert (newer.id, newer.code) == (record.id, "0" * 16)
    assert evaluate(CorpusOrder(), fruit_dataset(), settings=UNTIMED, store=store, resume="same_code") == newer


class OrderBySign(CorpusOrder):
    """Ranks the documents in the order of the corpus, or in the reverse order."""

    def __init__(self, sign: float = -1.0):
        super().__init__()
        self.sign = sign

    def search(self, queries, k):
        run = super().search(queries, k)
        return Run(queries.ids, self.corpus.ids, run.docs, self.sign * run.docs.astype(np.float32))


def test_an_object_with_a_changed_attribute_is_evaluated_again(tmp_path):
    store, retriever = Store(tmp_path), OrderBySign()
    data = replace(fruit_dataset(), qrels=Qrels({"q": {"a": 1}}))
    first = evaluate(retriever, data, settings=UNTIMED, store=store)
    assert evaluate(retriever, data, settings=UNTIMED, store=store) == first
    assert retriever.n_indexed == 1
    retriever.sign = 1.0
    second = evaluate(retriever, data, settings=UNTIMED, store=store)
    assert [record.metrics["ndcg@10"] for record in (first, second)] == [1.0, 0.5]
    assert second.retriever.identity == retriever_identity(OrderBySign(1.0)) != first.retriever.identity


TIMED = Settings(k=10, metrics=("ndcg@10",), timing=TimingPlan(warmup_documents=1, repeats=1, latency_queries=1))


def test_scores_without_timing_are_read_from_a_timed_record(tmp_path):
    store, untimed = Store(tmp_path), CorpusOrder()
    timed = evaluate(CorpusOrder(), fruit_dataset(), settings=TIMED, store=store)
    assert evaluate(untimed, fruit_dataset(), settings=UNTIMED, store=store) == timed
    assert untimed.n_indexed == 0
    for change in ({"k": 20}, {"seed": 1}, {"metrics": ("ndcg@10", "map@10")}):
        evaluate(untimed, fruit_dataset(), settings=UNTIMED.model_copy(update=change), store=store)
    assert untimed.n_indexed == 3
    assert evaluate(untimed, fruit_dataset(), settings=UNTIMED, store=store, resume=False) != timed


def test_a_record_without_timing_is_not_reused_if_timing_is_wanted(tmp_path):
    untimed = evaluate(CorpusOrder(), fruit_dataset(), settings=UNTIMED, store=Store(tmp_path))
    timed = evaluate(CorpusOrder(), fruit_dataset(), settings=TIMED, store=Store(tmp_path))
    assert (untimed.timing, timed.scores_id) == (None, untimed.scores_id)
    assert timed.timing is not None


def test_without_a_store_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(k=2, metrics=("ndcg@2",), timing=TimingPlan(warmup_documents=1, repeats=2, latency_queries=1))
    assert evaluate(CorpusOrder(), fruit_dataset(), settings=settings).timing.latency_ms
    assert list(tmp_path.iterdir()) == []


# ---- Failures


@pytest.mark.parametrize(
    ("error", "message"), [(ValueError("bad"), "ValueError: bad"), (SystemExit(3), "SystemExit: 3")]
)
def test_an_error_in_a_retriever_leaves_a_failed_record(tmp_path, error, message):
    store = Store(tmp_path)
    with pytest.raises((ValueError, RunError), match=r"bad|sys\.exit\(3\)"):
        evaluate(CorpusOrder(error), fruit_dataset(), settings=UNTIMED, store=store)
    (record,) = store.records()
    assert (record.status, record.error) == ("failed", message)
    assert record.dataset.fingerprint == fruit_dataset().fingerprint


def test_a_keyboard_interrupt_leaves_no_record(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(CorpusOrder(KeyboardInterrupt()), fruit_dataset(), settings=UNTIMED, store=store)
    assert list(store.records()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


EXIT_DURING_SEARCH = """
import os, sys
sys.path[:0] = {path}
from pathlib import Path
from support.datasets import fruit_dataset
from support.retrievers import UNTIMED, CorpusOrder
from harness.evaluation.evaluate import evaluate
from harness.store import Store

class Exiting(CorpusOrder):
    def search(self, queries, k):
        os._exit(9)

evaluate(Exiting(), fruit_dataset(), settings=UNTIMED, store=Store(Path({root!r})))
"""


def test_a_process_that_exits_leaves_a_failed_record(tmp_path):
    script = EXIT_DURING_SEARCH.format(path=sys.path, root=str(tmp_path / "results"))
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 9, process.stderr
    (record,) = Store(tmp_path / "results").records()
    assert record.status == "failed"
    assert record.error.startswith("ProcessDied")
    assert record.dataset.name == "fruit"
    assert [record] == list(Store(tmp_path / "results").records()), "the failed record is written once"


def test_a_truncated_marker_of_a_running_evaluation_is_removed(tmp_path):
    record = evaluate(CorpusOrder(), fruit_dataset(), settings=UNTIMED, store=Store(tmp_path))
    marker = tmp_path / "records" / "fruit" / "CorpusOrder" / ".20260101T000000.000000Z-abcdef01.99999999.pending"
    for content in ("", '{"version": 1'):
        marker.write_text(content)
        assert list(Store(tmp_path).records()) == [record]
        assert not marker.exists()


def test_sys_exit_in_a_retriever_is_an_error_without_a_store():
    with pytest.raises(RunError, match=r"sys\.exit\(3\)"):
        evaluate(CorpusOrder(SystemExit(3)), fruit_dataset(), settings=UNTIMED)


def test_a_running_evaluation_has_no_failed_record(tmp_path):
    store = Store(tmp_path)
    records_during_search = []

    class RecordReader(CorpusOrder):
        def search(self, queries, k):
            records_during_search.append(list(store.records()))
            return super().search(queries, k)

    evaluate(RecordReader(), fruit_dataset(), settings=UNTIMED, store=store)
    assert records_during_search == [[]]
