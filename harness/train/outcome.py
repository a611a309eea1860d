"""What a training leaves: a folder that loads like any model, configs to measure it, and its manifest, written last.

<output>/config.json model.safetensors ...   the best checkpoint
<output>/conf/retriever/*.yaml               base and tuned, and BM25 with each
<output>/manifest.json                       data, base model, settings, machine, curve
<output>/.training/                          checkpoints, while it is not finished
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import ConfigError

MANIFEST = "manifest.json"
_WORK, _PLAN = ".training", "plan.json"
_OTHERS = "other settings, data, base model or number of processes"


def work_folder(output: Path) -> Path:
    """Where the checkpoints of a training lie."""
    return output / _WORK


def claim(output: Path, plan: str, anew: bool) -> dict[str, Any] | None:
    """The manifest of this very training where it is finished; None where it is to begin or to go on.

    `plan` is the hash of all that it depends on. Raises `ConfigError` for a folder that holds something else.
    """
    choice = f"choose another folder: output=FOLDER; or train anew in its place: output={output} resume=false"
    done, begun = output / MANIFEST, work_folder(output) / _PLAN
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    # the work folder alone: a training that was killed before its plan was written
    if not _plan_of(done) and not _plan_of(begun) and names - {_WORK}:
        raise ConfigError(f"{output} is not empty and no training wrote it; choose another folder: output=FOLDER")
    if anew:
        shutil.rmtree(work_folder(output), ignore_errors=True)
        # first: the folder is a training's at every moment
        files.write_atomic(begun, json.dumps({"plan": plan}).encode())
        done.unlink(missing_ok=True)
    if found := finished(output, plan):
        return found
    if _plan_of(done):
        raise ConfigError(f"{output} holds a model of another training ({_OTHERS}); {choice}")
    if _plan_of(begun) not in (None, plan) and any(work_folder(output).glob("checkpoint-*")):
        raise ConfigError(f"in {output} another training was begun ({_OTHERS}); {choice}")
    files.write_atomic(begun, json.dumps({"plan": plan}).encode())
    return None


def finished(output: Path, plan: str) -> dict[str, Any] | None:
    """The manifest in a folder, where it is that of the training with this plan."""
    path = output / MANIFEST
    return dict(json.loads(path.read_text(encoding="utf-8"))) if _plan_of(path) == plan else None


def _plan_of(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(output: Path, model: Any, manifest: Mapping[str, Any], configs: Mapping[str, str]) -> None:
    """Put the model and the configs into the folder, then the manifest; the checkpoints go."""
    fresh = work_folder(output) / "model"
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(str(fresh), create_model_card=False)
    for path in sorted(fresh.iterdir()):
        if (place := output / path.name).is_dir():
            shutil.rmtree(place)
        path.replace(place)
    for name, text in configs.items():
        files.write_atomic(output / "conf" / "retriever" / f"{name}.yaml", text.encode())
    files.write_atomic(output / MANIFEST, json.dumps(manifest, indent=2, default=str).encode() + b"\n")
    shutil.rmtree(work_folder(output))
