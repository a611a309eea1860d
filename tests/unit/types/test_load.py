"""Tests of the detection of a busy machine, with made-up times."""

import pytest
from support.records import make_timing

from harness.types import Phase
from harness.types.load import describe_slow_kernels, lost_share


def kernels(*seconds, gather=0.002):
    """Return samples of the reference kernels, in which the dict loop took the given seconds."""
    return [{"dict_loop": each, "blas_product": 0.01, "random_gather": gather} for each in seconds]


def work(wall, cpu, delay):
    """Return a phase of the given wall, CPU and waiting seconds."""
    return Phase(wall_s=wall, cpu_s=cpu, run_delay_s=delay)


def test_work_that_waited_for_a_processor_lost_time():
    assert lost_share([work(10, 7, 3)], threads=1) == pytest.approx(0.3)


def test_a_retriever_that_sleeps_or_waits_for_the_network_lost_nothing():
    assert lost_share([work(10, 0.1, 0.001)], threads=1) == pytest.approx(0.0001)


def test_work_on_all_threads_that_delays_itself_lost_little():
    assert lost_share([work(10, 19.5, 4)], threads=2) == pytest.approx(0.025)


def test_an_unknown_delay_gives_no_share():
    assert lost_share([work(10, 7, 3), work(10, 7, None)], threads=1) is None
    assert lost_share([work(0, 0, 0)], threads=1) is None


def test_kernels_that_became_faster_show_a_busy_machine():
    assert describe_slow_kernels(kernels(0.123, 0.010), []) == "the same work took up to 12.3 times as long"
    assert describe_slow_kernels(kernels(0.0103, 0.010), []) == ""


def test_kernels_whose_wall_time_exceeds_their_cpu_time_show_a_busy_machine():
    samples, idle, busy = kernels(0.004, 0.004), kernels(0.0041, 0.0041), kernels(0.008, 0.008, gather=0.004)
    assert describe_slow_kernels(samples, idle) == ""
    assert describe_slow_kernels(samples, busy) == "work of one thread waited up to 50% of the time"


def test_one_slow_sample_among_many_repeats_is_no_busy_machine():
    assert describe_slow_kernels(kernels(*[0.004] * 19, 0.009), []) == ""
    assert describe_slow_kernels(kernels(*[0.004] * 4, 0.009), []) != ""


def test_the_threads_of_the_blas_product_are_no_sign_of_a_busy_machine():
    samples = [
        sample | {"blas_product": seconds} for sample, seconds in zip(kernels(0.004, 0.004), (0.01, 0.02), strict=True)
    ]
    assert describe_slow_kernels(samples, []) == ""


@pytest.mark.parametrize("samples", [[], kernels(0.0, 0.004), [{}, {}]])
def test_old_or_coarse_samples_show_nothing(samples):
    assert describe_slow_kernels(samples, []) == ""


def test_a_timing_names_the_figures_that_were_measured_on_a_busy_machine():
    idle, busy = work(1.0, 1.0, 0.0), work(1.0, 0.5, 0.5)
    assert make_timing(index=idle, searches=[idle]).busy == {}
    reason = "other processes took 50% of the time"
    assert make_timing(index=busy, searches=[idle]).busy == {"docs_per_s": reason}
    assert make_timing(index=idle, searches=[idle, busy, busy]).busy == {
        "queries_per_s": "other processes took 33% of the time"
    }
    alone = make_timing(index=idle, searches=[idle], latencies_s=[0.1] * 10, latency_run_delay_s=0.5)
    assert alone.busy == {"latency_ms": reason}
    spread = make_timing(references=kernels(0.123, 0.010))
    assert set(spread.busy) == {"queries_per_s", "docs_per_s", "latency_ms"}


@pytest.mark.parametrize(("cached_s", "is_marked"), [(0.0, True), (5.0, True), (5.1, False), (10.0, False)])
def test_the_kernels_say_nothing_about_a_throughput_that_is_mostly_cached_time(cached_s, is_marked):
    index = work(10.0, 10.0, 0.0).model_copy(update={"cached_s": cached_s})
    marks = make_timing(index=index, references=kernels(0.123, 0.010)).busy
    assert set(marks) == {"queries_per_s", "latency_ms"} | ({"docs_per_s"} if is_marked else set())


def test_cached_time_of_a_busy_machine_is_marked():
    index = work(10.0, 5.0, 5.0).model_copy(update={"cached_s": 10.0})
    marks = make_timing(index=index, references=kernels(0.123, 0.010)).busy
    assert marks["docs_per_s"] == "other processes took 50% of the time"
