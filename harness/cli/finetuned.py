"""`harness finetuned FOLDER`: evaluate a fine-tuned model, its base model, BM25 and hybrids."""

import re
from collections.abc import Sequence
from pathlib import Path

from harness import weights
from harness.cli import run
from harness.cli.job import exit_code
from harness.config import build
from harness.console import say
from harness.errors import ConfigError, HarnessError
from harness.store import Store

_HELP = """\
usage: harness finetuned [FOLDER] [KEY=VALUE ...]

Evaluate a fine-tuned model, its base model, BM25, and hybrids of BM25 with each model.

  FOLDER     output folder of `harness train`; default: models/tuned
  KEY=VALUE  config overrides, such as results_dir=DIR
"""
_OVERRIDE = re.compile(r"[-+~]|[\w./@]+=")


def main(arguments: Sequence[str]) -> int:
    """Evaluate the configs that `harness train` wrote to a folder; settings may follow the folder."""
    if {"--help", "-h"} & {*arguments}:
        print(_HELP, end="")
        return 0
    has_folder = bool(arguments) and not _OVERRIDE.match(arguments[0])
    folder, settings = (Path(arguments[0]), arguments[1:]) if has_folder else (Path("models/tuned"), arguments)
    try:
        conf = _conf(folder.expanduser(), settings)
    except HarnessError as error:
        say(f"error: {error}")
        return exit_code(error)
    return run.measure(["experiment=finetune", *settings, f"--config-dir={conf}"])


def _conf(folder: Path, settings: Sequence[str]) -> Path:
    """Return the folder of the configs. Raises `ConfigError` if they are missing or name another output folder."""
    conf = folder / "conf"
    if not (conf / "retriever").is_dir():
        raise ConfigError(
            f"{str(folder)!r} has no conf/retriever; name the output of a training run: harness finetuned FOLDER; or "
            f"train one: harness train dataset=NAME output={folder}"
        )
    tuned = conf / "retriever" / "tuned.yaml"
    if str(folder.resolve()) not in tuned.read_text(encoding="utf-8"):
        raise ConfigError(
            f"{str(folder)!r} was moved or copied: its configs name another folder; write the path of the model to "
            f"{tuned}"
        )
    _refuse_another_training(folder, settings)
    return conf.resolve()


def _refuse_another_training(folder: Path, settings: Sequence[str]) -> None:
    """Raise `ConfigError` if the results have rows called base and tuned of another training run."""
    from harness.cli.tuned import locate_encoder  # imports torch

    words = [word for word in settings if word.startswith("results_dir=")]
    results = Path(str(build.composed(["retriever=bm25", *words])["results_dir"])).expanduser()
    identity = weights.find(str(folder)).identity
    for record in Store(results).records():
        if record.retriever.name != "tuned":
            continue
        model = locate_encoder(record.retriever.config).encoder["model"]
        encoder = record.encoders.get("")
        recorded = encoder.weights.identity if encoder and encoder.weights else identity
        if model != str(folder.resolve()) or recorded != identity:
            raise ConfigError(
                f"{results} has rows called base and tuned of another training run: {model}, evaluated "
                f"{record.started:%Y-%m-%d %H:%M}; write the new rows to another folder: "
                f"harness finetuned {folder} results_dir=results/{folder.name}"
            )
