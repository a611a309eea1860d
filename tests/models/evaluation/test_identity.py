"""Tests of harness/evaluation/identity.py: which retrievers and evaluations are the same."""

import functools
import importlib
import json
import logging
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from support.datasets import fruit_dataset
from support.models import write_dense

from harness import versions, weights
from harness.config import build
from harness.encoders.dense import DenseEncoder
from harness.evaluation.identity import evaluation_identity, in_use, retriever_identity
from harness.retrievers.bm25 import BM25
from harness.retrievers.dense import Dense
from harness.retrievers.function import Function
from harness.retrievers.hybrid import Hybrid, rrf
from harness.text.tokenizer import Tokenizer


def identity_of_config(*overrides: str) -> str:
    """Return the identity of conf/retriever/bm25.yaml with overrides."""
    config = build.composed(["retriever=bm25", *overrides])["retriever"]
    return retriever_identity(build.construct(config, "retriever"))


def test_a_config_and_a_constructor_call_are_the_same_retriever():
    assert retriever_identity(BM25(Tokenizer())) == identity_of_config()
    assert retriever_identity(BM25(Tokenizer(), 0.9)) == retriever_identity(BM25(k1=0.9, tokenizer=Tokenizer()))
    assert retriever_identity(BM25(Tokenizer(), k1=0.9)) == identity_of_config("retriever.k1=0.9")
    assert identity_of_config("retriever.k1=0.9") != identity_of_config()


def test_default_arguments_written_out_are_the_same_retriever(tmp_path):
    folder = str(write_dense(tmp_path))
    assert retriever_identity(BM25()) == identity_of_config()
    assert retriever_identity(Dense(folder)) == retriever_identity(Dense(DenseEncoder(folder)))
    retrievers = {"lexical": BM25(), "other": BM25(k1=0.9)}
    fuse = functools.partial(rrf, constant=60, weights=None)
    assert retriever_identity(Hybrid(retrievers)) == retriever_identity(Hybrid(retrievers, fuse, 100))


def test_indexing_does_not_change_the_identity():
    indexed = BM25(Tokenizer())
    indexed.index(fruit_dataset().corpus)
    assert retriever_identity(indexed) == retriever_identity(BM25(Tokenizer()))


@pytest.mark.parametrize(("with_int", "with_float"), [(BM25(k1=1), BM25(k1=1.0)), (BM25(b=0), BM25(b=0.0))])
def test_an_int_for_a_float_parameter_is_the_same_as_the_float(with_int, with_float):
    assert retriever_identity(with_int) == retriever_identity(with_float)


def test_an_int_and_a_float_differ_if_the_parameter_may_be_either():
    class UserRetriever:
        def __init__(self, boost: "float | None" = None, min_df: "int | float" = 1):
            self.boost, self.min_df = boost, min_df

    def hybrid(constant):
        return Hybrid({"lexical": BM25()}, functools.partial(rrf, constant=constant))

    assert retriever_identity(UserRetriever(2)) == retriever_identity(UserRetriever(2.0))
    assert retriever_identity(UserRetriever(min_df=1)) != retriever_identity(UserRetriever(min_df=1.0))
    assert retriever_identity(hybrid(60)) == retriever_identity(hybrid(60.0))
    assert retriever_identity(build.construct({"_target_": BM25.__module__ + ".BM25", "k1": 2}, "")) == (
        retriever_identity(BM25(k1=2.0))
    )


def test_the_fusions_arguments_count():
    def hybrid(constant: float) -> Hybrid:
        return Hybrid({"lexical": BM25(Tokenizer())}, functools.partial(rrf, constant=constant))

    assert retriever_identity(hybrid(60)) == retriever_identity(hybrid(60)) != retriever_identity(hybrid(10))


def test_the_order_of_a_hybrids_retrievers_counts():
    """The weights of the fusion are given in that order."""
    fuse = functools.partial(rrf, constant=60, weights=[1, 2])
    retrievers = {"a": BM25(), "b": BM25(k1=0.9)}
    reordered = dict([*retrievers.items()][::-1])
    assert retriever_identity(Hybrid(retrievers, fuse)) != retriever_identity(Hybrid(reordered, fuse))


def test_every_argument_of_an_evaluation_counts():
    defaults = {"retriever": "r", "dataset": "d", "k": 10, "metrics": ["ndcg@10"], "timing": {"repeats": 3}, "seed": 0}
    changes = [
        {},
        {"retriever": "s"},
        {"dataset": "e"},
        {"k": 11},
        {"metrics": ["ndcg@10", "map@10"]},
        {"timing": None},
        {"timing": {"repeats": 4}},
        {"seed": 1},
    ]
    assert len({evaluation_identity(**{**defaults, **change}) for change in changes}) == len(changes)


