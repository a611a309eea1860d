"""A Ray cluster, started or joined, and this process' actors on it, which all its sharded retrievers share."""

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

FREED_S = 10.0
"""How long a lost actor's CPUs are waited for before a surviving one takes its shards."""
STARTED_S = 120.0
"""How long an actor may take to come up."""


class Fleet:
    """Actors of one size on the cluster at `address`: a slot each, of which a survivor holds two after a loss."""

    def __init__(self, address: str, cpus: float, gpus: float) -> None:
        self._address, self._cpus, self._gpus = address, cpus, gpus
        self.slots: list[Any] = []
        self.nodes: dict[Any, str] = {}
        """The node of each actor."""
        self._users = 0

    def join(self) -> None:
        """One more retriever uses the actors."""
        self._users += 1

    def leave(self) -> None:
        """One fewer does; the last one's going ends the actors."""
        self._users -= 1
        if not self._users:
            for worker in set(self.slots):
                with suppress(Exception):  # the cluster may be gone before
                    library().kill(worker)
            self.slots, self.nodes = [], {}

    def grow(self, wanted: int | None) -> None:
        """Have `wanted` slots (None: as many as fit), or as many as there is room for. Raises `ConfigError`."""
        ray = _joined(self._address)
        if len(self.slots) >= (wanted or 1):
            return
        if not self._gpus and ray.cluster_resources().get("GPU"):
            log.warning("the cluster's GPUs are left alone with retriever.gpus=0; one for each actor: retriever.gpus=1")
        room = self._room()
        n = room if wanted is None else min(room, wanted - len(self.slots))
        started = [self._start() for _ in range(n)]
        for worker in started:
            if self._up(worker):
                self.slots.append(worker)
        if not self.slots:
            held, free = ray.cluster_resources(), ray.available_resources()
            said = ", ".join(f"{held.get(kind, 0):g} {kind}s, {free.get(kind, 0):g} of them free" for kind in _KINDS)
            raise ConfigError(
                f"retriever.cpus={self._cpus:g} and retriever.gpus={self._gpus:g} an actor: the cluster has room for "
                f"none ({said}); ask for less, or see what runs there: ray status"
            )

    def replace(self, worker: Any) -> None:
        """Put a new actor, or where there is no room for one a surviving one, in the place of one that is lost."""
        ray = library()
        places = [place for place, held in enumerate(self.slots) if held is worker]
        if not places:  # another of its shards has seen to it
            return
        with suppress(Exception):
            ray.kill(worker)
        survivors = [held for held in self.slots if held is not worker]
        deadline = time.monotonic() + FREED_S
        while not self._room() and survivors and time.monotonic() < deadline:
            time.sleep(0.2)
        fresh = self._start() if self._room() or not survivors else None
        if fresh is not None and not self._up(fresh):
            fresh = None
        if fresh is None and not survivors:
            raise ConfigError("the cluster has no room left for an actor; see: ray status")
        for turn, place in enumerate(places):
            self.slots[place] = fresh if fresh is not None else survivors[(place + turn) % len(survivors)]
        then = "another was started" if fresh is not None else "a surviving one takes its place"
        log.warning("an actor was lost; %s, and its shards are done again", then)

    def _start(self) -> Any:
        kind = (
            library()
            .remote(Worker)
            .options(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0, scheduling_strategy="SPREAD")
        )
        return kind.remote(max(1, int(self._cpus)))

    def _up(self, worker: Any) -> bool:
        ray = library()
        try:
            self.nodes[worker] = ray.get(worker.node.remote(), timeout=STARTED_S)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
            with suppress(Exception):
                ray.kill(worker)
            return False
        return True

    def _room(self) -> int:
        """How many more actors fit now."""
        ray = library()
        needs = {kind: need for kind, need in zip(_KINDS, (self._cpus, self._gpus), strict=True) if need > 0}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        whole = sum(min(int(node.get(kind, 0) / need + 1e-6) for kind, need in needs.items()) for node in nodes)
        free = ray.available_resources()
        return min(whole, *(int(free.get(kind, 0) / need + 1e-6) for kind, need in needs.items()))


_KINDS = ("CPU", "GPU")
# No statistics to Ray's makers; no advice on GPUs that an actor did not ask for; errors are told once, by us; actors
# run at this process' own priority, not 15 steps below it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_worker_niceness": "0",
}
_fleets: dict[tuple[str, float, float], Fleet] = {}
_address: str | None = None


def fleet(address: str, cpus: float, gpus: float) -> Fleet:
    """This process' actors of that size."""
    return _fleets.setdefault((address, cpus, gpus), Fleet(address, cpus, gpus))


def library() -> Any:
    """The ray package. Raises `ConfigError` where it is not installed."""
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


def _joined(address: str) -> Any:
    """Ray, with this process on the cluster at `address`; local starts one of this machine's cores."""
    global _address
    ray = library()
    if ray.is_initialized():
        if _address not in (None, address):
            raise ConfigError(f"retriever.address={address!r}: this process is on the cluster {_address!r} already")
        return ray
    settings: dict[str, Any] = {}
    if address == "local":
        # In a folder of its own, a driver that is killed leaves no address behind which other programs would join.
        # A short one: paths of sockets may have 107 characters.
        root = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108
        folder = tempfile.mkdtemp(prefix="harness-ray-", dir=root)
        settings = {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": folder}
        atexit.register(_end, folder)
    _off_stdout(ray)
    try:
        with warnings.catch_warnings(), _own_sigterm():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **settings)
    except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"retriever.address={address!r}: no Ray cluster can be joined there: {str(error).splitlines()[0]}; "
            "choices: local, auto, HOST:PORT, ray://HOST:10001; start one with: ray start --head"
        ) from None
    _address = address
    return ray


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does at SIGTERM, which Ray replaces when it begins."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _off_stdout(ray: Any) -> None:
    """What Ray tells of a lost process on stdout, where results belong, goes to stderr."""
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    told = getattr(worker, "print_to_stdstream", None)
    if told is None:  # Ray's own affair, which may change
        return

    def aside(data: dict[str, Any], *arguments: Any, **named: Any) -> None:
        told({**data, "is_err": True}, *arguments, **named)

    worker.print_to_stdstream = aside  # type: ignore[union-attr]


def _end(folder: str) -> None:
    library().shutdown()
    shutil.rmtree(folder, ignore_errors=True)
