"""What `make bench` measured, distilled, and the README's blocks that are drawn from it.

python scripts/bench_blocks.py BENCHMARK.json     pytest-benchmark's file into results/bench/ratios.json
python scripts/bench_blocks.py                    the README's blocks and the plot, from results/bench/
"""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from readme_blocks import README, block

from harness.environment import manifest

FOLDER = README.parent / "results" / "bench"
RATIOS, GROWTH, PLOT = FOLDER / "ratios.json", FOLDER / "growth.json", FOLDER / "growth.svg"
PACKAGES = ("retrieval-harness", "numpy", "torch", "numba", "polars", "transformers", "sentence-transformers")
Table = dict[str, Any]


def machine(date: str) -> Table:
    """This machine, the versions of what ran on it, and when."""
    held = manifest()
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {key: held[key] for key in ("cpu", "cores", "memory_gib", "python")} | {"date": date, "packages": versions}


def distil(path: Path) -> None:
    """Take over the rows of one run; rows of other runs stay, with the machine that they are from."""
    run = json.loads(path.read_text(encoding="utf-8"))
    held = read(RATIOS) if RATIOS.exists() else {"machines": [], "rows": []}
    found = [one for one in run["benchmarks"] if "peer_s" in one["extra_info"]]
    mine = machine(run["datetime"][:10])
    rows = {row["test"]: row | {"machine": held["machines"][row["machine"]]} for row in held["rows"]}
    for one in found:
        told = {key: one["extra_info"][key] for key in ("of", "how", "size", "ours_s", "peer_s")}
        told |= {key: one["extra_info"][key] for key in ("ours_mb", "peer_mb") if key in one["extra_info"]}
        ratio = {"ratio": told["peer_s"] / told["ours_s"], "version": metadata.version(told["of"]), "machine": mine}
        rows[one["fullname"]] = {"test": one["fullname"], "group": one["group"], **told, **ratio}
    machines: list[Table] = []
    for row in rows.values():
        if row["machine"] not in machines:
            machines.append(row["machine"])
    kept = sorted(rows.values(), key=lambda row: (row["group"].lower(), row["test"]))
    write(RATIOS, {"machines": machines, "rows": [row | {"machine": machines.index(row["machine"])} for row in kept]})


def read(path: Path) -> Table:
    """A file of results/bench/."""
    held: Table = json.loads(path.read_text(encoding="utf-8"))
    return held


def write(path: Path, table: Table) -> None:
    """Write it as `read` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def ratios_block(held: Table) -> str:
    """The table of ratios, each row with the mark of its machine."""
    lines = ["| | on | against | ours | theirs | times faster |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for row in held["rows"]:
        against = f"{row['of']} {row['version']}"
        against += f" ({row['how']})" if row["how"] else ""
        ours, theirs = cost(row, "ours"), cost(row, "peer")
        times = f"{ours} | {theirs} | {row['ratio']:.{1 if row['ratio'] < 100 else 0}f}"
        lines.append(f"| {row['group']} | {row['size']} | {against} | {times} {mark(row['machine'])} |")
    told = [f"{mark(number)} {said(one)}" for number, one in enumerate(held["machines"])]
    return "\n".join([*lines, "", *told]) + "\n"


def cost(row: Table, side: str) -> str:
    """Seconds and, of a process of its own, the most memory that it held."""
    memory = f", {row[f'{side}_mb']:,.0f} MB" if f"{side}_mb" in row else ""
    return f"{seconds(row[f'{side}_s'])}{memory}"


def mark(number: int) -> str:
    """What ties a row to its machine: [a], [b], ..."""
    return f"[{chr(ord('a') + number)}]"


def said(one: Table) -> str:
    """A machine in one line."""
    ours = ", ".join(f"{name} {one['packages'][name]}" for name in PACKAGES[1:])
    hardware = f"{one['cpu']}, {one['cores']} cores, {one['memory_gib']} GiB"
    return f"{hardware}, {one['date']}; Python {one['python']}, {ours}."


def seconds(value: float) -> str:
    """Three digits and a unit."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def growth_block(held: Table) -> str:
    """The table of growth, the exponents, and what each term comes near."""
    from growth_report import limits, table

    return "\n".join([*table(held), "", limits(held), "", said(held["machine"])]) + "\n"


def blocks() -> dict[str, str]:
    """The README's blocks as results/bench/ gives them."""
    return {"bench": ratios_block(read(RATIOS)), "growth": growth_block(read(GROWTH))}


def main() -> None:
    """Distil a run, or write the blocks and the plot."""
    if sys.argv[1:]:
        distil(Path(sys.argv[1]))
        return
    from growth_report import plot

    text = README.read_text(encoding="utf-8")
    for name, content in blocks().items():
        text = text.replace(f"-->\n{block(name, text)}<!-- end: {name} -->", f"-->\n{content}<!-- end: {name} -->")
    README.write_text(text, encoding="utf-8")
    plot(read(GROWTH), PLOT)


if __name__ == "__main__":
    main()
