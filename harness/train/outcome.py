"""The output folder of a training run: the model, configs that evaluate it, and the manifest, which is written last.

<output>/config.json model.safetensors ...   the best checkpoint
<output>/conf/retriever/*.yaml               base and tuned, and hybrids of BM25 with each
<output>/manifest.json                       data, base model, settings, machine, curve
<output>/.training/                          checkpoints of an unfinished training run
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
_POSSIBLE_CHANGES = "other settings, data, base model or number of processes"


def work_folder(output: Path) -> Path:
    """Return the folder of a training run's checkpoints."""
    return output / _WORK


def claim(output: Path, plan_hash: str, restart: bool) -> dict[str, Any] | None:
    """Claim a folder for a training run; return its manifest if it is finished, None if it has to begin or continue.

    Args:
        output: The output folder.
        plan_hash: Hash of everything that the model depends on.
        restart: Discard an earlier training run in the folder and begin again.

    Raises:
        ConfigError: The folder has other content, or another training run that `restart` does not discard.
    """
    hint = f"choose another folder: output=FOLDER; or replace it by a new training run: output={output} resume=false"
    manifest_path, plan_path = output / MANIFEST, work_folder(output) / _PLAN
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    # the work folder alone belongs to a training run that was killed before it wrote its plan
    if not _plan_of(manifest_path) and not _plan_of(plan_path) and names - {_WORK}:
        raise ConfigError(
            f"{output} is not empty and is not the output of a training run; choose another folder: output=FOLDER"
        )
    if restart:
        shutil.rmtree(work_folder(output), ignore_errors=True)
        # written first: if the process is killed here, the folder is still recognised as the output of a training run
        files.write_atomic(plan_path, json.dumps({"plan": plan_hash}).encode())
        manifest_path.unlink(missing_ok=True)
    if manifest := load_finished(output, plan_hash):
        return manifest
    if _plan_of(manifest_path):
        raise ConfigError(f"{output} has the model of another training run ({_POSSIBLE_CHANGES}); {hint}")
    if _plan_of(plan_path) not in (None, plan_hash) and any(work_folder(output).glob("checkpoint-*")):
        raise ConfigError(f"{output} has an unfinished training run ({_POSSIBLE_CHANGES}); {hint}")
    files.write_atomic(plan_path, json.dumps({"plan": plan_hash}).encode())
    return None


def load_finished(output: Path, plan_hash: str) -> dict[str, Any] | None:
    """Return the manifest in the folder `output` if its training has this `plan_hash`, else None."""
    path = output / MANIFEST
    return dict(json.loads(path.read_text(encoding="utf-8"))) if _plan_of(path) == plan_hash else None


def _plan_of(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(output: Path, model: Any, manifest: Mapping[str, Any], configs: Mapping[str, str]) -> None:
    """Write the model, the configs and then the manifest, and remove the checkpoints.

    Args:
        output: The output folder.
        model: A model of sentence-transformers.
        manifest: Content of the manifest.
        configs: Retriever configs, as YAML by name.
    """
    model_folder = work_folder(output) / "model"
    shutil.rmtree(model_folder, ignore_errors=True)
    model.save_pretrained(str(model_folder), create_model_card=False)
    for path in sorted(model_folder.iterdir()):
        if (target := output / path.name).is_dir():
            shutil.rmtree(target)
        path.replace(target)
    for name, text in configs.items():
        files.write_atomic(output / "conf" / "retriever" / f"{name}.yaml", text.encode())
    files.write_atomic(output / MANIFEST, json.dumps(manifest, indent=2, default=str).encode() + b"\n")
    shutil.rmtree(work_folder(output))
