"""`harness validate`: configs composed and built, without loading weights; and one choice with its collection."""

from collections.abc import Sequence
from typing import Any

from harness.config import build
from harness.config.conf import options_of
from harness.config.evaluation import checked_config
from harness.errors import HarnessError
from harness.types import Dataset

Finding = dict[str, Any]


def whole() -> list[Finding]:
    """Every retriever built, every dataset and experiment composed."""
    found = [_tried(f"retriever={name}", _complete) for name, _ in options_of("retriever")]
    found += [_tried(f"dataset={name}", _dataset) for name, _ in options_of("dataset")]
    return found + [_tried(f"experiment={name}", _experiment) for name, _ in options_of("experiment")]


def one(overrides: Sequence[str], folders: Sequence[str] = ()) -> list[Finding]:
    """The settings, and the retriever and the dataset that some overrides choose; the dataset is read whole.

    `folders` have configs of the user's own.
    """
    said = " ".join(overrides)
    chosen = {override.lstrip("+~").partition("=")[0].partition("@")[0].partition(".")[0] for override in overrides}
    named = list(overrides) if chosen & {"retriever", "experiment"} else ["retriever=bm25", *overrides]
    settings = _tried(said, lambda _: _settings(named, folders))
    if not settings["ok"]:
        return [settings]
    checks = {"retriever": _retriever, "dataset": _read}
    found = [
        _tried(said, lambda _, check=check: check(named, folders)) for group, check in checks.items() if group in chosen
    ]
    return found or [settings]


def _settings(overrides: Sequence[str], folders: Sequence[str]) -> str:
    checked = checked_config(build.composition(overrides, folders))
    return f"k={checked.k}, {len(checked.metrics)} metrics"


def _tried(said: str, check: Any) -> Finding:
    try:
        return {"config": said, "ok": True, "message": check([said])}
    except HarnessError as error:
        return {"config": said, "ok": False, "message": str(error)}


def _complete(overrides: Sequence[str]) -> str:
    """A retriever built; of one that lacks what only the user can name, its keys."""
    config = build.composed(overrides)["retriever"]
    if "???" not in config.values():
        return _retriever(overrides)
    build.check_keys({key: value for key, value in config.items() if value != "???"}, "retriever")
    return str(config["_target_"])


def _retriever(overrides: Sequence[str], folders: Sequence[str] = ()) -> str:
    config = build.composed(overrides, folders)["retriever"]
    return type(build.construct(config, "retriever")).__name__


def _dataset(overrides: Sequence[str]) -> str:
    config = build.composed(["retriever=bm25", *overrides])["dataset"]
    build.check_keys(config, "dataset")
    return str(config["_target_"])


def _experiment(overrides: Sequence[str]) -> str:
    build.composed(overrides)
    return ""


def _read(overrides: Sequence[str], folders: Sequence[str]) -> str:
    config = build.required(build.composed(overrides, folders)["dataset"], "dataset")
    dataset: Dataset = build.construct(config, "dataset")
    return (
        f"{dataset.name}: {len(dataset.corpus):,} documents, {len(dataset.queries):,} queries, "
        f"{dataset.qrels.judgements():,} judgements, fingerprint {dataset.fingerprint}"
    )
