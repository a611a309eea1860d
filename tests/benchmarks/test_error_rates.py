"""Simulations of how often verdicts and intervals are wrong, over the per-query scores of results/demo.

Boards of equal rows take each score of a row from a retriever drawn at random for each query, so that every "worse than
the best" is false. At full size it takes minutes and prints the results:

    .venv/bin/python -m pytest tests/benchmarks/test_error_rates.py --benchmark-enable
"""

import json

import numpy as np
import pytest
from support import ROOT
from support.randomisation import p_values

from harness import stats
from harness.simultaneous import compare_all
from harness.store import Store

METRIC = "ndcg@10"
DATASETS = ["scifact", "nfcorpus", "stdlib", "scifact", "nfcorpus"]
"""Datasets of a board; queries are drawn anew for each."""
QUERIES = 300
DRAWS = 1000
FULL_SIZE = 1000
SHORT_SIZE = 25


@pytest.fixture(scope="module")
def populations():
    """Per-query scores by dataset [queries, retrievers]."""
    store = Store(ROOT / "results" / "demo")
    records = sorted(store.latest(), key=lambda record: record.retriever.label)
    scores = store.scores(records, [METRIC])
    return {
        name: np.column_stack(
            [scores[record.files.per_query].values[METRIC] for record in records if record.dataset.name == name]
        )
        for name in set(DATASETS)
    }


def draw_board(populations, generator, datasets, rows=None):
    """Return the scores of a board by dataset [queries, rows]: of the retrievers or, with `rows`, of equal rows."""
    board = []
    for name in DATASETS[:datasets]:
        scores = populations[name][generator.integers(len(populations[name]), size=QUERIES)]
        if rows is not None:
            scores = np.take_along_axis(scores, generator.integers(scores.shape[1], size=(QUERIES, rows)), axis=1)
        board.append(scores)
    return board


def columns_of(board):
    """Return the strata of each column and the numbers of their datasets; with several datasets, also of the mean."""
    columns = [[(1.0, scores)] for scores in board]
    numbers = [[number] for number in range(len(board))]
    if len(board) > 1:
        columns.append([(1 / len(board), scores) for scores in board])
        numbers.append(list(range(len(board))))
    return columns, numbers


def best_row(strata):
    return int(stats.mean(strata).argmax())


def worse_than_best(board):
    """Return how many rows of all columns are significantly worse than the best."""
    columns, numbers = columns_of(board)
    tests = compare_all(columns, numbers, DRAWS)
    return sum(int((each.p[best_row(strata)] < stats.ALPHA).sum()) for strata, each in zip(columns, tests, strict=True))


def holm_p_values(board):
    """Return p of each row against the best, which is chosen after looking, adjusted by Holm's method."""
    p = []
    for strata in columns_of(board)[0]:
        best = best_row(strata)
        differences = [(weight, np.delete(scores - scores[:, [best]], best, axis=1)) for weight, scores in strata]
        p += p_values(differences, DRAWS).tolist()
    return stats.holm(np.array(p))


def report(capsys, measuring, **figures):
    if measuring:
        with capsys.disabled():
            print(f"\n{json.dumps(figures)}")


@pytest.mark.parametrize(("rows", "datasets"), [(3, 1), (9, 1), (20, 1), (3, 5), (9, 5), (20, 5)])
def test_false_verdicts_of_equal_rows(populations, measuring, capsys, benchmark, rows, datasets):
    generator = np.random.default_rng(rows * 10 + datasets)
    n_boards = FULL_SIZE if measuring else SHORT_SIZE

    def simulate():
        boards = [draw_board(populations, generator, datasets, rows) for _ in range(n_boards)]
        wrong = np.mean([worse_than_best(board) > 0 for board in boards])
        return wrong, np.mean([holm_p_values(board).min() < stats.ALPHA for board in boards])

    wrong, by_holm = benchmark.pedantic(simulate, rounds=1)
    report(capsys, measuring, rows=rows, datasets=datasets, wrong=wrong, by_holm=by_holm)
    assert wrong <= 0.06 + 2 * (0.06 * 0.94 / n_boards) ** 0.5


@pytest.mark.parametrize("datasets", [1, 5])
def test_power_is_not_below_that_of_holm(populations, measuring, capsys, benchmark, datasets):
    """Count the differences to the best of real retrievers that are found, also by Holm with 5 % false verdicts."""
    generator = np.random.default_rng(datasets)
    n_boards = FULL_SIZE if measuring else SHORT_SIZE

    def simulate():
        boards = [draw_board(populations, generator, datasets) for _ in range(n_boards)]
        by_holm = np.array([holm_p_values(board) for board in boards])
        equal = [holm_p_values(draw_board(populations, generator, datasets, rows=6)).min() for _ in range(n_boards)]
        level = min(stats.ALPHA, np.quantile(equal, 0.05))
        power = sum(map(worse_than_best, boards)) / by_holm.size
        return power, np.mean(by_holm < stats.ALPHA), level, np.mean(by_holm < level)

    power, by_holm, level, by_valid_holm = benchmark.pedantic(simulate, rounds=1)
    report(capsys, measuring, datasets=datasets, power=power, holm=by_holm, level=level, valid_holm=by_valid_holm)
    assert power >= by_valid_holm - 0.02
    assert power >= by_holm - 0.04


@pytest.mark.parametrize("queries", [10, 20, 50, 300])
@pytest.mark.parametrize("dataset", ["scifact", "nfcorpus", "stdlib", "saturated"])
def test_intervals_cover_the_mean(populations, measuring, capsys, benchmark, dataset, queries):
    """Draw queries with replacement; under `saturated`, the best retriever of stdlib has 1 on 80 % of the queries."""
    generator = np.random.default_rng(queries)
    population = populations["stdlib" if dataset == "saturated" else dataset].copy()
    if dataset == "saturated":
        population[generator.random(len(population)) < 0.8] = 1.0
    n_samples = 2000 if measuring else 300

    def simulate():
        covered, bootstrapped = [], []
        for column in range(population.shape[1]):
            scores = population[:, column]
            samples = scores[generator.integers(len(scores), size=(queries, n_samples))]
            low, high, _ = stats.resample([(1.0, samples)], draws=DRAWS)
            covered.append(np.mean((low <= scores.mean()) & (scores.mean() <= high)))
            drawn = [samples[generator.integers(queries, size=queries)].mean(axis=0) for _ in range(DRAWS)]
            low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
            bootstrapped.append(np.mean((low <= scores.mean()) & (scores.mean() <= high)))
        return min(covered), min(bootstrapped)

    covered, bootstrapped = benchmark.pedantic(simulate, rounds=1)
    report(capsys, measuring, dataset=dataset, queries=queries, covered=covered, percentile_bootstrap=bootstrapped)
    assert covered >= 0.95 - 3 * (0.05 * 0.95 / n_samples) ** 0.5


def test_a_hundred_rows_on_five_datasets(benchmark, measuring, populations):
    generator = np.random.default_rng(0)
    columns, numbers = columns_of(draw_board(populations, generator, 5, rows=100 if measuring else 10))
    tests = benchmark.pedantic(lambda: compare_all(columns, numbers), rounds=3 if measuring else 1)
    assert len(tests) == 6
