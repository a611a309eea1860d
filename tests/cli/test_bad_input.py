"""Tests of messages about mistakes on the command line: each names the value, the choices and what to type."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import huggingface_hub.constants
import pytest
from support.command_line import harness
from support.dataset_files import HEADER, write_dataset

HYDRA_INTERNALS = (
    "Config search path",
    "provider=",
    "in struct",
    "<EOF>",
    "hydra.cc",
    "full_key",
    "object_type",
    "Error in call to target",
    "TypeError(",
    "Traceback",
)
"""Hydra's and Python's wording, which no message contains."""

TINY = ("dataset=folder", "dataset.path=tiny")
BM25 = ("retriever=bm25", *TINY)
MINILM = ("retriever=minilm", *TINY)
FUSED = ("retriever=hybrid", "retriever@retriever.retrievers.dense=bm25_mteb", *TINY)
COLBERT = ("retriever=colbert_minilm", *TINY)


class CommandResult(NamedTuple):
    """The exit code of a command and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


Command = Callable[..., CommandResult]


DOCUMENTS = [
    {"_id": "d1", "title": "", "text": "a green bottle"},
    {"_id": "d2", "title": "", "text": "a red bottle"},
]


def write_tiny(folder: Path) -> Path:
    """Write a dataset of two documents and one query in BEIR's layout and return its folder."""
    return write_dataset(folder, DOCUMENTS, [{"_id": "q1", "text": "green"}], f"{HEADER}q1\td1\t1\n")


