"""`harness synthesize` without a model, from the command line on: what it makes, what it says, what it refuses."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from support.datasets import write_beir

from harness import __main__, environment
from harness.cli import synthesize
from harness.config import build
from harness.config.conf import options_of
from harness.datasets import folder
from harness.errors import ConfigError
from harness.train import triplets
from harness.train.words import words


@pytest.fixture
def made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small collection in BEIR's layout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return write_beir(Path("made"))


def manifest(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{output}.manifest.json").read_text())
    return found


def test_titles_of_a_real_collection_become_triplets_that_datasets_loads(
    real_dataset, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_DATA", str(data))
    arguments = ["synthesize", "generator=titles", "dataset=cranfield", "documents=300", "negatives.n=2"]
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert stop.value.code == 0
    output = "triplets/cranfield-titles.parquet"
    out, err = capsys.readouterr()
    assert err == "titles on cranfield: 1,400 documents\n"
    assert out.splitlines()[-2:] == [output, f"{output}.manifest.json"]
    rows = datasets.load_dataset("parquet", data_files=output, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    cranfield = real_dataset("cranfield")
    documents = dict(zip(cranfield.corpus.ids, cranfield.corpus.texts, strict=True))
    titles = dict(zip(documents, cranfield.load_titles(), strict=True))
    bodies = {key: text.removeprefix(titles[key]).strip() for key, text in documents.items()}
    for row in rows:
        own = {text for text in documents.values() if text.startswith(f"{row['anchor']} ") and row["positive"] in text}
        assert own
        assert not row["positive"].startswith(row["anchor"])
        negatives = {row["negative_1"], row["negative_2"]}
        assert len(negatives) == 2
        whole = [key for key, text in documents.items() if any(text.endswith(negative) for negative in negatives)]
        assert not {documents[key] for key in whole} & own
        assert not any(negative.startswith(titles[key]) for key in whole for negative in negatives if bodies[key])
        assert row["positive"] not in negatives
    said = manifest(output)
    assert said["source"] == {
        "dataset": "cranfield",
        "split": "test",
        "documents": 1400,
        "fingerprint": real_dataset("cranfield").corpus.fingerprint,
    }
    queries = said["queries"]
    assert said["documents"]["sampled"] == 300 == queries["generated"] + sum(said["documents"]["unusable"].values())
    assert queries["selected"] == len(rows) == queries["generated"] - sum(queries["dropped"].values())
    assert said["triplets"] == {"rows": len(rows), "fingerprint": triplets.read(Path(output)).fingerprint}
    assert said["command"] == "harness synthesize generator=titles dataset=cranfield documents=300 negatives.n=2"
    assert said["config"]["negatives"]["margin"] == 0.05
    assert said["environment"] == environment.manifest()
    assert said["seconds"]["whole"] > 0


def test_sentences_of_the_embedded_collection_need_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    assert synthesize.main(["generator=sentences", "documents=200", "negatives=random"]) == 0
    found = triplets.read(Path("triplets/stdlib-sentences.parquet"))
    assert len(found) > 100
    kept = sum(anchor in " ".join(text.split()) for anchor, text in zip(found.anchors, found.positives, strict=True))
    assert 0 < kept < 0.25 * len(found)
    assert all(5 <= len(words(anchor)) <= 40 for anchor in found.anchors)


def test_a_file_of_documents_is_enough_with_columns_of_its_own(made_here):
    lines = [{"docno": key, "head": f"Heading {key}", "body": f"The body of number {key}."} for key in "abcdef"]
    with gzip.open("mine.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["corpus=mine.jsonl.gz", "columns={id: docno, title: head, text: body}", "generator=titles"]
    assert synthesize.main([*arguments, "negatives=none", "output=new/pairs.jsonl"]) == 0
    found = triplets.read(Path("new/pairs.jsonl"))
    assert found.anchors == [line["head"] for line in lines]
    assert found.positives == [line["body"] for line in lines]
    assert found.negatives == [[]] * 6
    source = manifest("new/pairs.jsonl")["source"]
    assert source["file"] == "mine.jsonl.gz"
    assert source["columns"] == {"id": "docno", "title": "head", "text": "body"}
    assert synthesize.main([*arguments, "negatives=none"]) == 0
    assert Path("triplets/mine-titles.parquet").exists()


def test_a_query_that_does_not_find_its_document_is_dropped_and_counted(made_here):
    corpus = made_here / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('"Cats"', '"Dogs moon strangers"'))  # more like the next one
    folder = ["dataset=folder", "dataset.path=made", "generator=titles", "negatives=random"]
    assert synthesize.main([*folder, "round_trip.k=1"]) == 0
    assert manifest("triplets/made-titles.parquet")["queries"] == {
        "generated": 3,
        "selected": 2,
        "dropped": {"round_trip": 1},
    }
    assert synthesize.main([*folder, "round_trip.k=null"]) == 0
    assert manifest("triplets/made-titles.parquet")["queries"] == {"generated": 3, "selected": 3, "dropped": {}}


def test_titles_are_read_only_when_they_are_asked_for_and_change_no_fingerprint(made_here):
    dataset = folder.read(made_here, "made", "test")
    fingerprint = dataset.fingerprint
    assert dataset.load_titles is not None
    assert list(dataset.load_titles()) == ["Cats", "Dogs", "", "Bread"]
    assert dataset.fingerprint == fingerprint
    (made_here / "corpus.jsonl").unlink()
    assert folder.read(write_beir(Path("again")), "made", "test").fingerprint == fingerprint


def test_a_sweep_makes_a_file_for_each_generator_and_the_same_again(made_here):
    arguments = ["-m", "generator=titles,sentences", "corpus=made/corpus.jsonl", "negatives=random", "negatives.n=2"]
    corpus = made_here / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('."}', '. This is said of many an animal."}'))
    prints = []
    for _ in range(2):
        assert synthesize.main(arguments) == 0
        prints.append([manifest(f"triplets/corpus-{name}.parquet")["triplets"] for name in ("titles", "sentences")])
    assert prints[0] == prints[1]
    assert prints[0][0] != prints[0][1]
    # what every document says has no negatives
    assert manifest("triplets/corpus-sentences.parquet")["queries"]["dropped"] == {"duplicate": 3, "no_negatives": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [],
            "generator.model is not set; set generator.model=NAME to one of https://api.openai.com/v1/models, or use a "
            "generator without a model: generator=sentences or generator=titles",
        ),
        (["generator=poems"], "no generator 'poems'; choices: llm, sentences, titles"),
        (["negatives=easy"], "no negatives 'easy'; choices: mined, none, random"),
        (["document=3"], "the config has no key 'document'; choices: "),
        (["+more=1"], "more=1: no such key; choices: dataset, corpus, columns, generator, negatives, round_trip, "),
        (["round_trip.k=0"], "round_trip.k=0: Input should be greater than or equal to 1; see the whole config: "),
        (["+generator.modell=x"], "generator has no key 'modell'; choices: "),
        (
            ["generator=sentences", "generator.keep=often"],
            "generator.keep='often' must be a number; see: harness synthesize ",
        ),
        (
            ["generator=sentences", "output=here.csv"],
            "output='here.csv' has an unknown suffix; choices: .parquet, .jsonl, ",
        ),
        (
            ["generator=sentences", "output=made/corpus.jsonl"],
            "made/corpus.jsonl exists and has no manifest, so harness synthesize did not write it; write to "
            "another file: output=FILE",
        ),
        (
            ["generator=sentences", "output=made/corpus.jsonl/t.jsonl"],
            "output='made/corpus.jsonl/t.jsonl': File exists; name a file that can be written",
        ),
        (["generator=sentences", "corpus=none.jsonl"], "none.jsonl: no such file"),
        (
            ["generator=sentences", "corpus=made/corpus.jsonl", "generator.words=[90,99]"],
            "no triplets are left from 4 documents of corpus: 4 no_sentence",
        ),
        (
            ["generator=titles", "corpus=made/corpus.jsonl", "negatives=random", "negatives.n=9"],
            "no triplets are left from 4 documents of corpus: 1 no_title, 3 no_negatives; change: documents, "
            "generator, round_trip.k, negatives.n",
        ),
        (
            ["generator.model=m", "generator.prompt=Write"],
            "generator.prompt='Write' has no {document}; add it",
        ),
        (["generator.model=m", "generator.concurrency=0"], "generator.concurrency=0 must be at least 1"),
        (
            ["generator.model=m", "corpus=made/corpus.jsonl"],
            "openai needs an API key, and the environment variable OPENAI_API_KEY is not set; set it: export "
            "OPENAI_API_KEY=...; or name another: generator.api_key_env=NAME",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_value_and_what_to_do(made_here, monkeypatch, capsys, arguments, said):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before = Path("made/corpus.jsonl").read_bytes()
    is_of_the_data = said.startswith(("none.jsonl", "no triplets are left"))
    assert synthesize.main(arguments) == (1 if is_of_the_data else 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {said}")
    assert "harness --cfg" not in error
    assert Path("made/corpus.jsonl").read_bytes() == before
    assert not list(Path().rglob("*.parquet"))


@pytest.mark.parametrize(
    ("generator", "negatives"),
    [
        *((name, "mined") for name, _ in options_of("generator")),
        *(("titles", name) for name, _ in options_of("negatives") if name != "mined"),
    ],
)
def test_every_generator_and_all_negatives_compose_and_are_built(generator, negatives):
    chosen = [f"generator={generator}", f"negatives={negatives}"]
    chosen += ["generator.model=m"] if generator == "llm" else []
    config = build.composed(chosen, name="synthesize")
    synthesize.SynthesizeConfig.model_validate(config)
    build.construct(config["generator"], "generator")
    assert build.construct(config["negatives"], "negatives").n == (0 if negatives == "none" else 1)


def test_retrievers_are_swapped_by_name_those_of_several_parts_too():
    swapped = ["retriever@round_trip.retriever=hybrid", "retriever@negatives.retriever=rerank"]
    config = build.composed(swapped, name="synthesize")
    assert config["round_trip"]["retriever"]["depth"] == config["negatives"]["retriever"]["depth"] == 100
    build.construct(config["round_trip"]["retriever"], "round_trip.retriever")
    with pytest.raises(ConfigError, match="no retriever 'nobody'; choices: "):
        build.composed(["retriever@negatives.retriever=nobody"], name="synthesize")
