"""What machine, what packages, what code revision: the manifest beside every figure, and its fingerprint.

Nothing here may hold a secret: of the environment's variables only those in _VARIABLES are read.
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
"""What a launcher sets; a timing plan that says how many threads overrules it."""
_VARIABLES = (*THREAD_VARIABLES, "CUDA_VISIBLE_DEVICES")
_threads: int | None = None


def cache_dir() -> Path:
    """Where downloads and conversions are kept: $HARNESS_CACHE, else a folder of the user's cache."""
    chosen = os.environ.get("HARNESS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(chosen or f"{base}/retrieval-harness").expanduser()


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """How many threads a search may use now."""
    return _threads or cores()


@contextmanager
def limited_threads(n: int | None) -> Iterator[int]:
    """Hold our pools, BLAS and torch to n threads (None: every core); yields the number."""
    global _threads
    before, _threads = _threads, n
    try:
        with threadpoolctl.threadpool_limits(n), _torch_threads(n):
            yield threads()
    finally:
        _threads = before


@contextmanager
def _torch_threads(n: int | None) -> Iterator[None]:
    if n is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def manifest() -> dict[str, Any]:
    """Machine, packages and settings, as plain JSON values."""
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
    """Hash of the manifest, 16 hex digits: figures of one fingerprint may be compared.

    `without`: variables of this process that are not in the one that is asked about.
    """
    whole = manifest()
    variables = {name: value for name, value in whole["variables"].items() if name not in without}
    said = json.dumps({**whole, "variables": variables}, sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


@cache
def revision() -> str | None:
    """Git revision of this checkout of the harness, `+` behind it when files were changed; None when installed."""
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
    """Return a hash of the harness's sources and of the user's code behind a retriever's config, 16 hex digits.

    It is shown and compared as metadata; what is reused is decided by `harness.versions`.
    """
    digest = hashlib.blake2b(_own_sources(), digest_size=8)
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
def _own_sources() -> bytes:
    folder = Path(harness.__file__).resolve().parent
    digest = hashlib.blake2b()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


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
    """Names from NVIDIA's driver, without importing torch; a machine has the same with or without a model loaded."""
    try:
        listing = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.splitlines() if line.strip()]
