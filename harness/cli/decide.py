"""`harness compare` and `harness recommend`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import non_negative_number, record_options
from harness.cli.record_options import BASELINE
from harness.console import show, show_tables
from harness.errors import ConfigError, UndecidedError

if TYPE_CHECKING:
    from harness.store import Store
    from harness.types import Record

_LIMITS = {
    "max_latency_ms": "95th percentile of the latency of single queries",
    "max_index_mb": "the largest index among the datasets, 1 MB = 1,000,000 bytes",
    "min_docs_per_s": "documents indexed per second, encoding included",
    "min_queries_per_s": "queries searched per second in one batch",
}


def add(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the parsers of both commands."""
    compare = commands.add_parser("compare", help="compare two retrievers or records query by query")
    for side in ("a", "b"):
        compare.add_argument(side, help=f"a retriever on the leaderboard, a record's file or id, or {BASELINE}")
    compare.add_argument("--md", action="store_true", help="markdown on stdout")
    compare.set_defaults(command=_compare)

    recommend = commands.add_parser("recommend", help="show the best retriever within limits, and the runner-up")
    for name, meaning in _LIMITS.items():
        recommend.add_argument(
            f"--{name.replace('_', '-')}", type=non_negative_number, metavar="N", dest=name, help=meaning
        )
    recommend.set_defaults(command=_recommend)
    record_options.add(compare, retrievers=False)
    record_options.add(recommend)
    return [compare, recommend]


def _compare(options: argparse.Namespace) -> int:
    from harness.leaderboard import frame, writers
    from harness.leaderboard.compare import compare
    from harness.leaderboard.tables.comparison import tables
    from harness.store import Store

    store = Store(options.results)
    sides, among = _sides(options, store), store.latest()
    options.metric = record_options.canonical(options.metric, [*sides[0], *sides[1]])
    a, b = (record_options.with_metric(side, options, store) for side in sides)
    among = store.with_metric(among, options.metric).records
    scores = store.scores([*a, *b, *among], [options.metric])
    names = tuple(BASELINE if name == BASELINE else None for name in (options.a, options.b))
    comparison = compare(a, b, options.metric, scores, store.table, names, among)
    if options.json:
        show(frame.to_json(frame.comparison_data(comparison)))
    elif options.md:
        show(writers.markdown(tables(comparison)))
    else:
        show_tables(tables(comparison))
    return 0


def _sides(options: argparse.Namespace, store: "Store") -> "tuple[list[Record], list[Record]]":
    """Return the records of both sides, with absolute paths to their files."""
    if options.a == BASELINE and options.b == BASELINE:
        raise ConfigError("both sides are the baseline; name a retriever or a record: harness compare baseline NAME")
    sides = {name: _side(name, store, options) for name in (options.a, options.b) if name != BASELINE}
    if BASELINE in (options.a, options.b):
        sides[BASELINE] = _baseline_records(next(iter(sides.values())), options)
    return sides[options.a], sides[options.b]


def _side(name: str, store: "Store", options: argparse.Namespace) -> "list[Record]":
    """Return the records that `name` selects: a record's file, an evaluation's id, or a retriever's label or name."""
    from harness.store import Store, read_record

    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        root = next((folder.parent for folder in path.resolve().parents if folder.name == "records"), store.root)
        return [Store(root).with_absolute_paths(read_record(path))]
    latest = [record for record in store.latest() if record.status == "ok"]
    record_options.check_names(options, latest)
    candidates = [record for record in latest if record_options.is_selected(record, options)]
    records = (
        [record for record in candidates if record.retriever.label == name]
        or [record for record in candidates if len(name) >= 6 and record.id.startswith(name)]
        or _by_name(name, candidates)
    )
    if not records:
        choices = ", ".join(sorted({record.retriever.label for record in candidates})) or "nothing was measured"
        raise ConfigError(
            f"{name!r} is not a retriever in {options.results}/, a record's file or a record's id; choices: {choices}"
        )
    return [store.with_absolute_paths(record) for record in records]


def _baseline_records(other: "Sequence[Record]", options: argparse.Namespace) -> "list[Record]":
    """Return the baseline's records of the retriever on the other side."""
    from harness.gate import baseline

    accepted = baseline.read(options.results / BASELINE)
    records = [record for record in accepted.records if record.retriever.label == other[0].retriever.label]
    records = [record for record in records if record_options.is_selected(record, options)]
    if not records:
        raise UndecidedError(f"the baseline has no {other[0].retriever.label!r}; it has {', '.join(accepted.names)}")
    return records


def _by_name(name: str, records: "Sequence[Record]") -> "list[Record]":
    matches = [record for record in records if record.retriever.name == name]
    if len(labels := sorted({record.retriever.label for record in matches})) > 1:
        raise ConfigError(f"several retrievers are called {name!r}; choices: {', '.join(map(repr, labels))}")
    return matches


def _recommend(options: argparse.Namespace) -> int:
    from harness.leaderboard import build, frame
    from harness.leaderboard.recommend import recommend
    from harness.leaderboard.tables.leaderboard import recommendation
    from harness.store import Store

    store = Store(options.results)
    records = record_options.latest(options, store)
    scores = store.scores(records, [options.metric])
    leaderboard = build(records, options.metric, scores, is_shown=record_options.selection(options))
    limits = {name.partition("_")[2]: value for name in _LIMITS if (value := getattr(options, name)) is not None}
    best = recommend(leaderboard, limits)
    if options.json:
        show(frame.to_json(frame.recommendation_data(best)))
    else:
        show_tables([recommendation(best)])
    return 0
