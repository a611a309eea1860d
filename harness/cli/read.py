"""The commands that read: report, compare, recommend, gate, accept, export, import, explain, list, cache, ...

Only those that build retrievers import torch.

Exit codes: 0 fine, 1 a check failed, 2 usage, 3 nothing to decide from.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
from harness.cli import cache, decide, gate, interop, report
from harness.config.conf import CONF, options_of
from harness.console import say, show_json, show_tables
from harness.errors import ConfigError, HarnessError, UndecidedError

_HELP = """\
measure (Hydra: any config value can be overridden, -m sweeps, --cfg job shows the config):
  harness quickstart                               five families on the embedded dataset; so does harness alone
  harness retriever=bm25 dataset=scifact           one cell (`harness run ...` is the same)
  harness -m retriever=bm25,minilm dataset=scifact,nfcorpus
  harness experiment=beir                          a sweep kept in a file
  harness retriever=bm25 dataset=folder dataset.path=FOLDER      your own collection
  harness retriever=bm25 dataset=mteb dataset.task=SciFact       any retrieval or reranking task of mteb
  harness mteb BEIR                                a benchmark of mteb, aggregated as mteb does
  harness run --help                               groups, options and the whole config

train (Hydra too: --help after the command shows its config):
  harness synthesize generator=titles dataset=scifact            training triplets from a corpus
  harness train dataset=nfcorpus leaks.queries=drop leaks.positives=allow      fine-tune the model of a retriever
  harness finetuned models/tuned                   base, tuned, BM25 and hybrids, on the target and on others

completion: eval "$(harness -sc install=bash)"
"""


def main(arguments: Sequence[str]) -> int:
    """Parse and obey; the result is the exit code."""
    options = parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except HarnessError as error:
        say(f"error: {error}")
        return 3 if isinstance(error, UndecidedError) else 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def parser() -> argparse.ArgumentParser:
    """Every reading command and its options."""
    parser = argparse.ArgumentParser(
        prog="harness",
        description="Measures how well and how fast text retrievers work on test collections.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"harness {harness.__version__}")
    commands = parser.add_subparsers(title="read", metavar="COMMAND", required=True)

    deciding = [report.add(commands), *decide.add(commands), *gate.add(commands), *interop.add(commands)]

    explain = commands.add_parser("explain", help="why a document ranks where it does for a query")
    explain.add_argument(
        "words",
        nargs="+",
        metavar="KEY=VALUE",
        help="query=TEXT_OR_ID and doc=ID, or top=N for the N best; retriever=NAME dataset=NAME and any other override",
    )
    explain.set_defaults(command=_explain)

    listing = commands.add_parser("list", help="what can be measured, what was measured")
    listing.add_argument("what", choices=["retrievers", "datasets", "experiments", "benchmarks", "records"])
    interop.add_listing(listing)
    listing.set_defaults(command=_list)

    caching = cache.add(commands)

    validate = commands.add_parser(
        "validate", help="build every config without loading weights, or check one choice with its collection"
    )
    validate.add_argument("overrides", nargs="*", help="such as retriever=bm25 dataset=folder dataset.path=FOLDER")
    validate.set_defaults(command=_validate)

    env = commands.add_parser("env", help="the machine, packages and folders that a record would name")
    env.set_defaults(command=_env)

    for command in (explain, validate):
        command.add_argument(
            "--config-dir", action="append", default=[], metavar="DIR", help="a folder with configs of your own"
        )
    for command in (*deciding, listing):
        command.add_argument("--results", type=Path, default=Path("results"), help="results folder; default: results")
    for command in (*deciding, explain, listing, *caching, validate, env):
        command.add_argument("--json", action="store_true", help="JSON on stdout")
    return parser


def _folders(options: argparse.Namespace) -> list[str]:
    """The folders of --config-dir, whole. Raises `ConfigError` for one that is not there."""
    folders = [Path(name) for name in options.config_dir]
    if lacking := [folder for folder in folders if not folder.is_dir()]:
        raise ConfigError(f"--config-dir={str(lacking[0])!r} is no folder; name the one that has your retriever/")
    return [str(folder.resolve()) for folder in folders]


def _explain(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness.cli.explain import explain
    from harness.leaderboard.tables.explanation import tables

    found = explain(options.words, _folders(options))
    if options.json:
        show_json(asdict(found))
    else:
        show_tables(tables(found))
    return 0


def _cell(record: Any) -> dict[str, Any]:
    cost = (
        record.timing.model_dump(include={"queries_per_s", "docs_per_s", "latency_ms", "index_bytes"})
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
        **cost,
    }


def _list(options: argparse.Namespace) -> int:
    if (options.language or options.type) and not (options.mteb and options.what == "datasets"):
        raise ConfigError("--language and --type choose among mteb's tasks: harness list datasets --mteb")
    if options.mteb and options.what not in ("datasets", "benchmarks"):
        raise ConfigError("--mteb lists datasets: harness list datasets --mteb")
    if options.what == "records":
        return _list_records(options)
    if options.what == "benchmarks" or options.mteb:
        return _list_of_mteb(options)
    names = options_of(options.what.removesuffix("s"))
    if options.json:
        show_json([name for name, _ in names])
        return 0
    width = max(len(name) for name, _ in names)
    for name, said in names:
        print(f"{name:<{width}}  {said}")
    return 0


def _list_of_mteb(options: argparse.Namespace) -> int:
    if options.what == "benchmarks":
        rows = interop.benchmarks()
        told = [
            (one["benchmark"], f"{len(one['tasks'])} task{'s' if len(one['tasks']) > 1 else ''}", one["description"])
            for one in rows
        ]
    else:
        rows = interop.tasks(options)
        told = [(one["task"], f"{one['type']}, {_few(one['languages'])}", one["description"]) for one in rows]
    if options.json:
        show_json(rows)
        return 0
    widths = [max((len(row[column]) for row in told), default=0) for column in (0, 1)]
    columns = shutil.get_terminal_size((120, 24)).columns
    for name, kind, said in told:
        print(f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {said}"[: columns if sys.stdout.isatty() else None].rstrip())
    if not told:
        say("no task is of all of these")
    return 0


def _few(languages: Sequence[str]) -> str:
    return " ".join(languages) if len(languages) <= 3 else f"{len(languages)} languages"


def _list_records(options: argparse.Namespace) -> int:
    from harness.store import Store

    records = list(Store(options.results).records())
    if options.json:
        show_json([_cell(record) for record in records])
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
    from harness.cli.validate import one, whole

    findings = one(options.overrides, _folders(options)) if options.overrides else whole()
    if options.json:
        show_json(findings)
    else:
        for finding in findings:
            print(f"{'ok  ' if finding['ok'] else 'FAIL'}  {finding['config']}  {finding['message']}".rstrip())
    return 0 if all(finding["ok"] for finding in findings) else 1


def _env(options: argparse.Namespace) -> int:
    from harness import environment

    told = {
        "fingerprint": environment.fingerprint(),
        "revision": environment.revision(),
        "cache": str(environment.cache_dir()),
        "configs": str(CONF),
        **environment.manifest(),
    }
    if options.json:
        show_json(told)
        return 0
    for key, value in told.items():
        said = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{key:<12} {', '.join(said) if isinstance(said, list) else said}")
    return 0
