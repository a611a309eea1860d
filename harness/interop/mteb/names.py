"""Names of metrics, datasets and models in mteb, and their names in the harness."""

import math
import re
from typing import Any

_METRICS = {"hit_rate": "hit"}
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


def to_metric(score: str) -> str:
    """Return the metric of one of mteb's scores, `ndcg@10` for `ndcg_at_10`; other scores keep their name."""
    if score == "accuracy":  # as mteb defines it for ranking
        return "recall@1"
    name, at, k = score.partition("_at_")
    return f"{_METRICS.get(name, name)}@{k}" if at else score


def to_score(metric: str) -> str:
    """Return mteb's score of a metric, `ndcg_at_10` for `ndcg@10`."""
    name, at, k = metric.partition("@")
    mteb_names = {metric_name: score for score, metric_name in _METRICS.items()}
    return f"{mteb_names.get(name, name)}_at_{k}" if at else metric


def task_of(dataset: str) -> tuple[str, str] | None:
    """Return the task and subset of mteb with the same data as a dataset config; None where there is none."""
    if dataset in _BEIR:
        return _BEIR[dataset], "default"
    group, _, subset = dataset.partition("/")
    return (_SUBSETS[group], subset) if subset and group in _SUBSETS else None


def datasets_of(task: str, subset: str) -> list[str]:
    """Return the names on a leaderboard of a mteb `task`'s `subset`: the task's name, and those of dataset configs."""
    name = task if subset == "default" else f"{task}/{subset}"
    configs = [config for config, beir_task in _BEIR.items() if (beir_task, "default") == (task, subset)]
    return [name, *configs, *(f"{group}/{subset}" for group, grouped in _SUBSETS.items() if grouped == task)]


def instruction(metadata: Any) -> str | None:
    """Return a task's instruction for queries, where its metadata have one."""
    prompt = metadata.prompt
    return (prompt.get("query") if isinstance(prompt, dict) else prompt) or None


def is_number(score: Any) -> bool:
    """Return True if one of mteb's scores is a finite number."""
    return isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)


def slug(label: str) -> str:
    """Return a retriever's label in characters that are allowed in a model's name and in a path."""
    return re.sub(r"[^\w.=+-]+", "_", label).strip("_.")[:120] or "retriever"
