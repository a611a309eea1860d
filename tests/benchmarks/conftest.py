"""Ours against a peer: the peer runs before each of our rounds, so that both see the same machine.

    make bench

With benchmarks disabled, as in `make test`, each runs once on a small piece, and still checks that both agree.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

_REST_S = 0.2  # before each side: OpenMP threads that have ended spin for a while on the cores that the other wants
_ratios: list[tuple[str, float, float]] = []


@pytest.fixture
def measuring(request: pytest.FixtureRequest) -> bool:
    """Whether figures are wanted, and with them the full size."""
    return bool(request.config.getoption("benchmark_enable"))


@pytest.fixture
def versus(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., tuple[Any, Any]]:
    """`versus(ours, peer, rounds, of=..., size=..., how=...)` times both in turn and gives what each returned last.

    `of` is the package that the peer is from, `how` it was called, `size` what both worked on; `warm` runs both once
    before.
    """

    def run(
        ours: Callable[[], Any],
        peer: Callable[[], Any],
        rounds: int = 5,
        *,
        of: str,
        size: str,
        how: str = "",
        warm: bool = True,
    ) -> tuple[Any, Any]:
        peers: list[float] = []
        last: list[Any] = [None]

        def peer_first() -> None:
            time.sleep(_REST_S)
            start = time.perf_counter()
            last[0] = peer()
            peers.append(time.perf_counter() - start)
            time.sleep(_REST_S)

        result = benchmark.pedantic(
            ours, setup=peer_first, rounds=rounds, warmup_rounds=1 if warm and rounds > 1 else 0
        )
        if benchmark.stats is not None:
            own, other = median(benchmark.stats.stats.data), median(peers[-rounds:])
            benchmark.extra_info.update(ours_s=own, peer_s=other, of=of, how=how, size=size)
            _ratios.append((request.node.name, own, other))
        return result, last[0]

    return run


@pytest.fixture
def faiss(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """faiss, and what its BLAS was told: left alone it takes kernels without AVX on processors newer than itself."""
    told = ""
    if "avx512f" in _processor_flags():
        monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
        told = "OPENBLAS_CORETYPE=SkylakeX"
    return pytest.importorskip("faiss"), told


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _ratios:
        terminalreporter.section("ours against the peer, medians of interleaved rounds")
        for name, own, other in _ratios:
            terminalreporter.write_line(f"{name:<60} {own:10.4f} s {other:10.4f} s {other / own:8.1f} x")
