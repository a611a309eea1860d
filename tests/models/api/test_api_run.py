"""Tests of harness/api/run.py: importing the package, the settings of `evaluate`, and retrievers that fail."""

import gc
import subprocess
import sys
import weakref

import pytest
from support.datasets import fruit_dataset
from support.functions import UNTIMED, shared_words

import harness
from harness.config import build
from harness.errors import ConfigError
from harness.evaluation.evaluate import DEFAULT_METRICS, Settings
from harness.evaluation.timing import TimingPlan
from harness.retrievers.bm25 import BM25
from harness.store import Store


def test_importing_the_package_imports_no_heavy_library():
    code = (
        "import sys, harness; print([m for m in sys.modules if m.split('.')[0] in {'torch', 'numpy', 'hydra', 'rich'}])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_every_name_in_all_exists_and_dir_lists_no_other():
    for name in harness.__all__:
        assert getattr(harness, name) is not None, name
    assert set(dir(harness)) == set(harness.__all__)
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = harness.evalute


@pytest.mark.slow
def test_reading_results_imports_no_torch(tmp_path, data):
    harness.evaluate("bm25", data, results_dir=tmp_path, **UNTIMED)
    code = f"import sys, harness; harness.open_results({str(tmp_path)!r}).to_pandas(); print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"


# ---- Settings


def test_invalid_settings_are_an_error_before_any_evaluation(data):
    calls: list[int] = []

    def logging_search(queries, k):
        calls.append(k)
        return shared_words(queries, k)

    for settings, message in (
        ({"metrics": ["ndgc@10"]}, "ndgc"),
        ({"metrics": ["ndcg@100"], "k": 10}, "looks deeper than k=10"),
        ({"baseline": "bm52"}, "baseline='bm52' is not one of the retrievers; choices: logging_search"),
        ({"timing": "nowhere"}, "no timing 'nowhere'"),
    ):
        with pytest.raises(ConfigError, match=message):
            harness.evaluate(logging_search, data, **settings)
    for name, message in (
        ("bm52", "no retriever 'bm52'"),
        ("bm25 k2=1", "has no key 'k2'"),
        ("bm25 +retriever.k2=1", "has no key 'k2'"),
        ("bm25 k1=high", "k1='high' must be a number"),
    ):
        with pytest.raises(ConfigError, match=message):
            harness.evaluate([logging_search, name], data)
    with pytest.raises(ConfigError, match="no dataset 'scifatc'"):
        harness.evaluate([logging_search], [data, "scifatc"])
    assert calls == []


def test_the_defaults_are_those_of_the_command_line():
    config = build.composed(["retriever=bm25"])
    assert tuple(config["metrics"]) == DEFAULT_METRICS
    assert (config["k"], config["seed"]) == (Settings().k, Settings().seed)
    assert TimingPlan(**config["timing"]) == TimingPlan() == Settings().timing


def test_nothing_is_written_without_a_results_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harness.evaluate("bm25", data)
    assert list(tmp_path.iterdir()) == []


# ---- Retrievers that fail


def test_a_failing_retriever_is_a_warning_and_the_rest_are_evaluated(data):
    def fails(queries, k):
        raise ValueError("out of order")

    with pytest.warns(RuntimeWarning, match="fails on pets failed: ValueError: out of order"):
        results = harness.evaluate([fails, "bm25"], data, **UNTIMED)
    assert results.labels == ["bm25"]
    with pytest.raises(ValueError, match="out of order"):
        harness.evaluate(fails, data, **UNTIMED)


BROKEN = """
class Broken:
    def __init__(self, **settings):
        raise OSError("bad checkpoint")
"""


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("bm25 _target_=user_module.Broken", "bad checkpoint"),
        ("bm25 _target_=user_module.Missing", "TargetError"),
        ("bm25 _target_=no_such_user_module.Missing", "TargetError"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_a_constructor_that_fails_leaves_a_failed_record_and_the_rest_are_evaluated(
    data, tmp_path, monkeypatch, name, error, first
):
    (tmp_path / "user_module.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    retrievers = {"broken": name, "good": "bm25"} if first else {"good": "bm25", "broken": name}
    with pytest.warns(RuntimeWarning, match=rf"(?s)broken on pets failed: .*{error}"):
        results = harness.evaluate(retrievers, data, results_dir=tmp_path / "r", **UNTIMED)
    assert results.labels == ["good"]
    status = {record.retriever.label: record.status for record in Store(tmp_path / "r").records()}
    assert status == {"good": "ok", "broken": "failed"}


def test_an_invalid_value_is_a_warning_and_the_rest_are_evaluated(data):
    with pytest.warns(RuntimeWarning, match="k1=-1"):
        assert harness.evaluate(["bm25", "bm25 k1=-1"], data, **UNTIMED).labels == ["bm25"]
    with pytest.raises(ConfigError, match="k1=-1 must be 0 or more"):
        harness.evaluate("bm25 k1=-1", data, **UNTIMED)


# ---- Memory


@pytest.mark.slow
def test_an_index_is_freed_before_the_next_retriever_is_constructed(data, monkeypatch):
    indexed: list[weakref.ref[BM25]] = []
    index = BM25.index

    def index_alone(self, corpus):
        gc.collect()
        assert [ref for ref in indexed if ref() is not None] == []
        indexed.append(weakref.ref(self))
        index(self, corpus)
        if self._k1 == 3:
            raise ValueError("out of order")

    monkeypatch.setattr(BM25, "index", index_alone)
    with pytest.warns(RuntimeWarning, match="out of order"):
        harness.evaluate(["bm25", "bm25 k1=3", "bm25 k1=2"], [data, fruit_dataset()], **UNTIMED)
    assert len(indexed) == 6


def test_a_retriever_passed_as_an_object_keeps_its_index(data):
    retriever = BM25()
    harness.evaluate([retriever, "bm25"], data, **UNTIMED)
    assert len(retriever.search(data.queries, 1)) == len(data.queries)
