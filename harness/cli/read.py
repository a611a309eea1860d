"""The commands that read records: report, compare, recommend, gate, accept, export, import, explain, list, cache, ...

Only commands that build retrievers import torch.

Exit codes: 0 success, 1 a check failed, 2 usage error, 3 not enough data to decide.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
from harness.cli import cache, decide, forget, gate, interop, report
from harness.config.conf import CONF, options_of
from harness.console import say, show_json, show_tables
from harness.errors import ConfigError, HarnessError, UndecidedError

_HELP = """\
measure (Hydra: any config value can be overridden, -m sweeps, --cfg job shows the config):
  harness quickstart                               six retrievers on the embedded dataset; the default
  harness retriever=bm25 dataset=scifact           one evaluation (`harness run ...` is the same)
  harness -m retriever=bm25,minilm dataset=scifact,nfcorpus
  harness experiment=beir                          a sweep defined in a file
  harness retriever=bm25 dataset=folder dataset.path=FOLDER      your own dataset
  harness retriever=bm25 dataset=mteb dataset.task=SciFact       any retrieval or reranking task of mteb
  harness mteb BEIR                                a benchmark of mteb, aggregated as in mteb
  harness run --help                               groups, options and the whole config

train (Hydra too: --help after the command shows its config):
  harness synthesize generator=titles dataset=scifact            training triplets from a corpus
  harness train dataset=nfcorpus leaks.queries=drop leaks.positives=allow      fine-tune the model of a retriever
  harness finetuned models/tuned                   evaluate base, tuned, BM25 and hybrids on several datasets

