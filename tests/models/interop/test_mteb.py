"""Tests of harness/interop/mteb/dataset.py: mteb's tasks as datasets, from every layout and with every part."""

import re
import warnings
from pathlib import Path

import pytest
from support.mteb_tasks import dataset_rows, write_repository

import harness
from harness.cli import read
from harness.cli.run import main as run
from harness.errors import ConfigError, DataError
from harness.evaluation.timing import TimingPlan, measure
from harness.interop.mteb import load, registry, task_of, texts
from harness.retrievers.bm25 import BM25
from harness.store import Store

PLAN = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)

ROWS = {
    "corpus": [
        {"_id": "d1", "title": "Foxes", "text": "The fox jumps."},
        {"_id": "d2", "title": "", "text": " Interest rates rose. "},
        {"_id": "d3", "title": None, "text": "Floods in spring."},
    ],
    "queries": [{"_id": "q1", "text": "fox"}, {"_id": "q2", "text": "rates"}, {"_id": "q9", "text": "never judged"}],
    "qrels": [
        {"query-id": "q2", "corpus-id": "d2", "score": 2},
        {"query-id": "q1", "corpus-id": "d1", "score": 1},
        {"query-id": "q1", "corpus-id": "d3", "score": 0},
    ],
}


@pytest.mark.parametrize("layout", ["jsonl", "parquet", "beir"])
@pytest.mark.parametrize("name", ["SciFact", "NFCorpus"])
def test_a_task_is_the_same_dataset_in_every_layout(layout, name, real_dataset, data, tmp_path):
    expected = real_dataset(name.lower())
    folder = data / name.lower()
    if layout != "beir":
        folder = write_repository(tmp_path / "repo", dataset_rows(expected), kind=layout)
    dataset = load(name, folder=str(folder))
    assert dataset.fingerprint == expected.fingerprint
    assert list(dataset.qrels) == list(dataset.queries.ids)
    assert (dataset.name, dataset.split) == (name, "test")


def test_a_record_has_the_tasks_metadata(data, tmp_path, capsys):
    words = ["dataset=mteb", "dataset.task=NFCorpus", f"dataset.folder={data / 'nfcorpus'}"]
    assert run(["retriever=bm25", *words, f"results_dir={tmp_path}", "timing.latency_queries=0"]) == 0
    (record,) = Store(tmp_path).records()
    metadata = record.dataset.metadata
    assert (metadata.source, metadata.task, metadata.type) == ("mteb", "NFCorpus", "Retrieval")
    assert metadata.main_score == "ndcg@10"
    assert metadata.languages == ["eng-Latn"]
    assert "boteva2016" in metadata.citation
    assert metadata.licence
    assert metadata.revision == f"local-{record.dataset.fingerprint[:12]}"
    assert record.dataset.label == "NFCorpus"
    assert "dataset.task=NFCorpus" in record.command
    assert "bm25 on mteb NFCorpus" in capsys.readouterr().err


def test_titles_and_texts_are_joined_and_unjudged_queries_left_out(tmp_path):
    dataset = load("SciFact", folder=str(write_repository(tmp_path, ROWS)))
    assert list(dataset.corpus.texts) == ["Foxes The fox jumps.", "Interest rates rose.", "Floods in spring."]
    assert list(dataset.queries.ids) == ["q1", "q2"]
    assert dataset.qrels["q1"] == {"d1": 1, "d3": 0}


def test_texts_equal_those_that_mteb_gives_to_models():
    import datasets
    from mteb._create_dataloaders import _retrieval_texts as read_texts
    from mteb.types import PromptType

    corpus = datasets.Dataset.from_list(
        [{"id": "1", "title": "A title", "text": " body "}, {"id": "2", "title": "", "text": "  only text\n"}]
    )
    text_only = datasets.Dataset.from_list([{"id": "1", "text": "what is it"}])
    with_instruction = datasets.Dataset.from_list([{"id": "1", "text": "q", "instruction": "only new ones"}])
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes?"}]
    conversation = datasets.Dataset.from_list([{"id": "1", "text": turns, "instruction": "be short"}])
    list_of_texts = datasets.Dataset.from_list([{"id": "1", "text": ["hello", "again"]}])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [text for _, text in texts.documents(corpus)] == read_texts(corpus, PromptType.document)
        for rows in (text_only, with_instruction, conversation, list_of_texts):
            assert [text for _, text in texts.queries(rows)] == read_texts(rows, PromptType.query)


