"""Tests of the numbers of timed searches, with made-up durations."""

from collections import Counter
from types import SimpleNamespace

import pytest

from harness import instrument, machine
from harness.evaluation import searches
from harness.evaluation.plan import TimingPlan
from harness.evaluation.searches import search_all, search_one_by_one
from harness.types.intervals import quantile_interval


class FakeTime:
    """A clock that only searches advance, and a runner whose searches take the given seconds.

    Args:
        n_queries: Number of queries.
        alone_s: Seconds of a query searched alone.
        batch_s: Seconds of all queries.
    """

    def __init__(self, n_queries=300, alone_s=0.001, batch_s=0.125):
        self.now, self.queries, self.searched = 0.0, range(n_queries), []
        self.alone_s, self.batch_s = alone_s, batch_s

    def perf_counter(self):
        return self.now

    process_time = perf_counter

    def prepare(self, row=None):
        def search():
            self.searched.append(row)
            self.now += self.batch_s if row is None else self.alone_s

        return search


@pytest.fixture
def fake(monkeypatch):
    """Return a function that makes a `FakeTime` on which the recordings depend."""

    def make(**settings):
        time = FakeTime(**settings)
        monkeypatch.setattr(instrument, "time", time)
        return time

    return make


PLAN = TimingPlan()


@pytest.mark.parametrize(
    ("n_queries", "alone_s", "expected"),
    [
        (300, 0.0001, 300),  # every query once, because they are enough
        (1000, 0.01, 200),  # as many as fit into two seconds
        (1000, 1.0, 100),  # at least a hundred
        (50, 0.001, 299),  # few queries are repeated, as often as p99 needs
        (100, 0.001, 299),
        (298, 0.001, 299),
        (299, 0.001, 299),
        (150, 0.01, 200),  # or for two seconds
        (20, 0.05, 40),
        (20, 1.0, 20),  # each at least once
        (0, 1.0, 0),
    ],
)
def test_as_many_single_queries_as_fit_into_two_seconds_are_timed(fake, n_queries, alone_s, expected):
    time = fake(n_queries=n_queries, alone_s=alone_s)
    single = search_one_by_one(time, PLAN, seed=0, clock=time.perf_counter)
    assert len(single.latencies_s) == expected
    assert single.latencies_s == pytest.approx([alone_s] * expected)
    first, *timed = time.searched or [None]
    assert timed[:1] == ([first] if n_queries else []), "one search comes before those that are timed"
    assert len(set(timed)) == min(n_queries, expected), "no query is repeated before every other was searched"


def test_no_more_queries_are_repeated_than_the_99th_percentile_needs():
    n = searches._ENOUGH_SINGLE
    assert quantile_interval(range(n), 0.99) is not None
    assert quantile_interval(range(n - 1), 0.99) is None


@pytest.mark.parametrize(("latency_queries", "expected"), [(2, 6), (100, 299), (400, 400)])
def test_a_plan_with_few_single_queries_limits_their_repeats(fake, latency_queries, expected):
    time = fake(n_queries=2)
    plan = TimingPlan(latency_queries=latency_queries)
    assert len(search_one_by_one(time, plan, 0, time.perf_counter).latencies_s) == expected


def test_queries_are_repeated_equally_often(fake):
    time = fake(n_queries=50)
    search_one_by_one(time, PLAN, 0, time.perf_counter)
    counts = Counter(time.searched[1:])
    assert set(counts.values()) == {5, 6}, "299 searches of 50 queries"


def test_a_plan_without_single_queries_or_warm_up_searches_none(fake):
    time = fake()
    assert search_one_by_one(time, TimingPlan(latency_queries=0), 0, time.perf_counter).latencies_s == []
    assert time.searched == []
    plan = TimingPlan(warmup_documents=0, latency_queries=3, latency_s=0)
    assert len(search_one_by_one(time, plan, 0, time.perf_counter).latencies_s) == len(time.searched) == 3


def test_run_delays_of_single_queries_are_added_unless_one_is_unknown(fake, monkeypatch):
    time = fake(n_queries=12)
    delays = iter(range(100))
    monkeypatch.setattr(machine, "run_delay", lambda: float(next(delays)))
    plan = TimingPlan(latency_queries=4)
    assert search_one_by_one(time, plan, 0, time.perf_counter).run_delay_s == 12
    monkeypatch.setattr(machine, "run_delay", lambda: None)
    assert search_one_by_one(time, plan, 0, time.perf_counter).run_delay_s is None


@pytest.mark.parametrize(
    ("batch_s", "plan", "expected"),
    [
        (0.3, PLAN, 5),
        (0.125, PLAN, 8),  # as many as fit into a second
        (0.001, PLAN, 50),
        (8.0, PLAN, 4),  # none begins after thirty seconds
        (90.0, PLAN, 1),
        (0.001, TimingPlan(repeats=1, min_search_s=0), 1),
    ],
)
def test_searches_are_repeated_five_times_or_for_a_second(fake, monkeypatch, batch_s, plan, expected):
    monkeypatch.setattr(searches, "_MAX_REPEATS", 50)
    assert len(search_all(fake(batch_s=batch_s), plan, timed=False).phases) == expected


def test_short_searches_share_samples_of_the_reference_kernels(fake, monkeypatch):
    samples = []

    def sample():
        samples.append(SimpleNamespace(number=len(samples)))
        return samples[-1]

    monkeypatch.setattr(searches, "_MAX_REPEATS", 50)
    monkeypatch.setattr(machine, "reference_kernels", sample)
    short = search_all(fake(batch_s=0.0625), PLAN, timed=True)
    assert [each.number for each in short.references] == [n // 4 for n in range(16)]
    samples.clear()
    long = search_all(fake(batch_s=0.5), PLAN, timed=True)
    assert [each.number for each in long.references] == [0, 1, 2, 3, 4]
    assert search_all(fake(batch_s=0.5), PLAN, timed=False).references == []
