"""Tables of a training run and of a triplet synthesis, made from their manifests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.leaderboard.table import GAP, Marked, Table, format_score


def training(manifest: Mapping[str, Any], output: Path) -> Table:
    """Return the dev metric before training and at each evaluation; the saved checkpoint is marked.

    Args:
        manifest: Manifest of the training run.
        output: Folder of the trained model.
    """
    metric, dev = manifest["config"]["dev"]["metric"], manifest["dev"]
    measured = [entry for entry in manifest["curve"] if metric in entry]
    rows: list[list[str | Marked]] = [["0", "", format_score(manifest["before"])]]
    for entry in measured:
        losses = [
            f"{point['loss']:.3f}" for point in manifest["curve"] if "loss" in point and point["step"] <= entry["step"]
        ]
        value = format_score(entry[metric])
        is_best = entry["step"] == manifest["best_step"]
        rows.append([str(entry["step"]), losses[-1] if losses else "", Marked(value, "best") if is_best else value])
    notes = [
        f"Dev: {dev['queries']:,} queries that were not trained on, over {dev['documents']:,} documents. It selects "
        "the checkpoint and is not a result."
    ]
    if all(entry[metric] <= manifest["before"] for entry in measured):
        notes.append("No checkpoint is better on dev than the model before it was trained.")
    legend = f"saved: {output}, after {manifest['seconds']:.0f} s"
    return Table("", ["step", "loss", f"dev {metric}"], rows, notes, {"best": legend})


def triplets(manifest: Mapping[str, Any]) -> Table:
    """Return the counts of documents, queries and triplets, each with the counts of those that were dropped."""
    documents, queries, cost = manifest["documents"], manifest["queries"], manifest["cost"]
    counts = {"documents": documents["sampled"]}
    if "requested" in documents:
        counts |= {"  requested now": documents["requested"], "  from the journal": documents["from_journal"]}
        counts |= {f"  failed: {reason}": n for reason, n in documents["failed"].items()}
    counts |= {f"  no query: {reason}": n for reason, n in documents["unusable"].items()}
    counts["queries"] = queries["generated"]
    counts |= {f"  dropped: {reason}": n for reason, n in queries["dropped"].items()}
    counts["triplets"] = queries["selected"]
    counts |= {f"  {name.replace('_', ' ')} negatives": n for name, n in manifest["negatives"].items() if n}
    if cost:
        counts |= {"tokens, in": cost["tokens_in"], "tokens, out": cost["tokens_out"]}
    rows = [[name, f"{n:,}"] for name, n in counts.items()]
    if cost:
        rows.append(["USD", GAP if cost["usd"] is None else f"{cost['usd']:.4f}"])
    return Table("", ["", "number"], rows)
