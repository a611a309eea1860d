"""Keep the results of `make bench`, and draw the tables and the plot of the benchmark page from them.

python scripts/benchmark_tables.py BENCHMARK.json     # add pytest-benchmark's file to results/bench/ratios.json
python scripts/benchmark_tables.py                    # draw docs/images/growth.svg
"""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from harness.environment import manifest  # noqa: E402

FOLDER = ROOT / "results" / "bench"
RATIOS, GROWTH, PLOT = FOLDER / "ratios.json", FOLDER / "growth.json", ROOT / "docs" / "images" / "growth.svg"
PACKAGES = ("retrieval-harness", "numpy", "torch", "numba", "polars", "transformers", "sentence-transformers")
README_ROWS = (
    ("whole evaluation", "mteb", "all-MiniLM-L6-v2"),
    ("whole evaluation", "beir", "DenseRetrievalExactSearch"),
    ("MaxSim", "sentence-transformers", "maxsim"),
    ("bm25 search", "tantivy", "in memory"),
    ("metrics", "pytrec-eval-terrier", ""),
)
"""The rows that the README shows: group, package, and the beginning of how it was used."""
Table = dict[str, Any]


def machine(date: str) -> Table:
    """Return this machine and the versions of the packages that run on it; `date` is that of the measurement."""
    environment = manifest()
    hardware = {key: environment[key] for key in ("cpu", "cores", "memory_gib", "python")}
    return {**hardware, "date": date, "packages": {name: metadata.version(name) for name in PACKAGES}}


def add_measurements(path: Path) -> None:
    """Add the rows of one run; rows of other runs stay, with the machine that they were measured on."""
    measurements = json.loads(path.read_text(encoding="utf-8"))
    stored = read(RATIOS) if RATIOS.exists() else {"machines": [], "rows": []}
    this_machine = machine(measurements["datetime"][:10])
    rows = {row["test"]: row | {"machine": stored["machines"][row["machine"]]} for row in stored["rows"]}
    for benchmark in measurements["benchmarks"]:
        if "peer_s" in benchmark["extra_info"]:
            rows[benchmark["fullname"]] = {**_row(benchmark), "machine": this_machine}
    machines: list[Table] = []
    for row in rows.values():
        if row["machine"] not in machines:
            machines.append(row["machine"])
    ordered = sorted(rows.values(), key=lambda row: (row["group"].lower(), row["test"]))
    write(
        RATIOS, {"machines": machines, "rows": [row | {"machine": machines.index(row["machine"])} for row in ordered]}
    )


def _row(benchmark: Table) -> Table:
    """Return a row without its machine: what was measured, the seconds of both sides, and their ratio."""
    info = benchmark["extra_info"]
    keys = ("of", "how", "size", "ours_s", "peer_s", "ours_mb", "peer_mb")
    row = {key: info[key] for key in keys if key in info}
    ratio = {"ratio": info["peer_s"] / info["ours_s"], "version": metadata.version(info["of"])}
    return {"test": benchmark["fullname"], "group": benchmark["group"], **row, **ratio}


def read(path: Path) -> Table:
    """Return the content of a file of results/bench/."""
    content: Table = json.loads(path.read_text(encoding="utf-8"))
    return content


def write(path: Path, content: Table) -> None:
    """Write `content` to `path` as `read` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def ratios_table(ratios: Table) -> str:
    """Return the table of all rows, each with the letter of its machine."""
    lines = ["| | on | against | ours | theirs | times faster |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for row in ratios["rows"]:
        times = f"{_cost(row, 'ours')} | {_cost(row, 'peer')} | {_ratio(row)}"
        lines.append(f"| {row['group']} | {row['size']} | {_peer(row)} | {times} {_letter(row['machine'])} |")
    machines = [f"{_letter(number)} {_describe(each)}" for number, each in enumerate(ratios["machines"])]
    return "\n".join([*lines, "", *machines]) + "\n"


def readme_table(ratios: Table) -> str:
    """Return the rows of `README_ROWS`, each with its processor."""
    lines = ["| | on | against | times faster | processor |", "| --- | --- | --- | ---: | --- |"]
    for group, package, how in README_ROWS:
        keys = {"group": group, "of": package}
        matches = [row for row in ratios["rows"] if keys.items() <= row.items() and row["how"].startswith(how)]
        if len(matches) != 1:
            raise ValueError(f"{RATIOS} has {len(matches)} rows of {group!r} against {package!r} ({how!r}), not one")
        (row,) = matches
        measured_on = ratios["machines"][row["machine"]]
        processor = f"{measured_on['cpu']}, {measured_on['cores']} cores"
        lines.append(f"| {group} | {row['size']} | {_peer(row)} | {_ratio(row)} | {processor} |")
    return "\n".join(lines) + "\n"


def growth_table(growth: Table) -> str:
    """Return the table of growth, its exponents, and the limit that each kind of search comes near."""
    from growth_report import limits, table

    return "\n".join([*table(growth), "", limits(growth), "", _describe(growth["machine"])]) + "\n"


def _peer(row: Table) -> str:
    return f"{row['of']} {row['version']}" + (f" ({row['how']})" if row["how"] else "")


def _ratio(row: Table) -> str:
    return f"{row['ratio']:.{1 if row['ratio'] < 100 else 0}f}"


def _cost(row: Table, side: str) -> str:
    """Return the seconds of one side and, where it was a process of its own, its peak memory."""
    memory = f", {row[f'{side}_mb']:,.0f} MB" if f"{side}_mb" in row else ""
    seconds = row[f"{side}_s"]
    return (f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms") + memory


def _letter(number: int) -> str:
    """Return the letter that ties a row to its machine: [a], [b], ..."""
    return f"[{chr(ord('a') + number)}]"


def _describe(measured_on: Table) -> str:
    """Return a machine in one line."""
    packages = ", ".join(f"{name} {measured_on['packages'][name]}" for name in PACKAGES[1:])
    hardware = f"{measured_on['cpu']}, {measured_on['cores']} cores, {measured_on['memory_gib']} GiB"
    return f"{hardware}, {measured_on['date']}; Python {measured_on['python']}, {packages}."


def main() -> None:
    """Add the measurements of a run, or draw the plot."""
    from growth_report import plot

    if sys.argv[1:]:
        add_measurements(Path(sys.argv[1]))
    plot(read(GROWTH), PLOT)


if __name__ == "__main__":
    main()