def test_a_multilingual_task_is_loaded_by_subset_or_language(tmp_path):
    for subset in ("de", "en"):
        rows = {**ROWS, "corpus": [{**row, "text": f"{subset} {row['text']}"} for row in ROWS["corpus"]]}
        write_repository(tmp_path, rows, split="validation", subset=subset)
    dataset = load("XQuADRetrieval", subset="de", folder=str(tmp_path))
    assert (dataset.name, dataset.split) == ("XQuADRetrieval/de", "validation")
    assert dataset.corpus.texts[0] == "Foxes de The fox jumps."
    assert dataset.metadata.languages == ["deu-Latn"]
    assert load("XQuADRetrieval", language="deu", folder=str(tmp_path)).fingerprint == dataset.fingerprint
    assert load("XQuADRetrieval:en:validation", folder=str(tmp_path)).name == "XQuADRetrieval/en"
    with pytest.raises(ConfigError, match=r"has several subsets; choose one: dataset\.subset=ar\|de\|el"):
        load("XQuADRetrieval", folder=str(tmp_path))
    with pytest.raises(ConfigError, match=r"dataset\.language='fra': mteb's XQuADRetrieval has ara?"):
        load("XQuADRetrieval", language="fra", folder=str(tmp_path))
    with pytest.raises(ConfigError, match=r"dataset\.subset='xx': mteb's XQuADRetrieval has ar, de"):
        load("XQuADRetrieval", subset="xx", folder=str(tmp_path))


def test_the_instruction_is_appended_to_its_query(tmp_path):
    instructions = [{"query-id": key, "instruction": f"{key}: no fables"} for key in ("q1", "q2")]
    name = next(task.metadata.name for task in registry.tasks(types=["InstructionRetrieval"]))
    split = registry.splits(registry.task(name))[0]
    rows = {**ROWS, "queries": ROWS["queries"][:2], "instruction": instructions}
    subset = "" if split.subset == "default" else split.subset
    dataset = load(str(split), folder=str(write_repository(tmp_path, rows, split=split.split, subset=subset)))
    assert list(dataset.queries.texts) == ["fox q1: no fables", "rates q2: no fables"]


def test_ids_with_white_space_are_percent_encoded(tmp_path):
    rows = {
        "corpus": [{**row, "_id": f"doc {row['_id']}%"} for row in ROWS["corpus"]],
        "queries": ROWS["queries"],
        "qrels": [{**row, "corpus-id": f"doc {row['corpus-id']}%"} for row in ROWS["qrels"]],
    }
    dataset = load("SciFact", folder=str(write_repository(tmp_path, rows)))
    assert dataset.corpus.ids[0] == "doc%20d1%25"
    assert dataset.qrels["q1"]["doc%20d1%25"] == 1
    assert dataset.metadata.quotes_ids


def test_a_changed_folder_is_read_again_and_has_another_fingerprint(tmp_path):
    before = load("SciFact", folder=str(write_repository(tmp_path, ROWS)))
    (tmp_path / "README.md").unlink()
    rows = {**ROWS, "corpus": [{**row, "text": f"{row['text']} Changed."} for row in ROWS["corpus"]]}
    after = load("SciFact", folder=str(write_repository(tmp_path, rows)))
    assert after.corpus.texts[0] == "Foxes The fox jumps. Changed."
    assert before.fingerprint != after.fingerprint
    assert before.metadata.revision != after.metadata.revision


