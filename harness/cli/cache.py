"""`harness cache`: list and prune the embedding cache."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import non_negative_number
from harness.console import say, show_tables
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.embedding_cache.contents import Shard
    from harness.leaderboard.table import Table

_CHOICES = "--older-than DAYS, --max-gb N, --model TEXT, --damaged, --elsewhere, --all"
_HEADINGS = ["model", "encoder", "side", "dtype", "settings", "shards", "texts", "MB", "last used", "made"]
_SHOWN_IN_COLUMNS = {"encoder", "class", "source", "code", "weights", "model", "dtype", "side"}


def add(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the parsers of `cache list` and `cache prune`."""
    cache = commands.add_parser("cache", help="list or prune the cached embeddings")
    actions = cache.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list cached embeddings by model and settings")
    listing.set_defaults(command=_list)
    prune = actions.add_parser(
        "prune", help="remove embeddings", description="Remove the embeddings that match every option given."
    )
    prune.add_argument(
        "--older-than", type=non_negative_number, metavar="DAYS", help="embeddings not used for DAYS days"
    )
    prune.add_argument("--model", metavar="TEXT", help="embeddings whose model name or weights' hash contains TEXT")
    prune.add_argument(
        "--elsewhere",
        action="store_true",
        help="embeddings made on another machine or with other package versions",
    )
    prune.add_argument(
        "--damaged", action="store_true", help="embeddings with a wrong checksum; reads every file completely"
    )
    prune.add_argument(
        "--max-gb",
        type=non_negative_number,
        metavar="N",
        help="of the matching embeddings, only the least recently used, until at most N GB are left",
    )
    prune.add_argument("--all", action="store_true", help="all embeddings")
    prune.add_argument("--dry-run", action="store_true", help="show what would be removed, and remove nothing")
    prune.set_defaults(command=_prune)
    return [listing, prune]


def _list(options: argparse.Namespace) -> int:
    from harness.embedding_cache import contents, shards

    groups = [_group(folder, group_shards) for folder, group_shards in contents.list_shards().items()]
    groups.sort(key=lambda group: (group["model"], group["encoder"], group["folder"]))
    if options.json:
        print(json.dumps(groups, indent=2, sort_keys=True))
    elif groups:
        show_tables([_table(groups)])
        print(f"\n{_format_size(sum(group['shards'] for group in groups), _total_bytes(groups))} in {shards.folder()}")
        if damaged := sum(group["unreadable"] for group in groups):
            print(f"{damaged} cannot be read: harness cache prune --damaged")
    else:
        say(f"no embeddings in {shards.folder()}")
    return 0


def _group(folder: Path, shards: Sequence["Shard"]) -> dict[str, Any]:
    """Return the JSON row of the shards that share one identity."""
    readable = [shard for shard in shards if shard.metadata]
    first = max(readable or shards, key=lambda shard: shard.used)
    environments = {"elsewhere" if shard.foreign_machine else "here" for shard in readable}
    counts = [shard.texts for shard in readable]
    used = datetime.fromtimestamp(max(shard.used for shard in shards), UTC)
    return {
        "folder": folder.name,
        "model": first.model,
        "encoder": first.encoder,
        "weights": first.identity.get("weights"),
        "side": first.identity.get("side"),
        "dtype": str(first.identity.get("dtype", "")).removeprefix("torch.") or None,
        "prompt": first.identity.get("prompt"),
        "identity": dict(first.identity),
        "shards": len(shards),
        "unreadable": len(shards) - len(readable),
        "texts": sum(count or 0 for count in counts) if None not in counts else None,
        "bytes": sum(shard.nbytes for shard in shards),
        "last_used": used.isoformat(timespec="seconds"),
        "environment": environments.pop() if len(environments) == 1 else ("both" if environments else None),
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
    settings = {
        key: value for key, value in identity.items() if key not in _SHOWN_IN_COLUMNS and value not in (None, "")
    }
    return " ".join(f"{key}={_shorten(value)}" for key, value in settings.items())


def _shorten(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, str) and (" " in value or not value) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _total_bytes(groups: Sequence[Mapping[str, Any]]) -> int:
    return sum(group["bytes"] for group in groups)


def _format_size(n_shards: int, nbytes: int) -> str:
    from harness.leaderboard.table import format_amount

    size = f"{format_amount(nbytes / 1e9)} GB" if nbytes >= 1e9 else f"{format_amount(nbytes / 1e6)} MB"
    return f"{n_shards:,} shard{'' if n_shards == 1 else 's'}, {size}"


def _prune(options: argparse.Namespace) -> int:
    from harness.embedding_cache import contents, shards

    filters = (options.older_than, options.max_gb, options.model)
    if not (options.all or options.damaged or options.elsewhere or any(value is not None for value in filters)):
        raise ConfigError(f"choose which embeddings to remove: {_CHOICES}; to list them: harness cache list")
    selection = contents.Selection(
        older_than_s=None if options.older_than is None else options.older_than * contents.DAY_S,
        model=options.model,
        damaged=options.damaged,
        foreign_machine=options.elsewhere,
        max_bytes=None if options.max_gb is None else options.max_gb * 1e9,
    )
    cached = [shard for group in contents.list_shards().values() for shard in group]
    selected, leftovers = selection.select(cached, time.time()), contents.leftovers()
    if not options.dry_run:
        try:
            contents.remove([*(shard.path for shard in selected), *leftovers])
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be removed: {error.strerror}") from None
    freed, total = sum(shard.nbytes for shard in selected), sum(shard.nbytes for shard in cached)
    if options.json:
        removed = {"removed": [str(shard.path) for shard in selected], "bytes": freed, "kept_bytes": total - freed}
        print(json.dumps({**removed, "stale": [str(path) for path in leftovers], "dry_run": options.dry_run}, indent=2))
        return 0
    action = "would be removed" if options.dry_run else "removed"
    remaining = _format_size(len(cached) - len(selected), total - freed)
    print(f"{action}: {_format_size(len(selected), freed)}; kept: {remaining}")
    if leftovers:
        print(f"{action}: {len(leftovers)} unfinished files of processes that were killed")
    say(f"in {shards.folder()}")
    return 0
