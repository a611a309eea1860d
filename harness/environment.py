"""The manifest of machine, packages and code revision that is stored with every record, and its fingerprint.

The manifest must not contain secrets: only the environment variables in _VARIABLES are read.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import threadpoolctl

import harness
from harness import user_code

_PACKAGES = (
    "retrieval-harness",
    "numpy",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numba",
    "polars",
    "pyarrow",
    "PyStemmer",
    "stop-words",
    "rank-bm25",
    "faiss-cpu",
    "mteb",
    "beir",
    "ir-datasets",
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables set by launchers; a timing plan's number of threads takes precedence."""
_VARIABLES = (*THREAD_VARIABLES, "CUDA_VISIBLE_DEVICES")
_CONFIG_GROUPS = ("dataset", "fusion", "prompts", "retriever", "timing")
"""Groups of the harness's configs that belong to the code of an evaluation."""
_threads: int | None = None


def cache_dir() -> Path:
    """Return the folder of downloads and caches: $HARNESS_CACHE, or a folder in the user's cache."""
    configured = os.environ.get("HARNESS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(configured or f"{base}/retrieval-harness").expanduser()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Return the number of threads that a search may use: the limit of `limited_threads`, else every core."""
    return _threads or cores()


@contextmanager
def limited_threads(n: int | None) -> Iterator[int]:
    """Limit the harness, BLAS and torch to n threads (None: every core) during the block; yield the number."""
    global _threads
    previous, _threads = _threads, n
    try:
        with threadpoolctl.threadpool_limits(n), _torch_threads(n):
            yield threads()
    finally:
        _threads = previous


@contextmanager
def _torch_threads(n: int | None) -> Iterator[None]:
    if n is None:
        yield
        return
    import torch

    previous = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


@cache
def manifest() -> dict[str, Any]:
    """Return machine, packages and environment variables as JSON values."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": _gpu_names(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


@cache
def fingerprint(without: tuple[str, ...] = ()) -> str:
    """Return a hash of the manifest, 16 hex digits. Timings with the same fingerprint are comparable.

    Args:
        without: Environment variables to leave out, for a process that is started without them.
    """
    full = manifest()
    variables = {name: value for name, value in full["variables"].items() if name not in without}
    text = json.dumps({**full, "variables": variables}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def revision() -> str | None:
    """Return the git revision of this checkout, with `+` if files were changed; None for an installed package."""
    top = Path(harness.__file__).resolve().parent.parent
    if not (top / ".git").exists():
        return None
    try:
        head = _output("git", "-C", str(top), "rev-parse", "--short=12", "HEAD")
        changed = _output("git", "-C", str(top), "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}{'+' if changed else ''}"


def code_hash(config: Mapping[str, Any] | None = None) -> str:
    """Return a hash of the harness's sources and configs and of the user's code behind a config, 16 hex digits.

    It is metadata; reuse of results depends on `harness.versions` instead.
    """
    digest = hashlib.blake2b(_harness_sources(), digest_size=8)
    if modules := user_modules(config):
        digest.update((user_code.code_hash(modules) or "").encode())
    return digest.hexdigest()


def user_modules(config: Any) -> set[str]:
    """Return the modules, outside the harness, of the targets that a config names."""
    if isinstance(config, list):
        return {module for inner in config for module in user_modules(inner)}
    if not isinstance(config, Mapping):
        return set()
    target = str(config.get("_target_", "harness.")).rpartition(".")[0]
    inside = {module for inner in config.values() for module in user_modules(inner)}
    return inside if target.partition(".")[0] == "harness" else {target, *inside}


@cache
def _harness_sources() -> bytes:
    folder = Path(harness.__file__).resolve().parent
    conf = folder / "conf" if (folder / "conf").is_dir() else folder.parent / "conf"
    configs = [path for group in _CONFIG_GROUPS for path in sorted((conf / group).rglob("*.yaml"))]
    digest = hashlib.blake2b()
    for path in (*sorted(folder.rglob("*.py")), *configs):
        digest.update(path.read_bytes())
    return digest.digest()


def _output(*command: str) -> str:
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return process.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    """Return GPU names from NVIDIA's driver, without importing torch, so that they never depend on loaded modules."""
    try:
        listing = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.splitlines() if line.strip()]
