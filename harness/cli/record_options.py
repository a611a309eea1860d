"""Command-line options that select records by metric, dataset and retriever."""

import argparse
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING

from harness.console import say
from harness.errors import ConfigError, UndecidedError

if TYPE_CHECKING:
    from harness.store import Store
    from harness.types import Record


BASELINE = "baseline"
"""Folder of the committed baseline inside the results folder; also its name in `harness compare`."""


def add(command: argparse.ArgumentParser, retrievers: bool = True) -> None:
    """Add the options that choose a metric, datasets and retrievers."""
    command.add_argument(
        "--metric",
        default="ndcg@10",
        help="metric, measured or computed from stored runs; default: ndcg@10",
    )
    add_filters(command, retrievers)


def add_filters(command: argparse.ArgumentParser, retrievers: bool = True) -> None:
    """Add the options that choose datasets and retrievers."""
    command.add_argument("--dataset", nargs="+", metavar="NAME", help="only these datasets")
    if retrievers:
        command.add_argument("--retriever", nargs="+", metavar="NAME", help="only these retrievers")


def latest(options: argparse.Namespace, store: "Store") -> "list[Record]":
    """Return the newest records of the results folder, some of which the options select and have the metric.

    All of them are one family of comparisons; `selection` tells which of them to show. A metric that was not measured
    is computed, and the metric of the options is replaced by its canonical name.

    Raises:
        UndecidedError: No selected record has the metric, and it cannot be computed.
        ConfigError: No record has a retriever or dataset of that name, or the metric is unknown.
    """
    newest = store.latest()
    options.metric = canonical(options.metric, newest)
    if all(record.status != "ok" for record in newest):
        raise _nothing_measured(options, newest)
    check_names(options, newest)
    return with_metric(newest, options, store)


def canonical(metric: str, records: "Sequence[Record]") -> str:
    """Return the canonical name of a metric; one that a dataset defines, which a record has, is returned unchanged.

    Raises:
        ConfigError: The metric is unknown; the message names the choices.
    """
    from harness.metrics import parse

    return metric if any(metric in record.metrics for record in records) else str(parse(metric))


def with_metric(records: "Sequence[Record]", options: argparse.Namespace, store: "Store") -> "list[Record]":
    """Return the records with the metric of the options, computed from the stored runs where it was not measured.

    The first evaluation that is selected and lacks the metric is named on stderr.

    Raises:
        UndecidedError: No selected record has the metric, and it cannot be computed.
    """
    from harness.store.rescore import describe, missing_error

    rescored = store.with_metric(records, options.metric)
    missing = [each for each in rescored.missing if is_selected(each.record, options)]
    if not any(options.metric in record.metrics for record in rescored.records if is_selected(record, options)):
        if missing:
            raise missing_error(options.metric, missing)
        raise UndecidedError(
            f"no record of these retrievers on these datasets has {options.metric}; see: harness list records"
        )
    if missing:
        say(f"without {options.metric}: {describe(options.metric, missing)}")
    return rescored.records


def selection(options: argparse.Namespace) -> "Callable[[Record], bool] | None":
    """Return a function that is True for the records to show; None where the options show all of them."""
    has_filter = options.dataset or getattr(options, "retriever", None)
    return partial(is_selected, options=options) if has_filter else None


def _nothing_measured(options: argparse.Namespace, newest: "Sequence[Record]") -> UndecidedError:
    from harness.metrics import override, parse

    k = parse(options.metric).k or 0
    depth = f" k={k}" if k > 100 else ""
    failed = "; every evaluation failed" if newest else ""
    return UndecidedError(
        f"nothing in {options.results}/ has {options.metric}{failed}; measure it: harness retriever=bm25 "
        f"dataset=stdlib{depth} {override([options.metric])}"
    )


def check_names(options: argparse.Namespace, records: "Sequence[Record]") -> None:
    """Raise `ConfigError` for a retriever or a dataset in the options that no record has."""
    for kind, given in (("retriever", getattr(options, "retriever", None)), ("dataset", options.dataset)):
        known = {name for record in records for name in names(record)[kind]}
        for name in given or []:
            if name not in known:
                matches = get_close_matches(name, known, n=1)
                hint = f"; did you mean {matches[0]!r}?" if matches else ""
                raise ConfigError(f"no record of {kind} {name!r}; there are {', '.join(sorted(known)) or 'none'}{hint}")


def is_selected(record: "Record", options: argparse.Namespace) -> bool:
    """Return True if the options select the record's retriever and dataset."""
    known = names(record)
    retrievers, datasets = getattr(options, "retriever", None), options.dataset
    return (not retrievers or bool(known["retriever"] & {*retrievers})) and (
        not datasets or bool(known["dataset"] & {*datasets})
    )


def names(record: "Record") -> dict[str, set[str]]:
    """Return the names that select a record's retriever and dataset."""
    dataset = record.dataset
    return {
        "retriever": {record.retriever.label, record.retriever.name},
        "dataset": {dataset.label, dataset.name, *([dataset.group] if dataset.group else [])},
    }
