"""Mistakes in a command line: each is answered by one message that names the value, the choices and what to type."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import huggingface_hub.constants
import pytest

from harness import __main__

HYDRAS_OWN = (
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
"""What no message for a user may hold."""

TINY = ("dataset=folder", "dataset.path=tiny")
BM25 = ("retriever=bm25", *TINY)
MINILM = ("retriever=minilm", *TINY)
FUSED = ("retriever=hybrid", "retriever@retriever.retrievers.dense=bm25_mteb", *TINY)
COLBERT = ("retriever=colbert_minilm", *TINY)


class Said(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


def collection(folder: Path, documents: str) -> None:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(documents)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "green"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")


DOCUMENTS = '{"_id": "d1", "title": "", "text": "a green bottle"}\n{"_id": "d2", "title": "", "text": "a red bottle"}\n'


@pytest.fixture
def place(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in: collections tiny, broken and sets/nfcorpus; no hub, no package index, empty caches."""
    collection(tmp_path / "tiny", DOCUMENTS)
    collection(tmp_path / "broken", DOCUMENTS.splitlines()[0] + '\n{"_id": "d2", "text"\n')
    collection(tmp_path / "sets" / "nfcorpus", DOCUMENTS)
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    return tmp_path


@pytest.fixture
def command(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The real command in this process."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # so that it is as it was afterwards: the command sets it
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def give(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, out, err)

    yield give
    root.handlers[:] = handlers  # Hydra has put its own there, which write to this test's captured stderr
    root.setLevel(level)


RETRIEVERS = ("bm25_anserini", "hybrid", "minilm", "harness list retrievers")
DATASETS = ("scifact", "cqadupstack/android", "harness list datasets")

BAD: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    # nothing of that name
    "unknown retriever": (("retriever=bm26", *TINY), 2, ("bm26", *RETRIEVERS)),
    "unknown retriever in a sweep": (("-m", "retriever=bm25,bm26", *TINY), 2, ("bm26", *RETRIEVERS)),
    "unknown part of a hybrid": (
        ("retriever=hybrid", "retriever@retriever.retrievers.dense=nope", *TINY),
        2,
        ("nope", *RETRIEVERS),
    ),
    "unknown dataset": (("retriever=bm25", "dataset=scifakt"), 2, ("scifakt", *DATASETS)),
    "unknown timing": ((*BM25, "timing=fast"), 2, ("timing", "fast", "cpu1", "default", "gpu")),
    "unknown experiment": (("experiment=nope",), 2, ("nope", "beir", "quickstart", "harness list experiments")),
    "unknown class": (
        (*BM25, "retriever._target_=harness.nope.BM25"),
        1,
        ("retriever._target_='harness.nope.BM25'", "cannot be imported"),
    ),
    # nothing chosen
    "no retriever": (("dataset=scifact",), 2, ("'retriever'", "retriever=", "bm25", "minilm")),
    "retriever null": (("retriever=null", *TINY), 2, ("retriever", "null", *RETRIEVERS)),
    "folder without a path": (("retriever=bm25", "dataset=folder"), 2, ("dataset.path=",)),
    # values that cannot be
    "k is a word": ((*BM25, "k=abc"), 2, ("k='abc'", "integer", "harness --cfg job")),
    "k is zero": ((*BM25, "k=0"), 2, ("k=0", "greater than or equal to 1", "harness --cfg job")),
    "k below a cutoff": ((*BM25, "k=5"), 2, ("ndcg@10", "k=5", "set k=10 or more")),
    "unknown metric": ((*BM25, "metrics=[ndgc@10]"), 2, ("'ndgc@10'", "recall@k", "did you mean ndcg@10?")),
    "no metric": ((*BM25, "metrics=[]"), 2, ("metrics is empty", "metrics=[ndcg@10]")),
    "metric without a cutoff": ((*BM25, "metrics=[ndcg]"), 2, ("'ndcg'", "needs a cutoff", "ndcg@10")),
    "metrics is no list": ((*BM25, "metrics=ndcg@10"), 2, ("metrics='ndcg@10'", "list")),
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
    "fusion constant below zero": (
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
    "weights for another number of parts": (
        (*FUSED, "retriever.fusion.weights=[1,2,3]"),
        2,
        ("retriever.fusion.weights=[1, 2, 3]", "3 numbers for 2 retrievers", "one for each"),
    ),
    "a weight below zero": ((*FUSED, "retriever.fusion.weights=[1,-1]"), 2, ("weights=[1, -1]", "0 or more")),
    "a weight that is a word": ((*FUSED, "retriever.fusion.weights=[a,1]"), 2, ("weights=['a', 1]", "numbers")),
    "no candidates": ((*COLBERT, "retriever.candidates=0"), 2, ("candidates=0", "at least 1", "null for all")),
    "unknown precision of token vectors": (
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
    "no dimensions": ((*MINILM, "retriever.encoder.dimensions=0"), 2, ("encoder.dimensions=0", "at least 1")),
    "unknown rescoring": (
        ("retriever=minilm_binary", "retriever.index.rescore=int4", *TINY),
        2,
        ("index.rescore='int4'", "null, int8, float32"),
    ),
    "no oversampling": (
        ("retriever=minilm_binary", "retriever.index.oversample=0", *TINY),
        2,
        ("index.oversample=0", "at least 1"),
    ),
    "fewer than no queries checked": (
        ("retriever=minilm_int8", "retriever.recall_sample=-1", *TINY),
        2,
        ("retriever.recall_sample=-1", "0 or more"),
    ),
    "unknown kind of index": (
        ("retriever=minilm_hnsw", "retriever.index.kind=flat", *TINY),
        2,
        ("index.kind='flat'", "hnsw, ivf"),
    ),
    "an instruction that the collection has not": (("retriever=e5_instruct", *TINY), 2, ("dataset.instruction",)),
    # keys that are not there
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
    # what is no override
    "malformed override": (("retriever=bm25=", *TINY), 2, ("'retriever=bm25='", "harness --help")),
    "words without an equals sign": (("bm25", "scifact"), 2, ("'bm25'", "KEY=VALUE", "harness --help")),
    "misspelt command": (("lisst", "retrievers"), 2, ("'lisst'", "list", "harness --help")),
    "unknown flag": ((*BM25, "--multirn"), 2, ("--multirn", "--multirun")),
    # data
    "folder that is not there": (
        ("retriever=bm25", "dataset=folder", "dataset.path=/nope"),
        2,
        ("'/nope'", "dataset.path=FOLDER"),
    ),
    "folder with a broken line": (
        ("retriever=bm25", "dataset=folder", "dataset.path=broken"),
        1,
        ("broken/corpus.jsonl:2: not JSON", '{"_id": "d2", "text"', "one JSON object"),
    ),
    "folder in no known layout": (
        ("retriever=bm25", "dataset=folder", "dataset.path=nothing"),
        1,
        ("nothing", "dataset.corpus=FILE dataset.queries=FILE dataset.qrels=FILE"),
    ),
    "unknown split": (
        ("retriever=bm25", "dataset=nfcorpus", "dataset.split=nope", "data_dir=sets"),
        2,
        ("nfcorpus has no split 'nope'", "choices: test"),
    ),
    "a set of another size": (
        ("retriever=bm25", "dataset=nfcorpus", "data_dir=sets"),
        1,
        ("2 documents", "published nfcorpus has 3633", "dataset=folder dataset.path=sets/nfcorpus"),
    ),
    "results where none can be written": ((*BM25, "results_dir=tiny/corpus.jsonl"), 2, ("results_dir", "corpus.jsonl")),
    # weights
    "weights out of reach": (
        ("retriever=bge_small", *TINY),
        1,
        (
            "no weights for 'BAAI/bge-small-en-v1.5@5c38ec7c405ec4b44b94cc5a9bb96e735b38267a'",
            "the hub is unreachable",
            "package: none is named in the config",
            "hf download BAAI/bge-small-en-v1.5",
            "--local-dir FOLDER",
            "encoder.model=FOLDER",
        ),
    ),
    "weights of a part out of reach": (
        ("retriever=hybrid", "retriever@retriever.retrievers.dense=bge_small", *TINY),
        1,
        ("no weights for 'BAAI/bge-small-en-v1.5@", "encoder.model=FOLDER"),
    ),
    "weights in a folder that is not there": (
        (*MINILM, "retriever.encoder.model=/nope/model"),
        1,
        ("no folder '/nope/model'", "org/name"),
    ),
    "weights in an empty folder": (
        (*MINILM, "retriever.encoder.model=./nothing"),
        1,
        ("nothing", "config.json", "retriever.encoder.model="),
    ),
    # the commands that read
    "explain without a query": (("explain", *BM25), 2, ("no query is given", 'query="some words"')),
    "explain the best none": (("explain", *BM25, "query=green", "top=0"), 2, ("top='0'", "at least 1")),
    "explain the best two squared": (("explain", *BM25, "query=green", "top=²"), 2, ("top='²'", "whole number")),
    "explain an unknown document": (
        ("explain", *BM25, "query=green", "doc=d9"),
        2,
        ("doc='d9'", "2 documents of tiny", "'d1'", "top=10"),
    ),
    "explain with no retriever": (("explain", *TINY, "query=green"), 2, ("'retriever'", "bm25", "minilm")),
    "list of something unknown": (("list", "retriever"), 2, ("'retriever'", "'retrievers'", "'datasets'", "'records'")),
    "list of nothing": (("list",), 2, ("what", "retrievers", "harness list")),
    "report without records": (("report",), 3, ("nothing in results/", "ndcg@10", "harness retriever=bm25")),
    "report of an unknown metric": (
        ("report", "--metric", "ndgc@10"),
        2,
        ("'ndgc@10'", "recall@k", "did you mean ndcg@10?"),
    ),
    "report in an unknown form": (("report", "--only", "pdf"), 2, ("'pdf'", "--only", "md")),
}


@pytest.mark.parametrize(("arguments", "code", "fragments"), BAD.values(), ids=BAD.keys())
def test_a_mistake_is_answered_by_a_message_that_helps(
    command: Command, arguments: tuple[str, ...], code: int, fragments: tuple[str, ...]
):
    said = command(*arguments)
    assert said.out == ""
    assert [hydras for hydras in HYDRAS_OWN if hydras in said.err] == []
    assert [fragment for fragment in fragments if fragment not in said.err] == [], said.err
    assert said.code == code


def test_after_a_mistake_nothing_but_its_message_is_said(command: Command):
    said = command(*BM25, "k=0")
    assert [line for line in said.err.splitlines() if not line.startswith("error: ")] == []


def test_advice_to_add_a_key_is_not_given_where_it_would_not_help(command: Command):
    assert "+retriever.k2" not in command(*BM25, "retriever.k2=1").err


def test_a_broken_pattern_is_not_explained_in_the_words_of_the_engine(command: Command):
    assert "extract_all" not in command(*BM25, "retriever.tokenizer.pattern='('").err


def test_advice_for_a_part_of_a_hybrid_does_not_name_the_key_of_a_lone_retriever(command: Command):
    said = command("retriever=hybrid", "retriever@retriever.retrievers.dense=bge_small", *TINY)
    assert "no weights for" in said.err
    assert " retriever.encoder.model=" not in said.err


@pytest.mark.parametrize("arguments", [("report",), ("report", "--json"), ("list", "records")], ids=" ".join)
@pytest.mark.parametrize("content", ["", "{", '{"version": 7}', "[]"])
def test_a_record_that_cannot_be_read_is_named(place: Path, command: Command, arguments: tuple[str], content: str):
    path = place / "results" / "records" / "tiny" / "bm25" / "20250101T000000.000000Z-00000000.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    said = command(*arguments)
    assert said.err.startswith(f"error: {path.relative_to(place)} is not a record of this version: ")
    assert "move it away and repeat the command" in said.err
    assert len(said.err.splitlines()) == 1
    assert (said.code, said.out) == (2, "")


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
def test_validate_says_what_is_wrong_among_its_findings(
    command: Command, arguments: tuple[str, ...], fragments: tuple[str, ...]
):
    said = command("validate", *arguments)
    assert said.code == 1
    assert "FAIL" in said.out
    assert [fragment for fragment in fragments if fragment not in said.out] == []
    assert [hydras for hydras in HYDRAS_OWN if hydras in said.out + said.err] == []


def test_validate_in_json_has_the_same_finding(command: Command):
    said = command("validate", "--json", "dataset=folder", "dataset.path=/nope")
    assert said.code == 1
    assert json.loads(said.out) == [
        {"config": "dataset=folder dataset.path=/nope", "ok": False, "message": "no folder '/nope'; give one: "
         "dataset.path=FOLDER"}
    ]  # fmt: skip


@pytest.mark.parametrize("values", ["1.2,-1", "-1,1.2"])
def test_one_bad_cell_of_a_sweep_does_not_take_the_good_one_with_it(place: Path, command: Command, values: str):
    said = command("-m", "retriever=bm25", *TINY, f"retriever.k1={values}")
    assert said.code == 2
    assert "k1=-1 must be 0 or more" in said.err
    assert said.out.splitlines()[0].split()[:2] == ["ndcg@10", "tiny"]
    assert len(list((place / "results" / "records").rglob("*.json"))) == 1


def test_the_collection_of_these_tests_is_measured_when_nothing_is_wrong(command: Command):
    said = command(*BM25)
    assert said.code == 0
    assert said.out.splitlines()[1].split()[:2] == ["bm25", "1.0000"]
