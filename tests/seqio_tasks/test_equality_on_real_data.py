"""The first real examples of every task that there are rows for: seqio's and t5jax's are equal."""

import pytest

from t5jax.data.benchmarks.mixtures import MIXTURES
from tests.data.benchmarks.real_runs import RUNS, TEXT_RUNS
from tests.seqio_tasks.equality_table import BEGIN, COUNT, PAGE, compare, compare_rates, runs

QUICK = ("glue_cola_v002", "super_glue_record_v102", "c4_json_span_corruption")


@pytest.fixture(scope="module")
def real_runs(real_data, tmp_path_factory):
    return runs(real_data, tmp_path_factory.mktemp("real"))


def check(some) -> None:
    lines = [compare(name, split, data) for name, split, data in some]
    assert lines
    assert [line for line in lines if line.equal != line.compared] == []
    assert all(1 <= line.compared <= COUNT for line in lines)


@pytest.mark.slow
def test_a_task_of_each_kind(real_runs):
    check([run for run in real_runs if run[0] in QUICK and run[1] == "train"])


@pytest.mark.slow
@pytest.mark.long
def test_every_task(real_runs):
    assert len(real_runs) == len(RUNS) + len(TEXT_RUNS) > 70
    check(real_runs)


def test_rates_of_every_mixture(real_runs):
    lines = [compare_rates(name, real_runs[0][2].vocabulary) for name in MIXTURES]
    assert [line for line in lines if line.equal != line.compared] == []


def test_the_page_has_every_run():
    page = PAGE.read_text().partition(BEGIN)[2]
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    named = {(name, split) for name, split, *_ in cells}
    assert {(name, split) for name, split, *_ in (*RUNS, *TEXT_RUNS)} <= named
    assert {name for name, split in named if split == "rates of tasks"} == set(MIXTURES)
    assert all(compared == equal != "0" for _, _, compared, equal in cells)