completion: eval "$(harness -sc install=bash)"
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except HarnessError as error:
        say(f"error: {error}")
        return 3 if isinstance(error, UndecidedError) else 2


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands that read records."""
    parser = argparse.ArgumentParser(
        prog="harness",
        description="Measure how well and how fast text retrievers work on test collections.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"harness {harness.__version__}")
    commands = parser.add_subparsers(title="read", metavar="COMMAND", required=True)

    reporting = [report.add(commands), *decide.add(commands), *gate.add(commands), forget.add(commands)]
    reporting += interop.add(commands)

    explain = commands.add_parser("explain", help="explain the rank of a document for a query")
    explain.add_argument(
        "words",
        nargs="+",
        metavar="KEY=VALUE",
        help="query=TEXT_OR_ID and doc=ID, or top=N for the N best; retriever=NAME dataset=NAME and any other override",
    )
    explain.set_defaults(command=_explain)

    listing = commands.add_parser("list", help="list retrievers, datasets, experiments, benchmarks or records")
    listing.add_argument("what", choices=["retrievers", "datasets", "experiments", "benchmarks", "records"])
    interop.add_listing(listing)
    listing.set_defaults(command=_list)

    caching = cache.add(commands)

    validate = commands.add_parser(
        "validate", help="build every config without loading weights, or check one config with its dataset"
    )
    validate.add_argument(
        "overrides", nargs="*", help="config overrides, such as retriever=bm25 dataset=folder dataset.path=FOLDER"
    )
    validate.set_defaults(command=_validate)

    env = commands.add_parser("env", help="show the machine and packages that records store, and the folders in use")
    env.set_defaults(command=_env)

    for command in (explain, validate):
        command.add_argument(
            "--config-dir", action="append", default=[], metavar="DIR", help="an additional config folder"
        )
    for command in (*reporting, listing):
        command.add_argument("--results", type=Path, default=Path("results"), help="results folder; default: results")
    for command in (*reporting, explain, listing, *caching, validate, env):
        command.add_argument("--json", action="store_true", help="JSON on stdout")
    return parser


def _folders(options: argparse.Namespace) -> list[str]:
    """Return the absolute folders of --config-dir. Raises `ConfigError` for one that does not exist."""
    folders = [Path(name) for name in options.config_dir]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise ConfigError(
            f"--config-dir={str(missing[0])!r} is not a folder; name the folder that contains your retriever/"
        )
    return [str(folder.resolve()) for folder in folders]


def _explain(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness.cli.explain import explain
    from harness.leaderboard.tables.explanation import tables

    explanation = explain(options.words, _folders(options))
    if options.json:
        show_json(asdict(explanation))
    else:
        show_tables(tables(explanation))
    return 0


def _record_summary(record: Any) -> dict[str, Any]:
    """Return the JSON row of a record in `harness list records`."""
    timing = (
        record.timing.model_dump(
            include={"queries_per_s", "docs_per_s", "latency_ms", "index_bytes", "intervals", "busy"}
        )
        if record.timing
        else {}
    )
    return {
        "retriever": record.retriever.label,
        "dataset": record.dataset.name,
        "split": record.dataset.split,
        "status": record.status,
        "error": record.error,
        "started": record.started.isoformat(),
        "metrics": record.metrics,
        "record": record.files.record,
        "command": record.command,
        **timing,
    }


def _list(options: argparse.Namespace) -> int:
    if (options.language or options.type) and not (options.mteb and options.what == "datasets"):
        raise ConfigError("--language and --type filter mteb's tasks; type: harness list datasets --mteb")
    if options.mteb and options.what not in ("datasets", "benchmarks"):
        raise ConfigError("--mteb lists datasets or benchmarks; type: harness list datasets --mteb")
    if options.what == "records":
        return _list_records(options)
    if options.what == "benchmarks" or options.mteb:
        return _list_mteb(options)
    names = options_of(options.what.removesuffix("s"))
    if options.json:
        show_json([name for name, _ in names])
        return 0
    width = max(len(name) for name, _ in names)
    for name, description in names:
        print(f"{name:<{width}}  {description}")
    return 0


def _list_mteb(options: argparse.Namespace) -> int:
    if options.what == "benchmarks":
        rows = interop.benchmarks()
        lines = [
            (row["benchmark"], f"{len(row['tasks'])} task{'s' if len(row['tasks']) > 1 else ''}", row["description"])
            for row in rows
        ]
    else:
        rows = interop.tasks(options)
        lines = [
            (row["task"], f"{row['type']}, {_format_languages(row['languages'])}", row["description"]) for row in rows
        ]
    if options.json:
        show_json(rows)
        return 0
    widths = [max((len(line[column]) for line in lines), default=0) for column in (0, 1)]
    limit = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else None
    for name, kind, description in lines:
        print(f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {description}"[:limit].rstrip())
    if not lines:
        say("no task matches all of these options")
    return 0


def _format_languages(languages: Sequence[str]) -> str:
    return " ".join(languages) if len(languages) <= 3 else f"{len(languages)} languages"


def _list_records(options: argparse.Namespace) -> int:
    from harness.store import Store

    records = list(Store(options.results).records())
    if options.json:
        show_json([_record_summary(record) for record in records])
        return 0
    for record in records:
        value = next((f"{name} {mean:.4f}" for name, mean in record.metrics.items()), record.error or "")
        print(
            f"{record.started:%Y-%m-%d %H:%M:%S}  {record.status:<6}  {record.id}  "
            f"{record.retriever.label} on {record.dataset.name}: {value.splitlines()[0] if value else ''}"
        )
    if not records:
        say(f"no records in {options.results}/")
    return 0


def _validate(options: argparse.Namespace) -> int:
    from harness.cli.validate import validate_all, validate_overrides

    findings = validate_overrides(options.overrides, _folders(options)) if options.overrides else validate_all()
    if options.json:
        show_json(findings)
    else:
        for finding in findings:
            print(f"{'ok  ' if finding['ok'] else 'FAIL'}  {finding['config']}  {finding['message']}".rstrip())
    return 0 if all(finding["ok"] for finding in findings) else 1


def _env(options: argparse.Namespace) -> int:
    from harness import environment

    description = {
        "fingerprint": environment.fingerprint(),
        "revision": environment.revision(),
        "cache": str(environment.cache_dir()),
        "configs": str(CONF),
        **environment.manifest(),
    }
    if options.json:
        show_json(description)
        return 0
    for key, value in description.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{key:<12} {', '.join(text) if isinstance(text, list) else text}")
    return 0