@pytest.mark.parametrize("name", ["METRICS", "DATASETS", "RANKING"])
def test_a_raised_version_is_another_evaluation(name, monkeypatch):
    def identity() -> str:
        retriever = retriever_identity(BM25(Tokenizer()))
        return evaluation_identity(retriever, "d", k=10, metrics=["ndcg@10"], timing=None, seed=0)

    before = identity()
    monkeypatch.setattr(versions, name, getattr(versions, name) + 1)
    assert identity() != before


# ---- Files and weights


def test_a_run_file_counts_by_its_content(tmp_path):
    path = tmp_path / "x.trec"
    identities = []
    for score in (1, 2):
        path.write_text(f"q Q0 a 1 {score} tag\n")
        config = build.composed(["retriever=run_file", f"retriever.path={path}"])["retriever"]
        identities.append(retriever_identity(build.construct(config, "retriever")))
    assert identities[0] != identities[1]


class HasTexts:
    """Has text arguments, which may be paths."""

    def __init__(self, **texts):
        self.texts = texts


@pytest.mark.parametrize(
    ("texts", "counts"),
    [
        ({"weights": "weights.npz"}, True),
        ({"weights": "sub/plain"}, True),
        ({"stages": ["weights.npz"]}, True),
        ({"checkpoint": "./sub"}, True),
        ({"model": "sub"}, True),
        ({"model_path": "plain"}, True),
        ({"language": "sub"}, False),
        ({"title": "plain"}, False),
        ({"separator": "/"}, False),
        ({"up": ".."}, False),
    ],
    ids=str,
)
def test_an_argument_that_is_a_path_counts_by_the_files_content(tmp_path, monkeypatch, texts, counts):
    monkeypatch.chdir(tmp_path)
    files = ("weights.npz", "plain", "sub/plain")
    Path("sub").mkdir()
    identities = []
    for content in ("one", "two"):
        for name in files:
            Path(name).write_text(content)
        identities.append(retriever_identity(HasTexts(**texts)))
    assert (identities[0] != identities[1]) is counts


COMMITS = ("5c38ec7c405ec4b44b94cc5a9bb96e735b38267a", "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a")