@pytest.fixture
def working_folder(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder with the datasets tiny, broken and sets/nfcorpus; no hub, no package index, empty caches."""
    write_tiny(tmp_path / "tiny")
    corpus = write_tiny(tmp_path / "broken") / "corpus.jsonl"
    corpus.write_text(corpus.read_text().splitlines()[0] + '\n{"_id": "d2", "text"\n')
    write_tiny(tmp_path / "sets" / "nfcorpus")
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    return tmp_path


@pytest.fixture
def command(
    working_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Return a function that runs the command in this process."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # the command sets it; pytest restores it
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(*arguments: str) -> CommandResult:
        exit_code = harness(monkeypatch, *arguments)
        return CommandResult(exit_code, *capsys.readouterr())

    yield run
    root.handlers[:] = handlers  # Hydra's handlers write to this test's captured stderr
    root.setLevel(level)


RETRIEVERS = ("bm25_anserini", "hybrid", "minilm", "harness list retrievers")
DATASETS = ("scifact", "cqadupstack/android", "harness list datasets")

MISTAKES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    # unknown names
    "unknown retriever": (("retriever=bm26", *TINY), 2, ("bm26", *RETRIEVERS)),
    "unknown retriever in a sweep": (("-m", "retriever=bm25,bm26", *TINY), 2, ("bm26", *RETRIEVERS)),
    "unknown retriever in a hybrid": (
        ("retriever=hybrid", "retriever@retriever.retrievers.dense=nope", *TINY),
        2,
        ("nope", *RETRIEVERS),
    ),
    "unknown dataset": (("retriever=bm25", "dataset=scifakt"), 2, ("scifakt", *DATASETS)),
    "unknown timing": ((*BM25, "timing=fast"), 2, ("timing", "fast", "cpu1", "default", "gpu")),
    "unknown resume": (
        (*BM25, "resume=maybe"),
        2,
        ("resume='maybe': choose true, false or same_code", "harness --cfg job"),
    ),
    "unknown experiment": (("experiment=nope",), 2, ("nope", "beir", "quickstart", "harness list experiments")),
    "unknown class": (
        (*BM25, "retriever._target_=harness.nope.BM25"),
        1,
        ("retriever._target_='harness.nope.BM25'", "cannot be imported"),
    ),
    # required choices that are missing
    "no retriever": (("dataset=scifact",), 2, ("'retriever'", "retriever=", "bm25", "minilm")),
    "retriever null": (("retriever=null", *TINY), 2, ("retriever", "null", *RETRIEVERS)),
    "folder without a path": (("retriever=bm25", "dataset=folder"), 2, ("dataset.path=",)),
    # invalid values
    "k is a word": ((*BM25, "k=abc"), 2, ("k='abc'", "integer", "harness --cfg job")),
    "k is zero": ((*BM25, "k=0"), 2, ("k=0", "greater than or equal to 1", "harness --cfg job")),
    "k below a cutoff": ((*BM25, "k=5"), 2, ("ndcg@10", "k=5", "set k=10 or more")),
    "unknown metric": ((*BM25, "metrics=[ndgc@10]"), 2, ("'ndgc@10'", "recall@k", "did you mean ndcg@10?")),
    "no metric": ((*BM25, "metrics=[]"), 2, ("metrics is empty", "metrics=[ndcg@10]")),
    "metric without a cutoff": ((*BM25, "metrics=[hit]"), 2, ("'hit'", "needs a cutoff", "hit@10")),
    "metric with parentheses": (
        (*BM25, "metrics=[map@10(rel=2)]"),
        2,
        ("quote each name", "metrics=['map@100(rel=2)']"),
    ),
    "metric of subtopics": ((*BM25, "metrics=[alpha_nDCG@10]"), 2, ("'alpha_nDCG@10'", "subtopics", "ndcg@10")),
    "metrics is not a list": ((*BM25, "metrics=ndcg@10"), 2, ("metrics='ndcg@10'", "list")),
    "negative seed": ((*BM25, "seed=-1"), 2, ("seed=-1", "greater than or equal to 0", "harness --cfg job")),
    "zero threads": ((*BM25, "timing.threads=0"), 2, ("timing.threads=0", "greater than or equal to 1")),
    "negative k1": ((*BM25, "retriever.k1=-1"), 2, ("k1=-1", "0 or more", "0.9 to 2.0")),
    "k1 is a word": ((*BM25, "retriever.k1=abc"), 2, ("k1='abc'", "number")),
    "b above one": ((*BM25, "retriever.b=2"), 2, ("b=2", "between 0 and 1")),
    "tokenizer is a word": ((*BM25, "retriever.tokenizer=porter"), 2, ("retriever.tokenizer", "'porter'")),
    "unknown language": (
        (*BM25, "retriever.tokenizer.language=klingon"),
        2,
        ("'klingon'", "english", "german", "null for none"),
    ),
    "unknown stop words": (
        (*BM25, "retriever.tokenizer.stop_words=klingon"),
        2,
        ("'klingon'", "english", "a list of words", "null for none"),
    ),
    "broken pattern": (
        (*BM25, "retriever.tokenizer.pattern='('"),
        2,
        ("tokenizer.pattern='('", "not a regular expression", "unclosed group"),
    ),
    "unknown device": (
        (*MINILM, "retriever.encoder.device=gpu"),
        2,
        ("encoder.device='gpu'", "auto, all, cpu, cuda", "mps"),
    ),
    "unknown dtype": (
        (*MINILM, "retriever.encoder.dtype=int3"),
        2,
        ("encoder.dtype='int3'", "auto, float32, bfloat16, float16"),
    ),
    "model null": ((*MINILM, "retriever.encoder.model=null"), 2, ("encoder.model=None", "must be a string")),
    "negative fusion constant": (
        (*FUSED, "retriever.fusion.constant=-1"),
        2,
        ("retriever.fusion.constant=-1", "60"),
    ),
    "hybrid of depth zero": ((*FUSED, "retriever.depth=0"), 2, ("retriever.depth=0", "at least 1")),
    "unknown fusion": ((*FUSED, "fusion@retriever.fusion=borda"), 2, ("borda", "dbsf, min_max, rrf, z_score")),
    "unknown normalisation": (
        (*FUSED, "fusion@retriever.fusion=min_max", "retriever.fusion.normalize=softmax"),
        2,
        ("retriever.fusion.normalize='softmax'", "min_max, z_score, dbsf"),
    ),
    "weights for another number of retrievers": (
        (*FUSED, "retriever.fusion.weights=[1,2,3]"),
        2,
        ("retriever.fusion.weights=[1, 2, 3]", "3 numbers for 2 retrievers", "one for each"),
    ),
    "negative weight": ((*FUSED, "retriever.fusion.weights=[1,-1]"), 2, ("weights=[1, -1]", "0 or more")),
    "weight is a word": ((*FUSED, "retriever.fusion.weights=[a,1]"), 2, ("weights=['a', 1]", "numbers")),
    "zero candidates": ((*COLBERT, "retriever.candidates=0"), 2, ("candidates=0", "at least 1", "null for all")),
    "unknown storage precision": (
        (*COLBERT, "retriever.encoder.storage_dtype=float8"),
        2,
        ("encoder.storage_dtype='float8'", "float16, float32"),
    ),
    "unknown projection": ((*COLBERT, "retriever.encoder.projection=random"), 2, ("'random'", "own, none")),
    "reranker of depth zero": (
        ("retriever=rerank_colbert_minilm", "retriever.depth=0", *TINY),
        2,
        ("retriever.depth=0", "at least 1"),
    ),
    "unknown pooling": (
        (*MINILM, "retriever.encoder.pooling=average"),
        2,
        ("encoder.pooling='average'", "mean, cls, last_token, weighted_mean, max"),
    ),
    "zero dimensions": ((*MINILM, "retriever.encoder.dimensions=0"), 2, ("encoder.dimensions=0", "at least 1")),
    "unknown rescoring": (
        ("retriever=minilm_binary", "retriever.index.rescore=int4", *TINY),
        2,
        ("index.rescore='int4'", "null, int8, float32"),
    ),
    "zero oversampling": (
        ("retriever=minilm_binary", "retriever.index.oversample=0", *TINY),
        2,
        ("index.oversample=0", "at least 1"),
    ),
    "negative recall sample": (
        ("retriever=minilm_int8", "retriever.recall_sample=-1", *TINY),
        2,
        ("retriever.recall_sample=-1", "0 or more"),
    ),
    "unknown index kind": (
        ("retriever=minilm_hnsw", "retriever.index.kind=flat", *TINY),
        2,
        ("index.kind='flat'", "hnsw, ivf"),
    ),
    "dataset without an instruction": (("retriever=e5_instruct", *TINY), 2, ("++dataset.instruction='Given",)),
    # unknown keys
    "unknown key of the retriever": ((*BM25, "retriever.k2=1"), 2, ("retriever", "'k2'", "k1, b, tokenizer")),
    "unknown key added to the retriever": (
        (*BM25, "+retriever.k2=1"),
        2,
        ("retriever has no key 'k2'", "choices: tokenizer, k1, b"),
    ),
    "unknown key added to the encoder": (
        (*MINILM, "+retriever.encoder.devise=cpu"),
        2,
        ("'devise'", "max_length", "did you mean retriever.encoder.device?"),
    ),
    "unknown key": ((*BM25, "foo=1"), 2, ("foo", "choices: k, metrics, name, seed", "harness --cfg job")),
    "unknown key added": ((*BM25, "+foo=1"), 2, ("foo=1", "choices: retriever, dataset, timing", "harness --cfg job")),
    "unknown key added to the timing": (
        (*BM25, "+timing.foo=1"),
        2,
        ("timing.foo=1", "warmup_documents, repeats", "harness --cfg job"),
    ),
    # malformed arguments
    "malformed override": (("retriever=bm25=", *TINY), 2, ("'retriever=bm25='", "harness --help")),
    "argument without an equals sign": (("bm25", "scifact"), 2, ("'bm25'", "KEY=VALUE", "harness --help")),
    "misspelt command": (("lisst", "retrievers"), 2, ("'lisst'", "list", "harness --help")),
    "unknown flag": ((*BM25, "--multirn"), 2, ("--multirn", "--multirun")),
    # data
    "missing folder": (
        ("retriever=bm25", "dataset=folder", "dataset.path=/nope"),
        2,
        ("'/nope'", "dataset.path=FOLDER"),
    ),
    "folder with a broken line": (
        ("retriever=bm25", "dataset=folder", "dataset.path=broken"),
        1,
        ("broken/corpus.jsonl:2: not JSON", '{"_id": "d2", "text"', "one JSON object"),
    ),
    "folder in an unknown layout": (
        ("retriever=bm25", "dataset=folder", "dataset.path=nothing"),
        1,
        ("nothing", "dataset.corpus=FILE dataset.queries=FILE dataset.qrels=FILE"),
    ),
    "unknown split": (
        ("retriever=bm25", "dataset=nfcorpus", "dataset.split=nope", "data_dir=sets"),
        2,
        ("nfcorpus has no split 'nope'", "choices: test"),
    ),
    "dataset of an unpublished size": (
        ("retriever=bm25", "dataset=nfcorpus", "data_dir=sets"),
        1,
        ("2 documents", "published nfcorpus has 3633", "dataset=folder dataset.path=sets/nfcorpus"),
    ),
    "results folder is a file": ((*BM25, "results_dir=tiny/corpus.jsonl"), 2, ("results_dir", "corpus.jsonl")),
    # weights
    "unreachable weights": (
        ("retriever=bge_small", *TINY),
        1,
        (
            "no weights for 'BAAI/bge-small-en-v1.5@5c38ec7c405ec4b44b94cc5a9bb96e735b38267a'",
            "the hub is unreachable",
            "package: none is named in the config",
            "hf download BAAI/bge-small-en-v1.5",
            "--local-dir FOLDER",
            "encoder's key `model`",
        ),
    ),
    "unreachable weights in a hybrid": (
        ("retriever=hybrid", "retriever@retriever.retrievers.dense=bge_small", *TINY),
        1,
        ("no weights for 'BAAI/bge-small-en-v1.5@", "encoder's key `model`"),
    ),
    "missing weights folder": (
        (*MINILM, "retriever.encoder.model=/nope/model"),
        1,
        ("no folder '/nope/model'", "org/name"),
    ),
    "empty weights folder": (
        (*MINILM, "retriever.encoder.model=./nothing"),
        1,
        ("nothing", "config.json", "encoder's key `model`"),
    ),
    # explain, list and report
    "explain without a query": (("explain", *BM25), 2, ("no query is given", 'query="some words"')),
    "explain the top 0": (("explain", *BM25, "query=green", "top=0"), 2, ("top='0'", "at least 1")),
    "explain the top superscript two": (("explain", *BM25, "query=green", "top=²"), 2, ("top='²'", "whole number")),
    "explain an unknown document": (
        ("explain", *BM25, "query=green", "doc=d9"),
        2,
        ("doc='d9'", "2 documents of tiny", "'d1'", "top=10"),
    ),
    "explain without a retriever": (("explain", *TINY, "query=green"), 2, ("'retriever'", "bm25", "minilm")),
    "list of an unknown kind": (("list", "retriever"), 2, ("'retriever'", "'retrievers'", "'datasets'", "'records'")),
    "list without a kind": (("list",), 2, ("what", "retrievers", "harness list")),
    "report without records": (("report",), 3, ("nothing in results/", "ndcg@10", "harness retriever=bm25")),
    "report of an unknown metric": (
        ("report", "--metric", "ndgc@10"),
        2,
        ("'ndgc@10'", "recall@k", "did you mean ndcg@10?"),
    ),
    "report in an unknown format": (("report", "--only", "pdf"), 2, ("'pdf'", "--only", "md")),
}


@pytest.mark.parametrize(("arguments", "exit_code", "fragments"), MISTAKES.values(), ids=MISTAKES.keys())
def test_error_names_the_value_the_choices_and_the_next_command(
    command: Command, arguments: tuple[str, ...], exit_code: int, fragments: tuple[str, ...]
):
    result = command(*arguments)
    assert result.stdout == ""
    assert [internal for internal in HYDRA_INTERNALS if internal in result.stderr] == []
    assert [fragment for fragment in fragments if fragment not in result.stderr] == [], result.stderr
    assert result.exit_code == exit_code


def test_stderr_has_only_the_error(command: Command):
    result = command(*BM25, "k=0")
    assert [line for line in result.stderr.splitlines() if not line.startswith("error: ")] == []


def test_unknown_argument_is_not_advised_to_be_added(command: Command):
    assert "+retriever.k2" not in command(*BM25, "retriever.k2=1").stderr


def test_broken_pattern_error_hides_the_regex_engine(command: Command):
    assert "extract_all" not in command(*BM25, "retriever.tokenizer.pattern='('").stderr


def test_advice_inside_a_hybrid_leaves_out_the_top_level_key(command: Command):
    result = command("retriever=hybrid", "retriever@retriever.retrievers.dense=bge_small", *TINY)
    assert "no weights for" in result.stderr
    assert "retriever.encoder.model=" not in result.stderr


@pytest.mark.parametrize("arguments", [("report",), ("report", "--json"), ("list", "records")], ids=" ".join)
@pytest.mark.parametrize("content", ["", "{", '{"version": 7}', "[]"])
def test_unreadable_record_is_named(working_folder: Path, command: Command, arguments: tuple[str], content: str):
    path = working_folder / "results" / "records" / "tiny" / "bm25" / "20250101T000000.000000Z-00000000.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    result = command(*arguments)
    assert result.stderr.startswith(f"error: {path.relative_to(working_folder)} is not a record of this version: ")
    assert "move it away and repeat the command" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("retriever=bm26",), ("bm26", *RETRIEVERS)),
        (("dataset=folder",), ("dataset.path is not set",)),
        (("retriever=bm25", "dataset=folder", "dataset.path=broken"), ("broken/corpus.jsonl:2: not JSON",)),
        (("retriever=minilm", "retriever.encoder.device=gpu"), ("encoder.device='gpu'", "auto, all, cpu, cuda")),
    ],
    ids=lambda value: " ".join(value),
)
def test_validate_reports_the_mistake_as_a_failure(
    command: Command, arguments: tuple[str, ...], fragments: tuple[str, ...]
):
    result = command("validate", *arguments)
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert [fragment for fragment in fragments if fragment not in result.stdout] == []
    assert [internal for internal in HYDRA_INTERNALS if internal in result.stdout + result.stderr] == []


def test_validate_json_contains_the_failure(command: Command):
    result = command("validate", "--json", "dataset=folder", "dataset.path=/nope")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"config": "dataset=folder dataset.path=/nope", "ok": False, "message": "no folder '/nope'; give one: "
         "dataset.path=FOLDER"}
    ]  # fmt: skip


@pytest.mark.parametrize("values", ["1.2,-1", "-1,1.2"])
def test_sweep_finishes_the_valid_evaluation_beside_an_invalid_one(working_folder: Path, command: Command, values: str):
    result = command("-m", "retriever=bm25", *TINY, f"retriever.k1={values}")
    assert result.exit_code == 2
    assert "k1=-1 must be 0 or more" in result.stderr
    assert result.stdout.splitlines()[0].split()[:2] == ["ndcg@10", "tiny"]
    assert len(list((working_folder / "results" / "records").rglob("*.json"))) == 1


def test_dataset_of_these_tests_is_evaluated_without_a_mistake(command: Command):
    result = command(*BM25)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:2] == ["bm25", "1.0000"]
