"""`harness cache`: what the embedding cache holds, and room made in it."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import amount
from harness.console import say, show_tables
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.embedding_cache.contents import Shard
    from harness.leaderboard.table import Table

_CHOICES = "--older-than DAYS, --max-gb N, --model TEXT, --damaged, --elsewhere, --all"
_HEADINGS = ["model", "encoder", "side", "dtype", "settings", "shards", "texts", "MB", "last used", "made"]
_OWN_COLUMN = {"encoder", "class", "source", "code", "weights", "model", "dtype", "side"}


def add(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the parsers of `cache list` and `cache prune`."""
    cache = commands.add_parser("cache", help="the embeddings that are kept: list them, prune them")
    actions = cache.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what is kept, by model and settings")
    listing.set_defaults(command=_list)
    prune = actions.add_parser(
        "prune", help="remove embeddings", description="Removes the embeddings to which all that is given applies."
    )
    prune.add_argument("--older-than", type=amount, metavar="DAYS", help="not used for so many days")
    prune.add_argument("--model", metavar="TEXT", help="of models with this in their name or their weights' hash")
    prune.add_argument("--elsewhere", action="store_true", help="made on another machine or with other packages")
    prune.add_argument("--damaged", action="store_true", help="whose checksum is wrong; reads every file whole")
    prune.add_argument(
        "--max-gb", type=amount, metavar="N", help="of those, the longest unused, until no more than N GB are kept"
    )
    prune.add_argument("--all", action="store_true", help="whatever they are")
    prune.add_argument("--dry-run", action="store_true", help="say what would go, and keep it")
    prune.set_defaults(command=_prune)
    return [listing, prune]


def _list(options: argparse.Namespace) -> int:
    from harness.embedding_cache import contents, shards

    groups = [_group(folder, held) for folder, held in contents.list_shards().items()]
    groups.sort(key=lambda group: (group["model"], group["encoder"], group["folder"]))
    if options.json:
        print(json.dumps(groups, indent=2, sort_keys=True))
    elif groups:
        show_tables([_table(groups)])
        print(f"\n{_counted(sum(group['shards'] for group in groups), _bytes(groups))} in {shards.folder()}")
        if damaged := sum(group["unreadable"] for group in groups):
            print(f"{damaged} cannot be read: harness cache prune --damaged")
    else:
        say(f"no embeddings in {shards.folder()}")
    return 0


def _group(folder: Path, held: Sequence["Shard"]) -> dict[str, Any]:
    """What is told of the shards of one identity."""
    readable = [shard for shard in held if shard.metadata]
    first = max(readable or held, key=lambda shard: shard.used)
    places = {"elsewhere" if shard.foreign_machine else "here" for shard in readable}
    counts = [shard.texts for shard in readable]
    used = datetime.fromtimestamp(max(shard.used for shard in held), UTC)
    return {
        "folder": folder.name,
        "model": first.model,
        "encoder": first.encoder,
        "weights": first.identity.get("weights"),
        "side": first.identity.get("side"),
        "dtype": str(first.identity.get("dtype", "")).removeprefix("torch.") or None,
        "prompt": first.identity.get("prompt"),
        "identity": dict(first.identity),
        "shards": len(held),
        "unreadable": len(held) - len(readable),
        "texts": sum(count or 0 for count in counts) if None not in counts else None,
        "bytes": sum(shard.nbytes for shard in held),
        "last_used": used.isoformat(timespec="seconds"),
        "environment": places.pop() if len(places) == 1 else ("both" if places else None),
    }


def _table(groups: Sequence[Mapping[str, Any]]) -> "Table":
    from harness.leaderboard.table import Table, format_amount

    rows = [
        [
            *(str(group[key] or "-") for key in ("model", "encoder", "side", "dtype")),
            _settings(group["identity"]),
            f"{group['shards']:,}",
            "-" if group["texts"] is None else f"{group['texts']:,}",
            format_amount(group["bytes"] / 1e6),
            group["last_used"][:16].replace("T", " "),
            group["environment"] or "-",
        ]
        for group in groups
    ]
    return Table("", _HEADINGS, rows, align="lllllrrrll")


def _settings(identity: Mapping[str, Any]) -> str:
    said = {key: value for key, value in identity.items() if key not in _OWN_COLUMN and value not in (None, "")}
    return " ".join(f"{key}={_short(value)}" for key, value in said.items())


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, str) and (" " in value or not value) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _bytes(groups: Sequence[Mapping[str, Any]]) -> int:
    return sum(group["bytes"] for group in groups)


def _counted(n: int, nbytes: int) -> str:
    from harness.leaderboard.table import format_amount

    size = f"{format_amount(nbytes / 1e9)} GB" if nbytes >= 1e9 else f"{format_amount(nbytes / 1e6)} MB"
    return f"{n:,} shard{'' if n == 1 else 's'}, {size}"


def _prune(options: argparse.Namespace) -> int:
    from harness.embedding_cache import contents, shards

    narrowed = (options.older_than, options.max_gb, options.model)
    if not (options.all or options.damaged or options.elsewhere or any(value is not None for value in narrowed)):
        raise ConfigError(f"say which embeddings to remove: {_CHOICES}; see what there is: harness cache list")
    selection = contents.Selection(
        older_than_s=None if options.older_than is None else options.older_than * contents.DAY_S,
        model=options.model,
        damaged=options.damaged,
        foreign_machine=options.elsewhere,
        max_bytes=None if options.max_gb is None else options.max_gb * 1e9,
    )
    held = [shard for own in contents.list_shards().values() for shard in own]
    chosen, stale = selection.select(held, time.time()), contents.leftovers()
    if not options.dry_run:
        try:
            contents.remove([*(shard.path for shard in chosen), *stale])
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be removed: {error.strerror}") from None
    freed, kept = sum(shard.nbytes for shard in chosen), sum(shard.nbytes for shard in held)
    if options.json:
        told = {"removed": [str(shard.path) for shard in chosen], "bytes": freed, "kept_bytes": kept - freed}
        print(json.dumps({**told, "stale": [str(path) for path in stale], "dry_run": options.dry_run}, indent=2))
        return 0
    done = "would be removed" if options.dry_run else "removed"
    print(f"{done}: {_counted(len(chosen), freed)}; kept: {_counted(len(held) - len(chosen), kept - freed)}")
    if stale:
        print(f"{done}: {len(stale)} unfinished files of processes that were killed")
    say(f"in {shards.folder()}")
    return 0
