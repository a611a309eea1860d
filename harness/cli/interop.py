"""`harness export mteb`, `harness import mteb`, and what `harness list` says of mteb."""

import argparse
from pathlib import Path
from typing import Any

from harness.cli import chosen
from harness.console import say, show_json
from harness.errors import UndecidedError

_FORMATS = ("mteb",)


def add(commands: Any) -> list[argparse.ArgumentParser]:
    """Add both commands' parsers."""
    out = commands.add_parser("export", help="results and runs in another tool's format")
    out.add_argument("format", choices=_FORMATS)
    out.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder for mteb.ResultCache")
    out.set_defaults(command=_export)

    into = commands.add_parser("import", help="published results beside ours, marked as not measured here")
    into.add_argument("format", choices=_FORMATS)
    into.add_argument("folder", type=Path, metavar="DIR", help="results in mteb's format")
    into.set_defaults(command=_import)
    chosen.add_cells(out)
    return [out, into]


def add_listing(listing: argparse.ArgumentParser) -> None:
    """Add the options that ask for mteb's tasks."""
    listing.add_argument("--mteb", action="store_true", help="datasets: mteb's tasks that rank texts")
    listing.add_argument("--language", nargs="+", metavar="CODE", help="with --mteb: of these, such as deu")
    listing.add_argument("--type", nargs="+", metavar="TYPE", help="with --mteb: such as Reranking")


def _export(options: argparse.Namespace) -> int:
    from harness.store import Store

    store = Store(options.results)
    newest = store.latest()
    chosen.check_names(options, newest)
    records = [record for record in newest if chosen.is_chosen(record, options)]
    if not records:
        raise UndecidedError(f"no records in {options.results}/; measure: harness retriever=bm25 dataset=scifact")
    from harness.interop.mteb import results  # imports mteb, which takes seconds

    found = results.from_records(records)
    for line in found.left_out:
        say(f"left out: {line}")
    if not found.models:
        raise UndecidedError(f"no record in {options.results}/ is a result of one of mteb's tasks")
    written = results.write(found.models, options.to, options.results)
    if options.json:
        show_json([str(path) for path in written])
        return 0
    count = sum(len(model.results) for model in found.models)
    print(f"{count} results of {len(found.models)} models in {options.to}")
    print(f"read them: mteb.ResultCache({str(options.to)!r}).load_results()")
    return 0


def _import(options: argparse.Namespace) -> int:
    from harness.interop.mteb import published
    from harness.store import Store

    found = published.read(options.folder)
    for line in found.unreadable:
        say(f"no result: {line}")
    if found.left_out:
        say(f"left out, since they rank no texts: {', '.join(found.left_out)}")
    written = Store(options.results).keep_published(found.figures)
    if options.json:
        show_json([one.model_dump() for one in found.figures])
        return 0
    models = {(one.model, one.revision) for one in found.figures}
    print(f"{len(found.figures)} published results of {len(models)} models in {', '.join(map(str, written))}")
    print("set beside ours by: harness report")
    if not Store(options.results).latest():
        say(f"nothing is measured in {options.results}/ yet, and published figures stand beside what is")
    return 0


def tasks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """mteb's tasks that rank texts, of the languages and types that the options name."""
    from harness.interop.mteb import names, registry

    return [
        {
            "task": own.metadata.name,
            "type": own.metadata.type,
            "languages": sorted(own.metadata.languages),
            "subsets": list(own.hf_subsets),
            "splits": list(own.metadata.eval_splits),
            "main_score": names.to_metric(own.metadata.main_score),
            "licence": own.metadata.license,
            "description": " ".join(own.metadata.description.split()),
        }
        for own in registry.tasks(options.language, options.type)
    ]


def benchmarks() -> list[dict[str, Any]]:
    """mteb's benchmarks with a task that ranks texts, and how many of their tasks do."""
    from harness.interop.mteb import registry

    return [
        {
            "benchmark": own.name,
            "tasks": [task.metadata.name for task in own.tasks],
            "description": " ".join((own.description or "").split()),
        }
        for own in registry.benchmarks()
    ]
