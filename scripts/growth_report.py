"""The table, the summary and the plot of how each cost grows with the number of documents."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Table = dict[str, Any]


class Term(NamedTuple):
    """One cost that grows."""

    kind: str
    """The kind of search, bm25 or dense."""
    key: str
    """The measured figure."""
    unit_size: float
    unit: str
    base: str = ""
    """The figure that is subtracted before the exponent is fitted."""


TERMS = {
    "BM25, text to counts": Term("bm25", "encode_s", 1.0, "s"),
    "BM25, counts to postings": Term("bm25", "build_s", 1.0, "s"),
    "BM25, 1,000 queries": Term("bm25", "search_s", 1.0, "s"),
    "BM25, index": Term("bm25", "index_bytes", 1e6, "MB"),
    "BM25, texts in memory": Term("bm25", "texts_rss", 1e6, "MB"),
    "BM25, peak memory": Term("bm25", "peak_rss", 1e6, "MB", "base_rss"),
    "dense, 1,000 queries": Term("dense", "search_s", 1.0, "s"),
    "dense, vectors": Term("dense", "vector_bytes", 1e6, "MB"),
    "dense, peak memory": Term("dense", "peak_rss", 1e6, "MB", "base_rss"),
    "dense, of it beyond the vectors": Term("dense", "beyond_vectors", 1e6, "MB", "base_rss"),
}


class Series(NamedTuple):
    """The values of one term by size."""

    sizes: list[int]
    """Numbers of documents."""
    values: list[float]
    """In the term's unit."""
    exponent: float
    """The slope of log(value) over log(documents)."""


def series(growth: Table, term: str) -> Series:
    """Return the values of one of `TERMS`; `growth` is the content of results/bench/growth.json."""
    kind, key, unit_size, _, base = TERMS[term]
    rows = sorted((row for row in growth["rows"] if row["kind"] == kind), key=lambda row: row["documents"])
    grown = [max(row[key] - (row[base] if base else 0), 1e-9) for row in rows]  # 0 has no logarithm
    sizes = [row["documents"] for row in rows]
    exponent = np.polyfit(np.log(sizes), np.log(grown), 1)[0]
    return Series(sizes, [row[key] / unit_size for row in rows], float(exponent))


def table(growth: Table) -> list[str]:
    """Return the lines of a table with a row per term, a column per size, and the exponent last."""
    sizes = series(growth, next(iter(TERMS))).sizes
    lines = [f"| documents | {' | '.join(f'{size:,}' for size in sizes)} | exponent |"]
    lines.append(f"| --- | {'---: | ' * (len(sizes) + 1)}".rstrip())
    for name, term in TERMS.items():
        _, values, exponent = series(growth, name)
        numbers = (f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in values)
        cells = " | ".join(f"{number} {term.unit}" for number in numbers)
        lines.append(f"| {name} | {cells} | {exponent:.2f}{'*' if term.base else ''} |")
    return [*lines, "", "\\* Of the memory beyond that of the process before it had any document."]


def limits(growth: Table) -> str:
    """Return how near the largest size comes to the limits of the machine, in a few sentences."""
    largest = {row["kind"]: row for row in sorted(growth["rows"], key=lambda row: row["documents"])}
    dense, bm25 = largest["dense"], largest["bm25"]
    giga = {
        key: value / 1e9 for row in (bm25, dense) for key, value in row.items() if key.endswith(("_per_s", "flops"))
    }
    return (
        f"At {dense['documents']:,} documents. Dense: {giga['product_flops']:.0f} GFLOP/s over the whole search, "
        f"{giga['product_flops'] / giga['gemm_flops']:.0%} of the {giga['gemm_flops']:.0f} that a square float32 "
        f"product reached in the same process: the matrix product is the limit. BM25: "
        f"{giga['postings_bytes_per_s']:.1f} GB/s of postings read, each added to a total, "
        f"{giga['postings_bytes_per_s'] / giga['copy_bytes_per_s']:.0%} of the {giga['copy_bytes_per_s']:.1f} GB/s "
        "(read and written) of a copy: the additions, one at a time in the cache, are the limit. Text to counts: "
        f"{giga['text_bytes_per_s'] * 1e3:.1f} MB/s of text, where the disk writes "
        f"{giga['disk_bytes_per_s'] * 1e3:.0f}: the processor is the limit, not the disk."
    )


def plot(growth: Table, path: Path) -> None:
    """Draw a line per term on logarithmic axes, seconds beside megabytes, from `growth` into the SVG file `path`."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    labels = {"s": "seconds", "MB": "megabytes"}
    for axes, unit in zip(figure.subplots(1, 2), labels, strict=True):
        for name, term in TERMS.items():
            if term.unit == unit:
                sizes, values, exponent = series(growth, name)
                axes.plot(sizes, values, marker="o", label=f"{name} ({exponent:.2f})")
        axes.set(xscale="log", yscale="log", xlabel="documents", ylabel=labels[unit])
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    with matplotlib.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none"}):  # a process may have other settings
        figure.savefig(path, metadata={"Date": None})