def test_changed_data_are_evaluated_again_by_the_same_command(tmp_path):
    folder = write_repository(tmp_path / "repo", ROWS)
    words = ["retriever=bm25", "dataset=mteb", "dataset.task=SciFact", f"dataset.folder={folder}"]
    words += [f"results_dir={tmp_path / 'results'}", "timing.latency_queries=0", "k=10", "metrics=[ndcg@10]"]
    assert run(words) == run(words) == 0
    assert len(list(Store(tmp_path / "results").records())) == 1
    (folder / "README.md").unlink()
    write_repository(folder, {**ROWS, "qrels": [{**row, "corpus-id": "d3"} for row in ROWS["qrels"][:2]]})
    assert run(words) == 0
    first, second = Store(tmp_path / "results").records()
    assert first.id != second.id
    assert first.metrics["ndcg@10"] > second.metrics["ndcg@10"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.task=SciFac"], "mteb has no task 'SciFac'; did you mean 'SciFact'?; see: harness list datasets"),
        (["dataset.task=Banking77Classification"], "is of type Classification over text; this harness measures"),
        (["dataset.task=CQADupstackRetrieval"], "is the mean over 12 tasks; measure each: harness -m"),
        (["dataset.task=SciFact", "dataset.folder=/nowhere"], "no folder '/nowhere'; dataset.folder names a copy"),
        (["dataset.task=SciFact:default:test:x"], "give NAME, or NAME:SUBSET:SPLIT and no dataset.subset"),
        (["dataset.task=SciFact"], "SciFact:default:test cannot be loaded from mteb/scifact at revision d56462d"),
        (["dataset.task=SciFact", "dataset.split=tset"], "mteb evaluates it on test: dataset.split=test"),
        ([], "dataset.task is not set; add: dataset.task=VALUE"),
        (["dataset.task=SciFact", "dataset.benchmark=NanoBEIR"], "is not part of mteb's benchmark 'NanoBEIR'"),
    ],
)
def test_an_invalid_task_is_an_error_with_the_choices_or_the_next_command(words, message, tmp_path, capsys):
    is_data_error = "cannot be loaded" in message or "mteb evaluates it on" in message
    code = run(["retriever=bm25", "dataset=mteb", *words, f"results_dir={tmp_path}"])
    assert code == (1 if is_data_error else 2)
    assert message in capsys.readouterr().err


def test_a_missing_split_is_an_error_although_mteb_would_load_another(tmp_path):
    folder = str(write_repository(tmp_path, ROWS))
    with pytest.raises(
        DataError, match=r"no split 'tset' among .*test.*; mteb evaluates it on test: dataset\.split=test"
    ):
        load("SciFact", split="tset", folder=folder)
    assert load("SciFact", split="test", folder=folder).split == "test"


def test_a_folder_without_qrels_is_an_error_with_task_and_folder(tmp_path):
    write_repository(tmp_path, {"corpus": ROWS["corpus"]})
    with pytest.raises(DataError, match=r"mteb's SciFact:default:test cannot be loaded from .*: ValueError: .*qrels"):
        load("SciFact", folder=str(tmp_path))


def test_a_folder_may_have_a_subfolder_for_each_task(data, tmp_path):
    (tmp_path / "NFCorpus").symlink_to(data / "nfcorpus", target_is_directory=True)
    assert len(load("NFCorpus", folder=str(tmp_path)).corpus) == 3633


@pytest.mark.slow
def test_a_main_score_that_is_not_measured_is_named_with_the_settings(tmp_path, capsys):
    rows = {**ROWS, "top_ranked": [{"query-id": key, "corpus-ids": ["d1", "d2", "d3"]} for key in ("q1", "q2")]}
    folder = write_repository(tmp_path / "repo", rows)
    words = ["dataset=mteb", "dataset.task=AskUbuntuDupQuestions", f"dataset.folder={folder}"]
    assert run(["retriever=bm25", *words, f"results_dir={tmp_path}"]) == 0
    assert "main score is map@1000, which is not measured; add: k=1000 metrics=[map@1000]" in (capsys.readouterr().err)


