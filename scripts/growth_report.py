"""The table, the sentence and the plot of how each term grows with the number of documents."""

from pathlib import Path
from typing import Any

import numpy as np

Table = dict[str, Any]
TERMS = {  # kind of search, figure, size of the unit, unit, what is taken off before the exponent
    "BM25, text to counts": ("bm25", "encode_s", 1.0, "s", ""),
    "BM25, counts to postings": ("bm25", "build_s", 1.0, "s", ""),
    "BM25, 1,000 queries": ("bm25", "search_s", 1.0, "s", ""),
    "BM25, index": ("bm25", "index_bytes", 1e6, "MB", ""),
    "BM25, texts in memory": ("bm25", "texts_rss", 1e6, "MB", ""),
    "BM25, peak memory": ("bm25", "peak_rss", 1e6, "MB", "base_rss"),
    "dense, 1,000 queries": ("dense", "search_s", 1.0, "s", ""),
    "dense, vectors": ("dense", "vector_bytes", 1e6, "MB", ""),
    "dense, peak memory": ("dense", "peak_rss", 1e6, "MB", "base_rss"),
    "dense, of it beyond the vectors": ("dense", "beyond_vectors", 1e6, "MB", "base_rss"),
}


def series(held: Table, term: str) -> tuple[list[int], list[float], float]:
    """Sizes, values in the term's unit, and the exponent: the slope of log(value) over log(documents)."""
    kind, key, unit, _, base = TERMS[term]
    rows = sorted((row for row in held["rows"] if row["kind"] == kind), key=lambda row: row["documents"])
    grown = [max(row[key] - (row[base] if base else 0), 1e-9) for row in rows]  # of nothing there is no logarithm
    sizes = [row["documents"] for row in rows]
    slope = np.polyfit(np.log(sizes), np.log(grown), 1)[0]
    return sizes, [row[key] / unit for row in rows], float(slope)


def table(held: Table) -> list[str]:
    """A row per term, a column per size, the exponent last."""
    sizes = series(held, next(iter(TERMS)))[0]
    lines = [f"| documents | {' | '.join(f'{size:,}' for size in sizes)} | exponent |"]
    lines.append(f"| --- | {'---: | ' * (len(sizes) + 1)}".rstrip())
    for term, (*_, unit, base) in TERMS.items():
        _, values, slope = series(held, term)
        cells = " | ".join(f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}" for value in values)
        lines.append(f"| {term} | {cells} | {slope:.2f}{'*' if base else ''} |")
    return [*lines, "", "\\* Of what is above the process before it had any document."]


def limits(held: Table) -> str:
    """What the largest size reached of what the machine gives."""
    largest = {row["kind"]: row for row in sorted(held["rows"], key=lambda row: row["documents"])}
    dense, bm25 = largest["dense"], largest["bm25"]
    giga = {
        key: value / 1e9 for row in (bm25, dense) for key, value in row.items() if key.endswith(("_per_s", "flops"))
    }
    return (
        f"At {dense['documents']:,} documents. Dense: {giga['product_flops']:.0f} GFLOP/s in all of the search, "
        f"{giga['product_flops'] / giga['gemm_flops']:.0%} of the {giga['gemm_flops']:.0f} that a square float32 "
        f"product reached in the same process: the limit is the product. BM25: {giga['postings_bytes_per_s']:.1f} GB/s "
        f"of postings read, each added to a total, {giga['postings_bytes_per_s'] / giga['copy_bytes_per_s']:.0%} of "
        f"the {giga['copy_bytes_per_s']:.1f} GB/s (read and written) of a copy: the limit is the additions, one "
        f"at a time, in the cache. Text to counts: {giga['text_bytes_per_s'] * 1e3:.1f} MB/s of text, where the disk "
        f"writes {giga['disk_bytes_per_s'] * 1e3:.0f}: the limit is the processor, not the disk."
    )


def plot(held: Table, path: Path) -> None:
    """Log-log, a line per term, seconds beside megabytes."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    both = figure.subplots(1, 2)
    for axes, wanted in zip(both, ("s", "MB"), strict=True):
        for term, (*_, unit, _) in TERMS.items():
            if unit == wanted:
                sizes, values, slope = series(held, term)
                axes.plot(sizes, values, marker="o", label=f"{term} ({slope:.2f})")
        axes.set(xscale="log", yscale="log", xlabel="documents", ylabel={"s": "seconds", "MB": "megabytes"}[wanted])
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    with matplotlib.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none"}):  # others' pictures keep their own
        figure.savefig(path, metadata={"Date": None})
