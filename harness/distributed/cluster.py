"""A Ray cluster, started or joined, and the workers on it that all sharded retrievers of this process share."""

import atexit
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.distributed.worker import Worker
from harness.environment import cores
from harness.errors import ConfigError

log = logging.getLogger(__name__)

FREE_TIMEOUT_S = 10.0
"""Limit of the time to wait for the CPUs of a lost worker; then its shards are moved to a surviving worker."""
START_TIMEOUT_S = 120.0
"""Limit of the time that a worker takes to start."""


class WorkerPool:
    """Workers on a cluster, each with the same number of CPUs and GPUs.

    Shards are assigned to `slots`. Each slot has a worker; after a loss a surviving worker may have several slots.

    Args:
        address: The cluster's address; `local` starts one.
        cpus: CPUs of each worker.
        gpus: GPUs of each worker.
    """

    def __init__(self, address: str, cpus: float, gpus: float) -> None:
        self._address, self._cpus, self._gpus = address, cpus, gpus
        self.slots: list[Any] = []
        self.nodes: dict[Any, str] = {}
        """The id of the node that each worker runs on."""
        self._users = 0

    def join(self) -> None:
        """Register a retriever that uses the workers."""
        self._users += 1

    def leave(self) -> None:
        """Unregister a retriever; after the last one the workers are stopped."""
        self._users -= 1
        if not self._users:
            for worker in set(self.slots):
                with suppress(Exception):  # the cluster may have stopped already
                    library().kill(worker)
            self.slots, self.nodes = [], {}

    def grow(self, n: int | None) -> None:
        """Start workers until there are n, or as many as fit if n is None or more than that.

        Raises:
            ConfigError: The cluster has no resources for any worker.
        """
        ray = _join(self._address)
        if len(self.slots) >= (n or 1):
            return
        if not self._gpus and ray.cluster_resources().get("GPU"):
            log.warning(
                "the cluster's GPUs are not used with retriever.gpus=0; to give each worker one: retriever.gpus=1"
            )
        capacity = self._capacity()
        missing = capacity if n is None else min(capacity, n - len(self.slots))
        started = [self._start() for _ in range(missing)]
        for worker in started:
            if self._wait_until_started(worker):
                self.slots.append(worker)
        if not self.slots:
            total, free = ray.cluster_resources(), ray.available_resources()
            resources = ", ".join(
                f"{total.get(kind, 0):g} {kind}s, {free.get(kind, 0):g} of them free" for kind in _RESOURCES
            )
            raise ConfigError(
                f"retriever.cpus={self._cpus:g} and retriever.gpus={self._gpus:g} per worker: the cluster lacks "
                f"free resources for one ({resources}); set them lower, or see what runs there: ray status"
            )

    def replace(self, worker: Any) -> None:
        """Give the slots of a lost worker to a new one or, if none fits, to the surviving ones."""
        ray = library()
        lost_slots = [slot for slot, holder in enumerate(self.slots) if holder is worker]
        if not lost_slots:  # already replaced for another of its shards
            return
        with suppress(Exception):
            ray.kill(worker)
        survivors = [holder for holder in self.slots if holder is not worker]
        deadline = time.monotonic() + FREE_TIMEOUT_S
        while not self._capacity() and survivors and time.monotonic() < deadline:
            time.sleep(0.2)
        replacement = self._start() if self._capacity() or not survivors else None
        if replacement is not None and not self._wait_until_started(replacement):
            replacement = None
        if replacement is None and not survivors:
            raise ConfigError("no resources for a worker are free on the cluster; see what runs there: ray status")
        for turn, slot in enumerate(lost_slots):
            self.slots[slot] = replacement if replacement is not None else survivors[(slot + turn) % len(survivors)]
        action = "another was started" if replacement is not None else "a surviving one takes its shards"
        log.warning("a worker was lost; %s, and its shards are computed again", action)

    def _start(self) -> Any:
        actor = (
            library()
            .remote(Worker)
            .options(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0, scheduling_strategy="SPREAD")
        )
        return actor.remote(max(1, int(self._cpus)))

    def _wait_until_started(self, worker: Any) -> bool:
        """Return True once a worker runs; stop it and return False if it does not start in time."""
        ray = library()
        try:
            self.nodes[worker] = ray.get(worker.node.remote(), timeout=START_TIMEOUT_S)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
            with suppress(Exception):
                ray.kill(worker)
            return False
        return True

    def _capacity(self) -> int:
        """Return the number of further workers that fit now."""
        ray = library()
        needs = {kind: need for kind, need in zip(_RESOURCES, (self._cpus, self._gpus), strict=True) if need > 0}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        in_total = sum(min(int(node.get(kind, 0) / need + 1e-6) for kind, need in needs.items()) for node in nodes)
        free = ray.available_resources()
        return min(in_total, *(int(free.get(kind, 0) / need + 1e-6) for kind, need in needs.items()))


_RESOURCES = ("CPU", "GPU")
# No usage statistics; no warnings about GPUs that a worker did not request; errors are reported once, by the harness;
# workers run at this process's priority, not 15 steps below it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_worker_niceness": "0",
}
_pools: dict[tuple[str, float, float], WorkerPool] = {}
_address: str | None = None


def worker_pool(address: str, cpus: float, gpus: float) -> WorkerPool:
    """Return this process's pool of workers with `cpus` and `gpus` each on the cluster at `address`."""
    return _pools.setdefault((address, cpus, gpus), WorkerPool(address, cpus, gpus))


def library() -> Any:
    """Return the ray package. Raises `ConfigError` if it is not installed."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.exceptions
    except ModuleNotFoundError:
        raise ConfigError("retriever=sharded needs a package: pip install 'retrieval-harness[ray]'") from None
    return ray


def _join(address: str) -> Any:
    """Connect this process to the cluster at `address`, and return ray; `local` starts one on this machine's cores."""
    global _address
    ray = library()
    if ray.is_initialized():
        if _address not in (None, address):
            raise ConfigError(
                f"retriever.address={address!r}: this process is already connected to the cluster {_address!r}"
            )
        return ray
    settings: dict[str, Any] = {}
    if address == "local":
        # In a separate folder, so that a killed driver leaves no address behind that other programs would join.
        # Its path is short because paths of sockets are limited to 107 characters.
        root = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108
        folder = tempfile.mkdtemp(prefix="harness-ray-", dir=root)
        settings = {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": folder}
        atexit.register(_stop, folder)
    _redirect_to_stderr(ray)
    try:
        with warnings.catch_warnings(), _keep_sigterm_handler():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **settings)
    except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"retriever.address={address!r}: no Ray cluster is reachable: {str(error).splitlines()[0]}; "
            "choices: local, auto, HOST:PORT, ray://HOST:10001; start one with: ray start --head"
        ) from None
    _address = address
    return ray


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces when it starts."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


def _redirect_to_stderr(ray: Any) -> None:
    """Print Ray's messages about lost processes on stderr: stdout is for results."""
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    original = getattr(worker, "print_to_stdstream", None)
    if original is None:  # private to Ray, and may change
        return

    def print_to_stderr(data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        original({**data, "is_err": True}, *args, **kwargs)

    worker.print_to_stdstream = print_to_stderr  # type: ignore[union-attr]


def _stop(folder: str) -> None:
    """Stop the local cluster and remove its folder."""
    library().shutdown()
    shutil.rmtree(folder, ignore_errors=True)
