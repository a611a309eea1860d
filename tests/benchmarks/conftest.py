"""Fixtures of the benchmarks of the harness against other packages.

    make bench

The other package runs before each round of the harness, so that both see the same state of the machine. With benchmarks
disabled, as in `make test`, each benchmark runs once on a small sample and checks that both results agree.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

_REST_S = 0.2  # before each side: idle OpenMP threads of the other side keep spinning on the cores for a while
_ratios: list[tuple[str, float, float]] = []


@pytest.fixture
def measuring(request: pytest.FixtureRequest) -> bool:
    """Return True if benchmarks are enabled and run at full size."""
    return bool(request.config.getoption("benchmark_enable"))


@pytest.fixture
def versus(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., tuple[Any, Any]]:
    """Return a function that times the harness and a peer in turn and returns the last result of each.

    Its arguments:
        call: Callable of the harness.
        peer: Callable of the other package.
        rounds: Number of rounds.
        package: Name of the other package.
        details: Variant or settings of the other package.
        size: Description of the input.
        warm: Run both once before the first round.
    """

    def run(
        call: Callable[[], Any],
        peer: Callable[[], Any],
        rounds: int = 5,
        *,
        package: str,
        size: str,
        details: str = "",
        warm: bool = True,
    ) -> tuple[Any, Any]:
        peer_seconds: list[float] = []
        peer_result: Any = None

        def run_peer() -> None:
            nonlocal peer_result
            time.sleep(_REST_S)
            start = time.perf_counter()
            peer_result = peer()
            peer_seconds.append(time.perf_counter() - start)
            time.sleep(_REST_S)

        result = benchmark.pedantic(call, setup=run_peer, rounds=rounds, warmup_rounds=1 if warm and rounds > 1 else 0)
        if benchmark.stats is not None:
            harness_s, peer_s = median(benchmark.stats.stats.data), median(peer_seconds[-rounds:])
            benchmark.extra_info.update(ours_s=harness_s, peer_s=peer_s, of=package, how=details, size=size)
            _ratios.append((request.node.name, harness_s, peer_s))
        return result, peer_result

    return run


@pytest.fixture
def faiss(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """Return faiss and the setting of its BLAS, which by default uses no AVX on processors that it does not know."""
    setting = ""
    if "avx512f" in _processor_flags():
        monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
        setting = "OPENBLAS_CORETYPE=SkylakeX"
    return pytest.importorskip("faiss"), setting


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _ratios:
        terminalreporter.section("harness and peer, medians of interleaved rounds")
        for name, harness_s, peer_s in _ratios:
            terminalreporter.write_line(f"{name:<60} {harness_s:10.4f} s {peer_s:10.4f} s {peer_s / harness_s:8.1f} x")
