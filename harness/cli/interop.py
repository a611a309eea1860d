"""`harness export mteb`, `harness import mteb`, and `harness list` of mteb's tasks and benchmarks."""

import argparse
from pathlib import Path
from typing import Any

from harness.cli import record_options
from harness.console import say, show_json
from harness.errors import UndecidedError

_FORMATS = ("mteb",)


def add(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the parsers of both commands."""
    out = commands.add_parser("export", help="write results and runs in another tool's format")
    out.add_argument("format", choices=_FORMATS)
    out.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="output folder, to be read by mteb.ResultCache"
    )
    out.set_defaults(command=_export)

    into = commands.add_parser(
        "import", help="import published results, shown beside ours and marked as not measured here"
    )
    into.add_argument("format", choices=_FORMATS)
    into.add_argument("folder", type=Path, metavar="DIR", help="a folder of results in mteb's format")
    into.set_defaults(command=_import)
    record_options.add_filters(out)
    return [out, into]


def add_listing(listing: argparse.ArgumentParser) -> None:
    """Add the options that list mteb's tasks."""
    listing.add_argument("--mteb", action="store_true", help="list mteb's retrieval and reranking tasks of text")
    listing.add_argument(
        "--language", nargs="+", metavar="CODE", help="with --mteb: tasks in these languages, such as deu"
    )
    listing.add_argument(
        "--type", nargs="+", metavar="TYPE", help="with --mteb: tasks of these types, such as Reranking"
    )


def _export(options: argparse.Namespace) -> int:
    from harness.store import Store

    store = Store(options.results)
    newest = store.latest()
    record_options.check_names(options, newest)
    records = [record for record in newest if record_options.is_selected(record, options)]
    if not records:
        raise UndecidedError(f"no records in {options.results}/; measure: harness retriever=bm25 dataset=scifact")
    from harness.interop.mteb import results  # imports mteb, which takes seconds

    exported = results.from_records(records)
    for reason in exported.left_out:
        say(f"left out: {reason}")
    if not exported.models:
        raise UndecidedError(f"no record in {options.results}/ is a result of one of mteb's tasks")
    written = results.write(exported.models, options.to, options.results)
    if options.json:
        show_json([str(path) for path in written])
        return 0
    count = sum(len(model.results) for model in exported.models)
    print(f"{count} results of {len(exported.models)} models in {options.to}")
    print(f"read them: mteb.ResultCache({str(options.to)!r}).load_results()")
    return 0


def _import(options: argparse.Namespace) -> int:
    from harness.interop.mteb import published
    from harness.store import Store

    imported = published.read(options.folder)
    for reason in imported.unreadable:
        say(f"not a result: {reason}")
    if imported.left_out:
        say(f"left out because they do not rank texts: {', '.join(imported.left_out)}")
    written = Store(options.results).keep_published(imported.figures)
    if options.json:
        show_json([figure.model_dump() for figure in imported.figures])
        return 0
    models = {(figure.model, figure.revision) for figure in imported.figures}
    print(f"{len(imported.figures)} published results of {len(models)} models in {', '.join(map(str, written))}")
    print("show them beside ours: harness report")
    if not Store(options.results).latest():
        say(f"nothing is measured in {options.results}/ yet; published figures are shown beside measured ones")
    return 0


def tasks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return mteb's tasks that rank texts, filtered by the options' languages and types."""
    from harness.interop.mteb import names, registry

    return [
        {
            "task": task.metadata.name,
            "type": task.metadata.type,
            "languages": sorted(task.metadata.languages),
            "subsets": list(task.hf_subsets),
            "splits": list(task.metadata.eval_splits),
            "main_score": names.to_metric(task.metadata.main_score),
            "licence": task.metadata.license,
            "description": " ".join(task.metadata.description.split()),
        }
        for task in registry.tasks(options.language, options.type)
    ]


def benchmarks() -> list[dict[str, Any]]:
    """Return mteb's benchmarks that have tasks that rank texts, with those tasks."""
    from harness.interop.mteb import registry

    return [
        {
            "benchmark": benchmark.name,
            "tasks": [task.metadata.name for task in benchmark.tasks],
            "description": " ".join((benchmark.description or "").split()),
        }
        for benchmark in registry.benchmarks()
    ]
