"""What mteb and this harness call the same things: measures, BEIR's sets, a task's instruction."""

import re
from typing import Any

_MEASURES = {"hit_rate": "hit"}
_BEIR = {
    "arguana": "ArguAna",
    "climate-fever": "ClimateFEVER",
    "dbpedia-entity": "DBPedia",
    "fever": "FEVER",
    "fiqa": "FiQA2018",
    "hotpotqa": "HotpotQA",
    "msmarco": "MSMARCO",
    "nfcorpus": "NFCorpus",
    "nq": "NQ",
    "quora": "QuoraRetrieval",
    "scidocs": "SCIDOCS",
    "scifact": "SciFact",
    "trec-covid": "TRECCOVID",
    "webis-touche2020": "Touche2020",
    "cqadupstack": "CQADupstackRetrieval",
    **{
        f"cqadupstack/{forum}": f"CQADupstack{forum.capitalize()}Retrieval"
        for forum in (
            *("android", "english", "gaming", "gis", "mathematica", "physics"),
            *("programmers", "stats", "tex", "unix", "webmasters", "wordpress"),
        )
    },
}
_SUBSETS = {"xquad": "XQuADRetrieval"}


def ours(measure: str) -> str:
    """`ndcg_at_10` as `ndcg@10`; one that only mteb has keeps its name."""
    if measure == "accuracy":  # as mteb defines it for ranking
        return "recall@1"
    name, at, k = measure.partition("_at_")
    return f"{_MEASURES.get(name, name)}@{k}" if at else measure


def theirs(measure: str) -> str:
    """`ndcg@10` as `ndcg_at_10`."""
    name, at, k = measure.partition("@")
    back = {own: other for other, own in _MEASURES.items()}
    return f"{back.get(name, name)}_at_{k}" if at else measure


def task_of(dataset: str) -> tuple[str, str] | None:
    """The task and subset of mteb that one of our configs' datasets is the same collection as; None where none is."""
    if dataset in _BEIR:
        return _BEIR[dataset], "default"
    group, _, subset = dataset.partition("/")
    return (_SUBSETS[group], subset) if subset and group in _SUBSETS else None


def datasets_of(task: str, subset: str) -> list[str]:
    """What our boards may call a task's subset: its own name, and our config's where there is one."""
    own = task if subset == "default" else f"{task}/{subset}"
    ours = [name for name, other in _BEIR.items() if (other, "default") == (task, subset)]
    return [own, *ours, *(f"{group}/{subset}" for group, other in _SUBSETS.items() if other == task)]


def instruction(about: Any) -> str | None:
    """What a task says is asked of a query, where its metadata have it."""
    prompt = about.prompt
    said = prompt.get("query") if isinstance(prompt, dict) else prompt
    return said or None


def slug(label: str) -> str:
    """A retriever's label as a part of a model's name and of a path."""
    return re.sub(r"[^\w.=+-]+", "_", label).strip("_.")[:120] or "retriever"
