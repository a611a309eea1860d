"""The records that a command reads, and the options that choose them."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from harness.errors import ConfigError, UndecidedError

if TYPE_CHECKING:
    from harness.store import Store
    from harness.types import Record


BASELINE = "baseline"
"""The committed baseline's folder among the results, and its name where a side is asked for."""


def add(command: argparse.ArgumentParser, retrievers: bool = True) -> None:
    """Add the options that choose a metric, datasets and retrievers."""
    command.add_argument("--metric", default="ndcg@10", help="default: ndcg@10")
    add_cells(command, retrievers)


def add_cells(command: argparse.ArgumentParser, retrievers: bool = True) -> None:
    """Add the options that choose datasets and retrievers."""
    command.add_argument("--dataset", nargs="+", metavar="NAME", help="only these")
    if retrievers:
        command.add_argument("--retriever", nargs="+", metavar="NAME", help="only these")


def latest(options: argparse.Namespace, store: "Store") -> "list[Record]":
    """The latest records that the options choose.

    Raises `UndecidedError` when none has the metric, `ConfigError` for a name that no record has.
    """
    from harness.metrics import parse

    newest = store.latest()
    known = sorted({name for record in newest for name in record.metrics})
    if options.metric not in known:  # a collection may have measures of its own
        options.metric = str(parse(options.metric))
    if options.metric not in known:
        there = f"; it has {', '.join(known)}" if known else ""
        k = options.metric.rpartition("@")[2]
        deep = f" k={k}" if k.isdigit() and int(k) > 100 else ""
        raise UndecidedError(
            f"nothing in {options.results}/ has {options.metric}{there}; measure it: harness retriever=bm25 "
            f"dataset=stdlib{deep} metrics=[{options.metric}]"
        )
    check_names(options, newest)
    found = [record for record in newest if is_chosen(record, options)]
    if not any(options.metric in record.metrics for record in found):
        raise UndecidedError(
            f"no record of these retrievers on these datasets has {options.metric}; see: harness list records"
        )
    return found


def check_names(options: argparse.Namespace, records: "Sequence[Record]") -> None:
    """Raises `ConfigError` for a retriever or a dataset in the options that no record is called."""
    for kind, given in (("retriever", getattr(options, "retriever", None)), ("dataset", options.dataset)):
        known = {name for record in records for name in _names(record)[kind]}
        for name in given or []:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"no record of {kind} {name!r}; there are {', '.join(sorted(known)) or 'none'}{hint}")


def is_chosen(record: "Record", options: argparse.Namespace) -> bool:
    """Whether a record's retriever and dataset are among those that the options name."""
    named = _names(record)
    retrievers, datasets = getattr(options, "retriever", None), options.dataset
    return (not retrievers or bool(named["retriever"] & {*retrievers})) and (
        not datasets or bool(named["dataset"] & {*datasets})
    )


def _names(record: "Record") -> dict[str, set[str]]:
    own = record.dataset
    return {
        "retriever": {record.retriever.label, record.retriever.name},
        "dataset": {own.label, own.name, *([own.group] if own.group else [])},
    }