def test_a_branch_on_the_hub_counts_by_its_commit(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--org--tiny"
    for commit in COMMITS:
        (repository / "snapshots" / commit).mkdir(parents=True)
        for name in ("config.json", "modules.json", "model.safetensors"):
            (repository / "snapshots" / commit / name).write_text("{}")
    (repository / "refs").mkdir()
    identities = []
    for commit in COMMITS:
        (repository / "refs" / "main").write_text(commit)
        identities.append(weights.identity("org/tiny@main"))
        assert weights.identity("org/tiny") == weights.identity(f"org/tiny@{commit}") == identities[-1]
    assert identities[0] != identities[1]


def test_an_unresolved_branch_never_has_the_same_identity(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_is_hub_reachable", lambda: False)
    assert weights.identity("org/tiny@v1") != weights.identity("org/tiny@v1")
    pinned = f"org/tiny@{COMMITS[0]}"
    assert weights.identity(pinned) == pinned


# ---- Functions and users' classes


def test_functions_count_by_their_code_and_closure():
    class UserRetriever:
        def __init__(self, rank):
            self.rank = rank

    def closure(weight):
        return lambda queries: weight

    assert retriever_identity(UserRetriever(closure(1))) == retriever_identity(UserRetriever(closure(1)))
    assert retriever_identity(UserRetriever(closure(1))) != retriever_identity(UserRetriever(closure(2)))
    assert retriever_identity(UserRetriever(lambda queries: 1)) != retriever_identity(UserRetriever(lambda queries: 2))


WEIGHT = 1


def search_with_global(queries, k):
    return WEIGHT


def test_a_functions_defaults_and_globals_count(monkeypatch):
    def make_search(weight):
        def search(queries, k, weight=weight):
            return weight

        return search

    assert retriever_identity(Function(make_search(1))) == retriever_identity(Function(make_search(1)))
    assert retriever_identity(Function(make_search(1))) != retriever_identity(Function(make_search(2)))
    before = retriever_identity(Function(search_with_global))
    monkeypatch.setattr(sys.modules[__name__], "WEIGHT", 2)
    assert retriever_identity(Function(search_with_global)) != before


def test_class_attributes_and_the_shape_and_dtype_of_arrays_count():
    def identity(weight, array):
        class UserRetriever:
            WEIGHT = weight
            log = logging.getLogger("user")
            library = json

            def __init__(self):
                self.array, self.log, self.library, self.raw = array, UserRetriever.log, json, b"raw"

            @property
            def double(self):
                return 2 * self.WEIGHT

        return retriever_identity(UserRetriever())

    zeros = np.zeros(4, np.float32)
    assert identity(1, zeros) == identity(1, zeros)
    different = {identity(1, zeros), identity(2, zeros), identity(1, zeros.reshape(2, 2)), identity(1, zeros > 0)}
    assert len(different) == 4


USER_CLASSES = """
import threading


class Plain:
    def __init__(self, weight: float = 1, stages=("a",)):
        self.weight, self.stages, self.indexed = weight, list(stages), {}

    def index(self, corpus):
        self.indexed["n"] = len(corpus)
        self.size = len(corpus)


class WithLock(Plain):
    def __init__(self, weight: float = 1):
        super().__init__(weight)
        self.lock = threading.Lock()
"""


@pytest.fixture
def user_classes(project):
    """Import a user's module with classes that do not derive from the harness's."""
    (project / "classes_user.py").write_text(USER_CLASSES)
    return importlib.import_module("classes_user")


def construct(name, **arguments):
    """Construct a user's class from a config."""
    return build.construct({"_target_": f"classes_user.{name}", **arguments}, "retriever")


@pytest.mark.parametrize("order", [1, -1], ids=["config first", "python first"])
def test_a_users_class_is_the_same_retriever_from_a_config_and_from_python(user_classes, order):
    constructors = [lambda: construct("Plain", weight=2), lambda: user_classes.Plain(2.0)][::order]
    first, second = (retriever_identity(constructor()) for constructor in constructors)
    assert first == second != retriever_identity(user_classes.Plain(3.0))
    assert retriever_identity(user_classes.Plain()) == retriever_identity(construct("Plain", weight=1.0))


def test_an_object_that_cannot_be_pickled_counts_by_its_config(user_classes):
    assert retriever_identity(construct("WithLock", weight=2)) == retriever_identity(construct("WithLock", weight=2.0))
    assert retriever_identity(construct("WithLock", weight=2)) != retriever_identity(construct("WithLock"))
    first, second = user_classes.WithLock(), user_classes.WithLock()
    assert retriever_identity(first) == retriever_identity(first) != retriever_identity(second)


def test_attributes_set_during_use_do_not_count_and_those_set_by_the_user_do(user_classes):
    retriever = user_classes.Plain()
    fresh = retriever_identity(user_classes.Plain())
    for documents in ("ab", "abc"):
        with in_use(retriever) as identity:
            retriever.index(documents)
        assert identity == fresh == retriever_identity(retriever)
    retriever.weight = 2
    assert retriever_identity(retriever) == retriever_identity(user_classes.Plain(2))
    retriever.weight, retriever.stages = 1, ["b"]
    assert retriever_identity(retriever) == retriever_identity(user_classes.Plain(stages=["b"]))
    retriever.stages[:] = ["a"]
    assert retriever_identity(retriever) == fresh
    retriever.size = 7
    assert retriever_identity(retriever) != fresh, "the user changed an attribute that indexing had set"


def test_attributes_that_a_nested_object_sets_during_use_do_not_count(user_classes):
    class Outer:
        def __init__(self):
            self.inner = user_classes.Plain()

    retriever, fresh = Outer(), retriever_identity(Outer())
    with in_use(retriever):
        retriever.inner.index("abc")
    assert retriever_identity(retriever) == fresh
    retriever.inner.weight = 2
    assert retriever_identity(retriever) != fresh


def test_a_setting_resolved_during_use_counts_once_the_user_sets_it(user_classes):
    retriever = user_classes.Plain(None)
    with in_use(retriever) as before:
        retriever.weight = 1.5
    assert retriever_identity(retriever) == before
    retriever.weight = 2.0
    assert retriever_identity(retriever) == retriever_identity(user_classes.Plain(2.0)) != before


def test_a_public_attribute_counts_by_its_current_value():
    class UserRetriever(BM25):
        def __init__(self, boost: float = 1.0):
            super().__init__()
            self.boost = boost

    retriever = UserRetriever()
    retriever.boost = 2.0
    assert retriever_identity(retriever) == retriever_identity(UserRetriever(2)) != retriever_identity(UserRetriever())


def test_attributes_in_slots_count():
    class Slotted:
        __slots__ = ("__dict__", "weight")

        def __init__(self, weight):
            self.weight, self.other = weight, 1

    assert retriever_identity(Slotted(1)) == retriever_identity(Slotted(1)) != retriever_identity(Slotted(2))


def test_an_argument_that_is_kept_in_a_private_attribute_cannot_be_changed():
    """Setting it would have no effect on the scores; the identity must not follow it."""
    retriever = BM25()
    with pytest.raises(AttributeError, match=r"k1 of BM25 cannot be changed.*BM25\(k1=2.0"):
        retriever.k1 = 2.0
