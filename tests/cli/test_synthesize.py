"""Tests of `harness synthesize` without a language model: its output, its messages and its errors."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from support.command_line import harness
from support.datasets import write_beir

from harness import environment
from harness.cli import synthesize
from harness.config import build
from harness.config.conf import options_of
from harness.datasets import folder
from harness.errors import ConfigError
from harness.train import triplets
from harness.train.words import words


@pytest.fixture
def dataset_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder with a small dataset in BEIR's layout; return the dataset's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return write_beir(Path("tiny"))


def manifest(output: str) -> dict[str, Any]:
    """Return the manifest beside an output file."""
    content: dict[str, Any] = json.loads(Path(f"{output}.manifest.json").read_text())
    return content


def test_titles_become_triplets_that_the_datasets_library_loads(real_dataset, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_DATA", str(data))
    arguments = ["synthesize", "generator=titles", "dataset=cranfield", "documents=300", "negatives.n=2"]
    assert harness(monkeypatch, *arguments) == 0
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
        sources = {
            text for text in documents.values() if text.startswith(f"{row['anchor']} ") and row["positive"] in text
        }
        assert sources
        assert not row["positive"].startswith(row["anchor"])
        negatives = {row["negative_1"], row["negative_2"]}
        assert len(negatives) == 2
        negative_ids = [
            key for key, text in documents.items() if any(text.endswith(negative) for negative in negatives)
        ]
        assert not {documents[key] for key in negative_ids} & sources
        assert not any(
            negative.startswith(titles[key]) for key in negative_ids for negative in negatives if bodies[key]
        )
        assert row["positive"] not in negatives
    content = manifest(output)
    assert content["source"] == {
        "dataset": "cranfield",
        "split": "test",
        "documents": 1400,
        "fingerprint": real_dataset("cranfield").corpus.fingerprint,
    }
    queries = content["queries"]
    assert (
        content["documents"]["sampled"] == 300 == queries["generated"] + sum(content["documents"]["unusable"].values())
    )
    assert queries["selected"] == len(rows) == queries["generated"] - sum(queries["dropped"].values())
    assert content["triplets"] == {"rows": len(rows), "fingerprint": triplets.read(Path(output)).fingerprint}
    assert content["command"] == "harness synthesize generator=titles dataset=cranfield documents=300 negatives.n=2"
    assert content["config"]["negatives"]["margin"] == 0.05
    assert content["environment"] == environment.manifest()
    assert content["seconds"]["whole"] > 0


@pytest.mark.slow
def test_sentences_of_the_built_in_dataset_become_triplets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    assert synthesize.main(["generator=sentences", "documents=200", "negatives=random"]) == 0
    rows = triplets.read(Path("triplets/stdlib-sentences.parquet"))
    assert len(rows) > 100
    pairs = zip(rows.anchors, rows.positives, strict=True)
    containing_anchor = sum(anchor in " ".join(text.split()) for anchor, text in pairs)
    assert 0 < containing_anchor < 0.25 * len(rows)
    assert all(5 <= len(words(anchor)) <= 40 for anchor in rows.anchors)


def test_corpus_file_with_renamed_columns_is_read(dataset_folder):
    lines = [{"docno": key, "head": f"Heading {key}", "body": f"The body of number {key}."} for key in "abcdef"]
    with gzip.open("docs.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["corpus=docs.jsonl.gz", "columns={id: docno, title: head, text: body}", "generator=titles"]
    assert synthesize.main([*arguments, "negatives=none", "output=new/pairs.jsonl"]) == 0
    rows = triplets.read(Path("new/pairs.jsonl"))
    assert rows.anchors == [line["head"] for line in lines]
    assert rows.positives == [line["body"] for line in lines]
    assert rows.negatives == [[]] * 6
    source = manifest("new/pairs.jsonl")["source"]
    assert source["file"] == "docs.jsonl.gz"
    assert source["columns"] == {"id": "docno", "title": "head", "text": "body"}
    assert synthesize.main([*arguments, "negatives=none"]) == 0
    assert Path("triplets/docs-titles.parquet").exists()


def test_round_trip_drops_queries_that_do_not_retrieve_their_document(dataset_folder):
    corpus = dataset_folder / "corpus.jsonl"
    corpus.write_text(
        corpus.read_text().replace('"Cats"', '"Dogs moon strangers"')
    )  # its title now matches the next document
    arguments = ["dataset=folder", "dataset.path=tiny", "generator=titles", "negatives=random"]
    assert synthesize.main([*arguments, "round_trip.k=1"]) == 0
    assert manifest("triplets/tiny-titles.parquet")["queries"] == {
        "generated": 3,
        "selected": 2,
        "dropped": {"round_trip": 1},
    }
    assert synthesize.main([*arguments, "round_trip.k=null"]) == 0
    assert manifest("triplets/tiny-titles.parquet")["queries"] == {"generated": 3, "selected": 3, "dropped": {}}


def test_titles_are_loaded_lazily_and_change_no_fingerprint(dataset_folder):
    dataset = folder.read(dataset_folder, "tiny", "test")
    fingerprint = dataset.fingerprint
    assert dataset.load_titles is not None
    assert list(dataset.load_titles()) == ["Cats", "Dogs", "", "Bread"]
    assert dataset.fingerprint == fingerprint
    (dataset_folder / "corpus.jsonl").unlink()
    assert folder.read(write_beir(Path("copy")), "tiny", "test").fingerprint == fingerprint


def test_sweep_writes_a_file_for_each_generator_reproducibly(dataset_folder):
    arguments = ["-m", "generator=titles,sentences", "corpus=tiny/corpus.jsonl", "negatives=random", "negatives.n=2"]
    corpus = dataset_folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('."}', '. Every document has this sentence."}'))
    fingerprints = []
    for _ in range(2):
        assert synthesize.main(arguments) == 0
        fingerprints.append(
            [manifest(f"triplets/corpus-{name}.parquet")["triplets"] for name in ("titles", "sentences")]
        )
    assert fingerprints[0] == fingerprints[1]
    assert fingerprints[0][0] != fingerprints[0][1]
    # a sentence of every document has no negatives
    assert manifest("triplets/corpus-sentences.parquet")["queries"]["dropped"] == {"duplicate": 3, "no_negatives": 1}


MISTAKES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no model": ([], ("generator.model is not set", "generator.model=NAME", "generator=sentences", "generator=titles")),
    "unknown generator": (["generator=poems"], ("no generator 'poems'", "choices: llm, sentences, titles")),
    "unknown negatives": (["negatives=easy"], ("no negatives 'easy'", "choices: mined, none, random")),
    "unknown key": (["document=3"], ("no key 'document'", "choices: ")),
    "unknown key added": (
        ["+more=1"],
        ("more=1", "choices: dataset, corpus, columns, generator, negatives, round_trip"),
    ),
    "zero round trip": (["round_trip.k=0"], ("round_trip.k=0", "greater than or equal to 1", "see the whole config")),
    "unknown key of the generator": (["+generator.modell=x"], ("generator has no key 'modell'", "choices: ")),
    "share is a word": (
        ["generator=sentences", "generator.keep=often"],
        ("generator.keep='often'", "number", "harness synthesize"),
    ),
    "unknown suffix": (
        ["generator=sentences", "output=here.csv"],
        ("output='here.csv'", "choices: .parquet, .jsonl"),
    ),
    "output of another program": (
        ["generator=sentences", "output=tiny/corpus.jsonl"],
        ("tiny/corpus.jsonl exists and has no manifest", "output=FILE"),
    ),
    "output below a file": (
        ["generator=sentences", "output=tiny/corpus.jsonl/t.jsonl"],
        ("output='tiny/corpus.jsonl/t.jsonl'", "name a file that can be written"),
    ),
    "missing corpus": (["generator=sentences", "corpus=none.jsonl"], ("none.jsonl: no such file",)),
    "no sentence of the length": (
        ["generator=sentences", "corpus=tiny/corpus.jsonl", "generator.words=[90,99]"],
        ("no triplets are left from 4 documents of corpus", "4 no_sentence"),
    ),
    "too many negatives": (
        ["generator=titles", "corpus=tiny/corpus.jsonl", "negatives=random", "negatives.n=9"],
        ("no triplets are left from 4 documents of corpus", "1 no_title, 3 no_negatives", "negatives.n"),
    ),
    "prompt without a document": (
        ["generator.model=m", "generator.prompt=Write"],
        ("generator.prompt='Write'", "{document}; add it"),
    ),
    "zero concurrency": (["generator.model=m", "generator.concurrency=0"], ("generator.concurrency=0", "at least 1")),
    "no API key": (
        ["generator.model=m", "corpus=tiny/corpus.jsonl"],
        ("openai needs an API key", "export OPENAI_API_KEY=...", "generator.api_key_env=NAME"),
    ),
}
DATA_ERRORS = ("missing corpus", "no sentence of the length", "too many negatives")


@pytest.mark.parametrize("name", MISTAKES)
def test_error_is_one_line_with_the_value_and_the_remedy(dataset_folder, monkeypatch, capsys, name):
    arguments, fragments = MISTAKES[name]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before = Path("tiny/corpus.jsonl").read_bytes()
    assert synthesize.main(arguments) == (1 if name in DATA_ERRORS else 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert [fragment for fragment in fragments if fragment not in error] == [], error
    assert "harness --cfg" not in error
    assert Path("tiny/corpus.jsonl").read_bytes() == before
    assert not list(Path().rglob("*.parquet"))


@pytest.mark.parametrize(
    ("generator", "negatives"),
    [
        *((name, "mined") for name, _ in options_of("generator")),
        *(("titles", name) for name, _ in options_of("negatives") if name != "mined"),
    ],
)
def test_every_generator_and_negatives_can_be_constructed(generator, negatives):
    overrides = [f"generator={generator}", f"negatives={negatives}"]
    overrides += ["generator.model=m"] if generator == "llm" else []
    config = build.composed(overrides, name="synthesize")
    synthesize.SynthesizeConfig.model_validate(config)
    build.construct(config["generator"], "generator")
    assert build.construct(config["negatives"], "negatives").n == (0 if negatives == "none" else 1)


def test_round_trip_and_negatives_retrievers_are_swapped_by_name():
    overrides = ["retriever@round_trip.retriever=hybrid", "retriever@negatives.retriever=rerank"]
    config = build.composed(overrides, name="synthesize")
    assert config["round_trip"]["retriever"]["depth"] == config["negatives"]["retriever"]["depth"] == 100
    build.construct(config["round_trip"]["retriever"], "round_trip.retriever")
    with pytest.raises(ConfigError, match="no retriever 'unknown'; choices: "):
        build.composed(["retriever@negatives.retriever=unknown"], name="synthesize")
