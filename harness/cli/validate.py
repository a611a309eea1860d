"""`harness validate`: compose and build configs without loading weights, or check one config with its dataset."""

from collections.abc import Sequence
from typing import Any

from harness.config import build
from harness.config.conf import options_of
from harness.config.evaluation import validate_evaluation_config
from harness.config.keys import check_keys
from harness.errors import HarnessError
from harness.types import Dataset

Finding = dict[str, Any]


def validate_all() -> list[Finding]:
    """Build every retriever and compose every dataset and experiment."""
    findings = [_check(f"retriever={name}", _build_or_check_keys) for name, _ in options_of("retriever")]
    findings += [_check(f"dataset={name}", _check_dataset) for name, _ in options_of("dataset")]
    return findings + [_check(f"experiment={name}", _compose) for name, _ in options_of("experiment")]


def validate_overrides(overrides: Sequence[str], folders: Sequence[str] = ()) -> list[Finding]:
    """Check the settings, the retriever and the dataset that overrides choose; the dataset is loaded.

    Args:
        overrides: Config overrides.
        folders: Additional config folders.
    """
    text = " ".join(overrides)
    groups = {override.lstrip("+~").partition("=")[0].partition("@")[0].partition(".")[0] for override in overrides}
    completed = list(overrides) if groups & {"retriever", "experiment"} else ["retriever=bm25", *overrides]
    settings = _check(text, lambda _: _settings(completed, folders))
    if not settings["ok"]:
        return [settings]
    checks = {"retriever": _build_retriever, "dataset": _load_dataset}
    findings = [
        _check(text, lambda _, check=check: check(completed, folders))
        for group, check in checks.items()
        if group in groups
    ]
    return findings or [settings]


def _settings(overrides: Sequence[str], folders: Sequence[str]) -> str:
    config = validate_evaluation_config(build.compose_config(overrides, folders))
    return f"k={config.k}, {len(config.metrics)} metrics"


def _check(config: str, check: Any) -> Finding:
    try:
        return {"config": config, "ok": True, "message": check([config])}
    except HarnessError as error:
        return {"config": config, "ok": False, "message": str(error)}


def _build_or_check_keys(overrides: Sequence[str]) -> str:
    """Build a retriever; if a required value is not set in its config, only check the keys."""
    config = build.composed(overrides)["retriever"]
    if "???" not in config.values():
        return _build_retriever(overrides)
    check_keys({key: value for key, value in config.items() if value != "???"}, "retriever")
    return str(config["_target_"])


def _build_retriever(overrides: Sequence[str], folders: Sequence[str] = ()) -> str:
    config = build.composed(overrides, folders)["retriever"]
    return type(build.construct(config, "retriever")).__name__


def _check_dataset(overrides: Sequence[str]) -> str:
    config = build.composed(["retriever=bm25", *overrides])["dataset"]
    check_keys(config, "dataset")
    return str(config["_target_"])


def _compose(overrides: Sequence[str]) -> str:
    build.composed(overrides)
    return ""


def _load_dataset(overrides: Sequence[str], folders: Sequence[str]) -> str:
    config = build.require_complete(build.composed(overrides, folders)["dataset"], "dataset")
    dataset: Dataset = build.construct(config, "dataset")
    return (
        f"{dataset.name}: {len(dataset.corpus):,} documents, {len(dataset.queries):,} queries, "
        f"{dataset.qrels.judgements():,} judgements, fingerprint {dataset.fingerprint}"
    )
