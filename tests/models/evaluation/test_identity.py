"""Which evaluations are the same: arguments, weights and user code count, comments in the harness do not."""

import functools
import importlib
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from harness import user_code, versions, weights
from harness.config import build
from harness.errors import RunError
from harness.evaluation.evaluate import Settings, evaluate
from harness.evaluation.identity import evaluation_identity, in_use, retriever_identity
from harness.evaluation.timing import TimingPlan
from harness.retrievers.bm25 import BM25
from harness.retrievers.function import Function
from harness.retrievers.hybrid import Hybrid, rrf
from harness.store import Store
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Dataset, Qrels, Queries, Run

QUICK = Settings(k=10, metrics=("ndcg@10",), timing=None)


def of_config(*overrides: str) -> str:
    config = build.composed(["retriever=bm25", *overrides])["retriever"]
    return retriever_identity(build.construct(config, "retriever"))


def dataset() -> Dataset:
    corpus = Corpus(["a", "b", "c"], ["apples and pears", "pears", "plums"])
    return Dataset("made", "test", corpus, Queries(["q"], ["pears"]), Qrels({"q": {"b": 1}}))


# ------------------------------------------------------------------------------------------------- arguments


def test_a_config_and_a_constructor_call_are_the_same_retriever():
    assert retriever_identity(BM25(Tokenizer())) == of_config()
    assert retriever_identity(BM25(Tokenizer(), 0.9)) == retriever_identity(BM25(k1=0.9, tokenizer=Tokenizer()))
    assert retriever_identity(BM25(Tokenizer(), k1=0.9)) == of_config("retriever.k1=0.9") != of_config()


def test_short_forms_of_arguments_are_the_same_retriever(tmp_path):
    from support.models import write_dense

    from harness.encoders.dense import DenseEncoder
    from harness.retrievers.dense import Dense

    folder = str(write_dense(tmp_path))
    assert retriever_identity(BM25()) == of_config()
    assert retriever_identity(Dense(folder)) == retriever_identity(Dense(DenseEncoder(folder)))
    parts = {"lexical": BM25(), "other": BM25(k1=0.9)}
    fused = functools.partial(rrf, constant=60, weights=None)
    assert retriever_identity(Hybrid(parts)) == retriever_identity(Hybrid(parts, fused, 100))


def test_indexing_changes_no_identity():
    before, after = BM25(Tokenizer()), BM25(Tokenizer())
    after.index(dataset().corpus)
    assert retriever_identity(after) == retriever_identity(before)


@pytest.mark.parametrize(("whole", "decimal"), [(BM25(k1=1), BM25(k1=1.0)), (BM25(b=0), BM25(b=0.0))])
def test_a_whole_number_for_a_float_is_that_float(whole, decimal):
    assert retriever_identity(whole) == retriever_identity(decimal)


def test_a_whole_number_stays_one_where_the_parameter_is_no_float_alone():
    class Mine:
        def __init__(self, boost: "float | None" = None, min_df: "int | float" = 1):
            self.boost, self.min_df = boost, min_df

    def fused(constant):
        return Hybrid({"lexical": BM25()}, functools.partial(rrf, constant=constant))

    assert retriever_identity(Mine(2)) == retriever_identity(Mine(2.0))
    assert retriever_identity(Mine(min_df=1)) != retriever_identity(Mine(min_df=1.0))
    assert retriever_identity(fused(60)) == retriever_identity(fused(60.0))
    assert retriever_identity(build.construct({"_target_": BM25.__module__ + ".BM25", "k1": 2}, "")) == (
        retriever_identity(BM25(k1=2.0))
    )


def test_parts_and_fusion_are_a_hybrids_arguments():
    def hybrid(constant: float) -> Hybrid:
        return Hybrid({"lexical": BM25(Tokenizer())}, functools.partial(rrf, constant=constant))

    assert retriever_identity(hybrid(60)) == retriever_identity(hybrid(60)) != retriever_identity(hybrid(10))


def test_an_evaluation_is_another_when_anything_that_counts_is_another():
    usual = {"retriever": "r", "dataset": "d", "k": 10, "metrics": ["ndcg@10"], "timing": {"repeats": 3}, "seed": 0}
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
    assert len({evaluation_identity(**{**usual, **change}) for change in changes}) == len(changes)


@pytest.mark.parametrize("name", ["METRICS", "DATASETS", "RANKING"])
def test_a_raised_version_is_another_evaluation(name, monkeypatch):
    def identity() -> str:
        retriever = retriever_identity(BM25(Tokenizer()))
        return evaluation_identity(retriever, "d", k=10, metrics=["ndcg@10"], timing=None, seed=0)

    before = identity()
    monkeypatch.setattr(versions, name, getattr(versions, name) + 1)
    assert identity() != before


