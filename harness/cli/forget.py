"""`harness forget`: move records out of the way."""

import argparse
from typing import TYPE_CHECKING, Any

from harness.cli import record_options
from harness.console import show_json
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.store import Store
    from harness.types import Record

_MIN_ID_LENGTH = 6


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the parser of `harness forget`."""
    forget: argparse.ArgumentParser = commands.add_parser(
        "forget", help="move records to results/forgotten/, so that no leaderboard, comparison or gate reads them"
    )
    forget.add_argument("ids", nargs="*", metavar="ID", help=f"the first {_MIN_ID_LENGTH} or more digits of record ids")
    forget.add_argument("--failed", action="store_true", help="only failed records")
    forget.add_argument("--dry-run", action="store_true", help="list the records and move nothing")
    record_options.add_filters(forget)
    forget.set_defaults(command=_forget)
    return forget


def _forget(options: argparse.Namespace) -> int:
    from harness.store import Store
    from harness.store.forget import FOLDER, forget

    if not (options.ids or options.failed or options.dataset or options.retriever):
        raise ConfigError(
            "name what to forget: record ids, --failed, --dataset NAME or --retriever NAME; see: harness list records"
        )
    store = Store(options.results)
    selected = _selected(options, store)
    moved = [] if options.dry_run else forget(store, selected)
    if options.json:
        show_json({"records": [record.files.record for record in selected], "moved": list(map(str, moved))})
        return 0
    for record in selected:
        failed = ", failed" if record.status == "failed" else ""
        print(
            f"{record.id[:8]}  {record.started:%Y-%m-%d %H:%M:%S}  "
            f"{record.retriever.label} on {record.dataset.label}{failed}"
        )
    number = f"{len(selected)} record{'' if len(selected) == 1 else 's'}"
    print(f"{number} would be moved" if options.dry_run else f"{number} moved to {options.results / FOLDER}/")
    return 0


def _selected(options: argparse.Namespace, store: "Store") -> "list[Record]":
    """Return the records that all of the options select. Raises `ConfigError` for a name or id without a record."""
    from harness.leaderboard.columns import column_names

    records = list(store.records())
    dataset_names = [
        record_options.names(record)["dataset"] | {column}
        for record, column in zip(records, column_names(records), strict=True)
    ]
    datasets, options.dataset = {*(options.dataset or [])}, None
    known = set().union(*dataset_names)
    if unknown := sorted(datasets - known):
        raise ConfigError(f"no record of dataset {unknown[0]!r}; there are {', '.join(sorted(known)) or 'none'}")
    record_options.check_names(options, records)
    for start in options.ids:
        if len(start) < _MIN_ID_LENGTH or not any(record.id.startswith(start) for record in records):
            raise ConfigError(
                f"no record has an id that begins with {start!r} (at least {_MIN_ID_LENGTH} digits); see: "
                "harness list records"
            )
    return [
        record
        for record, names in zip(records, dataset_names, strict=True)
        if record_options.is_selected(record, options)
        and (record.status == "failed" or not options.failed)
        and (not options.ids or record.id.startswith(tuple(options.ids)))
        and (not datasets or datasets & names)
    ]
