"""What became of the documents and queries of a synthesis, on the terminal."""

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from harness.leaderboard.tables.terminal import plain, table


def render(manifest: Mapping[str, Any], color: bool = False) -> str:
    """The manifest's counts, those of what was dropped below what it was dropped from."""
    documents, queries, cost = manifest["documents"], manifest["queries"], manifest["cost"]
    rows = [["documents", f"{documents['sampled']:,}"]]
    if "asked" in documents:
        rows += _below({"asked now": documents["asked"], "from the journal": documents["from_journal"]})
        rows += _below({f"failed: {reason}": n for reason, n in documents["failed"].items()})
    rows += _below({f"no query: {reason}": n for reason, n in documents["unusable"].items()})
    rows.append(["queries", f"{queries['given']:,}"])
    rows += _below({f"dropped: {reason}": n for reason, n in queries["dropped"].items()})
    rows.append(["triplets", f"{queries['kept']:,}"])
    rows += _below({f"{name} negatives".replace("_", " "): n for name, n in manifest["negatives"].items() if n})
    if cost:
        rows += [["tokens, in", f"{cost['tokens_in']:,}"], ["tokens, out", f"{cost['tokens_out']:,}"]]
        rows.append(["USD", "-" if cost["usd"] is None else f"{cost['usd']:.4f}"])
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=color, highlight=False).print(table(["", "number"], rows))
    return plain(out.getvalue())


def _below(counts: Mapping[str, int]) -> list[list[str]]:
    return [[f"  {name}", f"{n:,}"] for name, n in counts.items()]