def test_a_tasks_extra_metric_is_computed_as_mteb_does(tmp_path):
    """NevIR's paired accuracy: the share of pairs of queries that both have their relevant document first."""
    rows = {
        "corpus": [{"_id": f"{n}_doc{m}", "text": f"thing{n} kind{m}"} for n in (1, 2) for m in (1, 2)],
        "queries": [{"_id": f"{n}_q{m}", "text": f"thing{n} kind{m}"} for n in (1, 2) for m in (1, 2)],
        "qrels": [
            {"query-id": f"{n}_q{m}", "corpus-id": f"{n}_doc{m if n == 1 else 1}", "score": 1}
            for n in (1, 2)
            for m in (1, 2)
        ],
        "top_ranked": [
            {"query-id": f"{n}_q{m}", "corpus-ids": [f"{n}_doc1", f"{n}_doc2"]} for n in (1, 2) for m in (1, 2)
        ],
    }
    dataset = load("NevIR", folder=str(write_repository(tmp_path, rows)))
    bm25 = BM25()
    means = measure(bm25, dataset, k=10, metrics=["recall@1"], plan=PLAN).means
    assert means["recall@1"] == 0.75
    assert means["paired_accuracy"] == 0.5


def test_beirs_layout_is_an_error_for_a_task_with_candidates_or_instructions(data):
    for name in ("AskUbuntuDupQuestions", "NevIR", "Core17InstructionRetrieval"):
        with pytest.raises(ConfigError, match=r"is in BEIR's layout, which has no candidates"):
            load(name, folder=str(data / "nfcorpus"))


def test_a_tasks_extra_metric_is_of_the_whole_ranking_even_with_k_1(tmp_path):
    """MindSmallReranking's maximum over sub-queries, with the relevant document last of nine."""
    name = "MindSmallReranking"
    rows = {
        "corpus": [{"_id": f"d{n}", "text": "fox " + "filler " * n} for n in range(9)],
        "queries": [{"_id": "1_1", "text": "fox"}],
        "qrels": [{"query-id": "1_1", "corpus-id": "d8", "score": 1}],
        "top_ranked": [{"query-id": "1_1", "corpus-ids": [f"d{n}" for n in range(9)] * 2}],
    }
    dataset = load(name, folder=str(write_repository(tmp_path, rows)))
    assert dataset.candidates == {"1_1": [f"d{n}" for n in range(9)]}
    bm25 = BM25()
    means = measure(bm25, dataset, k=1, metrics=["recall@1"], plan=PLAN).means
    assert means["recall@1"] == 0
    assert means["max_over_subqueries_map@1000"] == pytest.approx(1 / 9, abs=1e-4)


def test_extra_metrics_that_fail_are_logged_and_the_rest_are_measured(tmp_path, caplog):
    rows = {**ROWS, "top_ranked": [{"query-id": key, "corpus-ids": ["d1", "d2"]} for key in ("q1", "q2")]}
    dataset = load("NevIR", folder=str(write_repository(tmp_path, rows)))
    bm25 = BM25()
    assert list(measure(bm25, dataset, k=5, metrics=["mrr@5"], plan=PLAN).means) == ["mrr@5"]
    assert "mteb's own measures of NevIR:default:test cannot be computed: KeyError" in caplog.text


@pytest.mark.slow
def test_another_instruction_is_another_dataset_on_the_leaderboard(data, tmp_path):
    words = ["retriever=bm25", "dataset=mteb", "dataset.task=NFCorpus", f"dataset.folder={data / 'nfcorpus'}"]
    words += [f"results_dir={tmp_path}", "timing.latency_queries=0"]
    assert run(words) == run([*words, "dataset.split=test"]) == run([*words, "dataset.instruction='Find it'"]) == 0
    labels = [record.dataset.label for record in Store(tmp_path).records()]
    assert labels == ["NFCorpus", "NFCorpus [instruction=Find it]"]


