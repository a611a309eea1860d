"""What a training came to, on the terminal: the curve and the next commands."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.leaderboard.tables.terminal import plain, table


def render(manifest: Mapping[str, Any], output: Path, color: bool = False) -> str:
    """The dev metric before and at each measurement, the chosen one marked, and how the model is used."""
    metric = manifest["config"]["dev"]["metric"]
    measured = [entry for entry in manifest["curve"] if metric in entry]
    loss = {entry["step"]: entry["loss"] for entry in manifest["curve"] if "loss" in entry}
    rows = [["0", "", f"{manifest['before']:.4f}"]]
    for entry in measured:
        near = [value for step, value in loss.items() if step <= entry["step"]]
        mark = "*" if entry["step"] == manifest["best_step"] else ""
        rows.append([str(entry["step"]), f"{near[-1]:.3f}" if near else "", f"{entry[metric]:.4f}{mark}"])
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=color, highlight=False)
    console.print(table(["step", "loss", f"dev {metric}"], rows))
    dev = manifest["dev"]
    notes = [
        f"* kept: {output}, after {manifest['seconds']:.0f} s. Dev is {dev['queries']:,} queries that were not trained "
        f"on, over {dev['documents']:,} documents: it chooses the checkpoint and is no result."
    ]
    if all(entry[metric] <= manifest["before"] for entry in measured):
        notes.append("No checkpoint is better on dev than the model before it was trained.")
    notes += [
        f"harness finetuned {output}      # with BM25 and hybrids, on several collections",
        f"harness --config-dir={output}/conf retriever=tuned dataset=NAME",
    ]
    for note in notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    return plain(out.getvalue())
