"""`harness synthesize`: one Hydra job makes training triplets from a corpus."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field

import harness
from harness import environment
from harness.cli.job import config_dir_options, run_job
from harness.config import build
from harness.config.build import validate_config
from harness.console import listener, say, show_tables
from harness.datasets import texts
from harness.errors import ConfigError
from harness.instrument import listening, recording
from harness.leaderboard.tables.training import triplets
from harness.train.synthesis import Plan, RoundTrip, Source, claim, manifest_path, save, synthesize
from harness.types import Corpus, Dataset


class _StrictConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_StrictConfig):
    """Columns of a file of documents."""

    id: str
    title: str | None
    text: str


class RoundTripConfig(_StrictConfig):
    """The round-trip filter of queries; disabled if `k` is None."""

    k: int | None = Field(ge=1)
    retriever: dict[str, Any]


class SynthesizeConfig(_StrictConfig):
    """The resolved config of a synthesis; a key that is not here is an error."""

    dataset: dict[str, Any]
    corpus: Path | None
    columns: Columns
    generator: dict[str, Any]
    negatives: dict[str, Any]
    round_trip: RoundTripConfig
    documents: int | None = Field(ge=1)
    per_document: int = Field(ge=1)
    output: Path | None
    k: int = Field(ge=1)
    seed: int = Field(ge=0)
    resume: bool
    data_dir: str | None


def main(arguments: Sequence[str]) -> int:
    """Make triplets by the settings in the arguments; return the exit code of `run_job`."""
    return run_job("synthesize", job, arguments)


def job(config: DictConfig) -> None:
    """Make the triplets and print how many were kept and dropped."""
    run = HydraConfig.get()
    chosen = run.runtime.choices["generator"]
    settings = validate_config(SynthesizeConfig, config, "harness synthesize")
    if settings.output is not None:
        claim(settings.output)
    generator = build.construct(settings.generator, "generator")
    negatives = build.construct(settings.negatives, "negatives")
    round_trip = _round_trip(settings.round_trip)
    plan = Plan(settings.documents, settings.per_document, settings.seed, settings.resume)
    with listening(listener()), recording() as recorded:
        source, description = _source(settings)
        output = settings.output or Path("triplets") / f"{source.name}-{chosen}.parquet"
        claim(output)
        say(f"{chosen} on {source.name}: {len(source.corpus):,} documents")
        generated, counts = synthesize(source, generator, round_trip, negatives, plan, output)
    public = build.public_config(config)
    manifest = {
        "harness": harness.__version__,
        "revision": environment.revision(),
        "command": shlex.join(
            ["harness", "synthesize", *map(build.mask_override, [*config_dir_options(run), *run.overrides.task])]
        ),
        "source": description,
        **counts,
        "config": {key: value for key, value in public.items() if key not in ("dataset", "corpus", "columns")},
        "seconds": {"whole": recorded.wall_s, **recorded.stages},
        "requests": {name: recorded.counters[""].get(name, 0) for name in ("requests", "retries")},
        "environment": environment.manifest(),
    }
    save(output, generated, manifest)
    show_tables([triplets(manifest)])
    print(f"{output}\n{manifest_path(output)}", flush=True)


def _round_trip(config: RoundTripConfig) -> RoundTrip | None:
    if config.k is None:
        return None
    return RoundTrip(build.construct(config.retriever, "round_trip.retriever"), config.k)


def _source(settings: SynthesizeConfig) -> tuple[Source, dict[str, Any]]:
    """Return the documents and their description for the manifest."""
    if settings.corpus is not None:
        columns, path = settings.columns.model_dump(), settings.corpus.expanduser()
        corpus = texts.read(Corpus, path, columns)
        source = Source(path.name.partition(".")[0], corpus, texts.title_loader(path, columns))
        description: dict[str, Any] = {"file": str(path), "columns": columns}
    else:
        dataset: Dataset = build.construct(settings.dataset, "dataset")
        source = Source(dataset.name, dataset.corpus, dataset.load_titles)
        description = {"dataset": dataset.name, "split": dataset.split}
    if not len(source.corpus):
        raise ConfigError(f"{source.name} has no documents; name a file that has: corpus=FILE")
    return source, {**description, "documents": len(source.corpus), "fingerprint": source.corpus.fingerprint}