@pytest.mark.slow
def test_a_task_evaluated_alone_is_evaluated_again_as_part_of_a_benchmark(data, tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "CQADupstackTexRetrieval").symlink_to(data / "nfcorpus", target_is_directory=True)
    words = ["retriever=bm25", "dataset=mteb", "dataset.task=CQADupstackTexRetrieval", "timing.latency_queries=0"]
    words += [f"dataset.folder={tmp_path / 'tasks'}", f"results_dir={tmp_path / 'results'}"]
    assert run(words) == run([*words, "dataset.benchmark=BEIR"]) == 0
    groups = [(record.dataset.group, record.dataset.parts) for record in Store(tmp_path / "results").records()]
    assert groups == [(None, 1), ("CQADupstackRetrieval", 12)]


def test_only_interop_mteb_imports_mteb_and_only_interop_irds_imports_ir_datasets():
    root = Path(harness.__file__).parent
    lines = re.compile(r"^\s*(?:import|from) (mteb|ir_datasets)\b", re.MULTILINE)
    importers = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if lines.search(path.read_text())}
    assert importers
    assert all(path.startswith("interop/mteb/") or path == "interop/irds.py" for path in importers)


def test_queries_without_a_relevant_document_are_counted(tmp_path):
    rows = {**ROWS, "qrels": [*ROWS["qrels"], {"query-id": "q9", "corpus-id": "d1", "score": 0}]}
    dataset = load("SciFact", folder=str(write_repository(tmp_path, rows)))
    assert len(dataset.queries) == 2
    assert dataset.metadata.queries_without_relevant == 1


def test_the_report_shows_a_datasets_extra_metric(tmp_path, capsys):
    rows = {**ROWS, "queries": [{"_id": f"q1_q{n}", "text": "fox"} for n in (1, 2)]}
    rows["qrels"] = [{"query-id": f"q1_q{n}", "corpus-id": "d1", "score": 1} for n in (1, 2)]
    rows["top_ranked"] = [{"query-id": f"q1_q{n}", "corpus-ids": ["d1", "d2"]} for n in (1, 2)]
    words = ["dataset=mteb", "dataset.task=NevIR", f"dataset.folder={write_repository(tmp_path / 'repo', rows)}"]
    assert run(["retriever=bm25", *words, f"results_dir={tmp_path / 'results'}", "metrics=[recall@1]"]) == 0
    assert read.main(["report", "--results", str(tmp_path / "results"), "--metric", "paired_accuracy"]) == 0
    assert "paired_accuracy" in capsys.readouterr().out
    assert "paired_accuracy" in (tmp_path / "results" / "leaderboard.html").read_text(encoding="utf-8")
    assert read.main(["report", "--results", str(tmp_path / "results"), "--metric", "recall@1"]) == 0


def test_self_hits_are_dropped_for_the_tasks_for_which_mteb_drops_them(tmp_path):
    rows = {
        "corpus": [{"_id": "q1", "text": "fox"}, {"_id": "d1", "text": "the fox jumps"}],
        "queries": [{"_id": "q1", "text": "fox"}],
        "qrels": [{"query-id": "q1", "corpus-id": "d1", "score": 1}],
    }
    folder = str(write_repository(tmp_path, rows))
    bm25 = BM25()
    for name, mrr in (("ArguAna", 1.0), ("SciFact", 0.5)):
        assert measure(bm25, load(name, folder=folder), k=5, metrics=["mrr@5"], plan=PLAN).means == {"mrr@5": mrr}


def test_task_of_fills_a_task_with_a_dataset(real_dataset):
    dataset = real_dataset("xquad/en")
    split = task_of("SciFact", dataset=dataset).dataset["default"]["test"]
    assert list(split["corpus"]["id"]) == list(dataset.corpus.ids)
    assert split["queries"]["text"][3] == dataset.queries.texts[3]
    assert split["relevant_docs"] == {query: dict(dataset.qrels[query]) for query in dataset.queries.ids}
    assert split["top_ranked"] is None