def test_a_file_counts_by_its_content_under_the_same_name(tmp_path):
    path = tmp_path / "x.trec"
    identities = []
    for score in (1, 2):
        path.write_text(f"q Q0 a 1 {score} tag\n")
        config = build.composed(["retriever=run_file", f"retriever.path={path}"])["retriever"]
        identities.append(retriever_identity(build.construct(config, "retriever")))
    assert identities[0] != identities[1]


class Named:
    """Holds texts that may name files."""

    def __init__(self, **texts):
        self.texts = texts


@pytest.mark.parametrize(
    ("texts", "counts"),
    [
        ({"weights": "own.npz"}, True),
        ({"weights": "sub/plain"}, True),
        ({"stages": ["own.npz"]}, True),
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
def test_a_text_that_names_a_file_counts_by_its_content(tmp_path, monkeypatch, texts, counts):
    monkeypatch.chdir(tmp_path)
    files = ("own.npz", "plain", "sub/plain")
    Path("sub").mkdir()
    identities = []
    for content in ("one", "two"):
        for name in files:
            Path(name).write_text(content)
        identities.append(retriever_identity(Named(**texts)))
    assert (identities[0] != identities[1]) is counts


COMMITS = ("5c38ec7c405ec4b44b94cc5a9bb96e735b38267a", "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a")


def test_a_branch_counts_by_the_commit_that_it_points_to(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--org--tiny"
    for commit in COMMITS:
        (repository / "snapshots" / commit).mkdir(parents=True)
        for name in ("config.json", "modules.json", "model.safetensors"):
            (repository / "snapshots" / commit / name).write_text("{}")
    (repository / "refs").mkdir()
    of_main = []
    for commit in COMMITS:
        (repository / "refs" / "main").write_text(commit)
        of_main.append(weights.identity("org/tiny@main"))
        assert weights.identity("org/tiny") == weights.identity(f"org/tiny@{commit}") == of_main[-1]
    assert of_main[0] != of_main[1]


def test_a_branch_that_cannot_be_resolved_is_never_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_is_hub_reachable", lambda: False)
    assert weights.identity("org/tiny@v1") != weights.identity("org/tiny@v1")
    fixed = f"org/tiny@{COMMITS[0]}"
    assert weights.identity(fixed) == fixed


def test_functions_are_told_apart_by_their_code_and_by_what_they_hold():
    class Mine:
        def __init__(self, rank):
            self.rank = rank

    def closure(weight):
        return lambda queries: weight

    assert retriever_identity(Mine(closure(1))) == retriever_identity(Mine(closure(1)))
    assert retriever_identity(Mine(closure(1))) != retriever_identity(Mine(closure(2)))
    assert retriever_identity(Mine(lambda queries: 1)) != retriever_identity(Mine(lambda queries: 2))


def test_the_order_of_a_hybrids_parts_counts_since_weights_go_by_it():
    fused = functools.partial(rrf, constant=60, weights=[1, 2])
    parts = {"a": BM25(), "b": BM25(k1=0.9)}
    assert retriever_identity(Hybrid(parts, fused)) != retriever_identity(Hybrid(dict([*parts.items()][::-1]), fused))


WEIGHT = 1


def weighted(queries, k):
    return WEIGHT


def test_defaults_and_globals_of_a_users_function_count(monkeypatch):
    def made(weight):
        def search(queries, k, weight=weight):
            return weight

        return search

    assert retriever_identity(Function(made(1))) == retriever_identity(Function(made(1)))
    assert retriever_identity(Function(made(1))) != retriever_identity(Function(made(2)))
    before = retriever_identity(Function(weighted))
    monkeypatch.setattr(sys.modules[__name__], "WEIGHT", 2)
    assert retriever_identity(Function(weighted)) != before


def test_attributes_of_a_users_class_and_arrays_by_shape_count():
    def retriever(weight, array):
        class Mine:
            WEIGHT = weight
            log = logging.getLogger("mine")
            library = json

            def __init__(self):
                self.array, self.log, self.library, self.raw = array, Mine.log, json, b"raw"

            @property
            def double(self):
                return 2 * self.WEIGHT

        return retriever_identity(Mine())

    zeros = np.zeros(4, np.float32)
    assert retriever(1, zeros) == retriever(1, zeros)
    assert (
        len({retriever(1, zeros), retriever(2, zeros), retriever(1, zeros.reshape(2, 2)), retriever(1, zeros > 0)}) == 4
    )


# ------------------------------------------------------------------------------------------- objects of users

USERS = """
import threading


class Own:
    def __init__(self, weight: float = 1, stages=("a",)):
        self.weight, self.stages, self.indexed = weight, list(stages), {}

    def index(self, corpus):
        self.indexed["n"] = len(corpus)
        self.size = len(corpus)


class Connected(Own):
    def __init__(self, weight: float = 1):
        super().__init__(weight)
        self.lock = threading.Lock()
"""


@pytest.fixture
def users(project):
    """A module of the user's with retriever classes that are no components."""
    (project / "classes_user.py").write_text(USERS)
    return importlib.import_module("classes_user")


def constructed(name, **arguments):
    return build.construct({"_target_": f"classes_user.{name}", **arguments}, "retriever")


@pytest.mark.parametrize("order", [1, -1], ids=["config first", "python first"])
def test_an_object_of_a_users_class_is_the_same_from_a_config_and_from_python(users, order):
    ways = [lambda: constructed("Own", weight=2), lambda: users.Own(2.0)][::order]
    first, second = (retriever_identity(way()) for way in ways)
    assert first == second != retriever_identity(users.Own(3.0))
    assert retriever_identity(users.Own()) == retriever_identity(constructed("Own", weight=1.0))


def test_an_object_with_an_open_connection_is_known_by_its_config(users):
    assert retriever_identity(constructed("Connected", weight=2)) == retriever_identity(
        constructed("Connected", weight=2.0)
    )
    assert retriever_identity(constructed("Connected", weight=2)) != retriever_identity(constructed("Connected"))
    first, second = users.Connected(), users.Connected()
    assert retriever_identity(first) == retriever_identity(first) != retriever_identity(second)


def test_what_use_changes_is_no_setting_and_what_the_user_changes_is(users):
    retriever = users.Own()
    fresh = retriever_identity(users.Own())
    for documents in ("ab", "abc"):
        with in_use(retriever) as identity:
            retriever.index(documents)
        assert identity == fresh == retriever_identity(retriever)
    retriever.weight = 2
    assert retriever_identity(retriever) == retriever_identity(users.Own(2))
    retriever.weight, retriever.stages = 1, ["b"]
    assert retriever_identity(retriever) == retriever_identity(users.Own(stages=["b"]))
    retriever.stages[:] = ["a"]
    assert retriever_identity(retriever) == fresh
    retriever.size = 7
    assert retriever_identity(retriever) != fresh, "the user wrote over what indexing had set"


def test_what_use_changes_inside_a_part_is_no_setting_of_the_whole(users):
    class Whole:
        def __init__(self):
            self.part = users.Own()

    retriever, fresh = Whole(), retriever_identity(Whole())
    with in_use(retriever):
        retriever.part.index("abc")
    assert retriever_identity(retriever) == fresh
    retriever.part.weight = 2
    assert retriever_identity(retriever) != fresh


def test_a_setting_that_use_resolves_and_the_user_sets_afterwards_counts(users):
    retriever = users.Own(None)
    with in_use(retriever) as before:
        retriever.weight = 1.5
    assert retriever_identity(retriever) == before
    retriever.weight = 2.0
    assert retriever_identity(retriever) == retriever_identity(users.Own(2.0)) != before


def test_a_public_attribute_of_a_component_counts_by_its_present_value():
    class Mine(BM25):
        def __init__(self, boost: float = 1.0):
            super().__init__()
            self.boost = boost

    retriever = Mine()
    retriever.boost = 2.0
    assert retriever_identity(retriever) == retriever_identity(Mine(2)) != retriever_identity(Mine())


def test_attributes_in_slots_count():
    class Slotted:
        __slots__ = ("__dict__", "weight")

        def __init__(self, weight):
            self.weight, self.other = weight, 1

    assert retriever_identity(Slotted(1)) == retriever_identity(Slotted(1)) != retriever_identity(Slotted(2))


# ------------------------------------------------------------------------------------------------- user code


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder on the import path with a package of the user's, and modules beside it."""
    package = tmp_path / "package_of_user"
    (package / "inner").mkdir(parents=True)
    files = {
        "package_of_user/__init__.py": "",
        "package_of_user/search.py": "import sibling_of_user\nfrom .inner import deep\nfrom . import lazy_user\n",
        "package_of_user/lazy_user.py": "def f():\n    from computed_user import value\n    return value\n",
        "package_of_user/inner/__init__.py": "from package_of_user.inner.deep import value\n",
        "package_of_user/inner/deep.py": "value = 1\n",
        "sibling_of_user.py": "import importlib\nheld = importlib.import_module('named_' + 'user')\n",
        "computed_user.py": "import importlib\nimportlib.import_module('constant_user')\nvalue = 1\n",
        "constant_user.py": "",
        "named_user.py": "",
        "unrelated_user.py": "",
    }
    for name, source in files.items():
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if "_user" in name]:
        sys.modules.pop(name)


CHANGED = [
    "package_of_user/__init__.py",
    "package_of_user/search.py",
    "package_of_user/lazy_user.py",
    "package_of_user/inner/__init__.py",
    "package_of_user/inner/deep.py",
    "sibling_of_user.py",
    "computed_user.py",
    "constant_user.py",
    "named_user.py",
]


@pytest.mark.parametrize("changed", CHANGED)
def test_every_module_that_user_code_brings_in_counts(project, changed):
    importlib.import_module("package_of_user.search")
    before = user_code.code_hash(["package_of_user.search"])
    assert before == user_code.code_hash(["package_of_user.search"])
    path = project / changed
    path.write_text(path.read_text() + "# changed\n")
    assert user_code.code_hash(["package_of_user.search"]) != before


def test_a_module_that_is_not_brought_in_does_not_count(project):
    importlib.import_module("unrelated_user")
    before = user_code.code_hash(["package_of_user.search"])
    (project / "unrelated_user.py").write_text("value = 2\n")
    assert user_code.code_hash(["package_of_user.search"]) == before


def test_the_versions_of_packages_that_user_code_imports_count(project, monkeypatch):
    (project / "sibling_of_user.py").write_text("import polars\n")
    before = user_code.code_hash(["sibling_of_user"])
    usual = user_code.importlib.metadata.version

    def bumped(changed):
        monkeypatch.setattr(
            user_code.importlib.metadata, "version", lambda name: "99" if name == changed else usual(name)
        )
        return user_code.code_hash(["sibling_of_user"])

    assert bumped("polars") != before
    assert bumped("faiss-cpu") == bumped("retrieval-harness") == before


@pytest.mark.parametrize("module", ["json", "numpy", "harness.metrics", "no_such_module_of_user", "builtins"])
def test_libraries_and_the_harness_are_no_user_code(module):
    assert user_code.code_hash([module]) is None


def test_source_that_cannot_be_parsed_still_counts(project):
    (project / "sibling_of_user.py").write_text("def broken(:\n")
    first = user_code.code_hash(["sibling_of_user"])
    (project / "sibling_of_user.py").write_text("def broken((:\n")
    assert first is not None
    assert user_code.code_hash(["sibling_of_user"]) != first


# ------------------------------------------------------------------------------------------------- evaluate


class Constant:
    """Ranks the documents in one order, or leaves the process."""

    def __init__(self, fails: BaseException | None = None):
        self.fails, self.indexed = fails, 0

    def index(self, corpus):
        self.indexed += 1
        self.corpus = corpus

    def search(self, queries, k):
        if self.fails:
            raise self.fails
        docs = np.tile(np.arange(min(k, len(self.corpus)), dtype=np.int32), (len(queries), 1))
        return Run(queries.ids, self.corpus.ids, docs, -docs.astype(np.float32))

    def nbytes(self):
        return 0


def test_an_evaluation_needs_no_config_and_is_reused(tmp_path):
    store = Store(tmp_path)
    first, second = Constant(), Constant()
    record = evaluate(first, dataset(), settings=QUICK, store=store)
    assert record.metrics == {"ndcg@10": pytest.approx(1 / np.log2(3))}
    assert record.timing is None
    assert record.retriever.label == "Constant"
    assert evaluate(second, dataset(), settings=QUICK, store=store) == record
    assert (first.indexed, second.indexed) == (1, 0)
    assert evaluate(Constant(), dataset(), settings=QUICK, store=store, resume=False) != record
    assert evaluate(BM25(Tokenizer()), dataset(), settings=QUICK, store=store).metrics["ndcg@10"] == 1.0


class Ordered(Constant):
    """Ranks the documents in one of two orders."""

    def __init__(self, sign: float = -1.0):
        super().__init__()
        self.sign = sign

    def search(self, queries, k):
        run = super().search(queries, k)
        return Run(queries.ids, self.corpus.ids, run.docs, self.sign * run.docs.astype(np.float32))


def test_an_object_that_is_changed_between_two_evaluations_is_measured_again(tmp_path):
    store, retriever = Store(tmp_path), Ordered()
    data = replace(dataset(), qrels=Qrels({"q": {"a": 1}}))
    first = evaluate(retriever, data, settings=QUICK, store=store)
    assert evaluate(retriever, data, settings=QUICK, store=store) == first
    assert retriever.indexed == 1
    retriever.sign = 1.0
    second = evaluate(retriever, data, settings=QUICK, store=store)
    assert [record.metrics["ndcg@10"] for record in (first, second)] == [1.0, 0.5]
    assert second.retriever.identity == retriever_identity(Ordered(1.0)) != first.retriever.identity


TIMED = Settings(k=10, metrics=("ndcg@10",), timing=TimingPlan(warmup_documents=1, repeats=1, latency_queries=1))


def test_scores_alone_are_taken_from_a_timed_record(tmp_path):
    store, untimed = Store(tmp_path), Constant()
    timed = evaluate(Constant(), dataset(), settings=TIMED, store=store)
    assert evaluate(untimed, dataset(), settings=QUICK, store=store) == timed
    assert untimed.indexed == 0
    for change in ({"k": 20}, {"seed": 1}, {"metrics": ("ndcg@10", "map@10")}):
        evaluate(untimed, dataset(), settings=QUICK.model_copy(update=change), store=store)
    assert untimed.indexed == 3
    assert evaluate(untimed, dataset(), settings=QUICK, store=store, resume=False) != timed


def test_a_record_of_scores_alone_does_not_serve_where_times_are_wanted(tmp_path):
    scored = evaluate(Constant(), dataset(), settings=QUICK, store=Store(tmp_path))
    timed = evaluate(Constant(), dataset(), settings=TIMED, store=Store(tmp_path))
    assert (scored.timing, timed.scores_id) == (None, scored.scores_id)
    assert timed.timing is not None


def test_without_a_store_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    timed = Settings(k=2, metrics=("ndcg@2",), timing=TimingPlan(warmup_documents=1, repeats=2, latency_queries=1))
    assert evaluate(Constant(), dataset(), settings=timed).timing.latency_ms
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"), [(ValueError("bad"), "ValueError: bad"), (SystemExit(3), "SystemExit: 3")]
)
def test_a_failure_inside_a_retriever_leaves_a_failed_record(tmp_path, error, message):
    store = Store(tmp_path)
    with pytest.raises((ValueError, RunError), match=r"bad|sys\.exit\(3\)"):
        evaluate(Constant(error), dataset(), settings=QUICK, store=store)
    (record,) = store.records()
    assert (record.status, record.error) == ("failed", message)
    assert record.dataset.fingerprint == dataset().fingerprint


def test_an_interruption_leaves_no_record(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Constant(KeyboardInterrupt()), dataset(), settings=QUICK, store=store)
    assert list(store.records()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


DYING = """
import os, sys
sys.path[:0] = {path}
from pathlib import Path
from test_identity import Constant, dataset, QUICK
from harness.evaluation.evaluate import evaluate
from harness.store import Store

class Dying(Constant):
    def search(self, queries, k):
        os._exit(9)

evaluate(Dying(), dataset(), settings=QUICK, store=Store(Path({root!r})))
"""


def test_the_death_of_the_process_leaves_a_failed_record(tmp_path):
    import subprocess

    script = DYING.format(path=sys.path, root=str(tmp_path / "results"))
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 9, process.stderr
    (record,) = Store(tmp_path / "results").records()
    assert record.status == "failed"
    assert record.error.startswith("ProcessDied")
    assert record.dataset.name == "made"
    assert [record] == list(Store(tmp_path / "results").records()), "it is recovered once"


def test_a_marker_that_was_cut_off_does_not_make_the_store_unreadable(tmp_path):
    record = evaluate(Constant(), dataset(), settings=QUICK, store=Store(tmp_path))
    marker = tmp_path / "records" / "made" / "Constant" / ".20260101T000000.000000Z-abcdef01.99999999.pending"
    for content in ("", '{"version": 1'):
        marker.write_text(content)
        assert list(Store(tmp_path).records()) == [record]
        assert not marker.exists()


def test_without_a_store_an_exit_is_an_error_too():
    with pytest.raises(RunError, match=r"sys\.exit\(3\)"):
        evaluate(Constant(SystemExit(3)), dataset(), settings=QUICK)


def test_an_evaluation_in_progress_is_no_record_of_a_failure(tmp_path):
    store = Store(tmp_path)
    seen = []

    class Watching(Constant):
        def search(self, queries, k):
            seen.append(list(store.records()))
            return super().search(queries, k)

    evaluate(Watching(), dataset(), settings=QUICK, store=store)
    assert seen == [[]]
