"""docs/tasks.md lists every task and mixture, with its metrics, its size, the real rows that it was
run on, and an example, which is what it gives."""

import re

import pytest

from t5jax.data.benchmarks.mixtures import MIXTURES
from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS
from t5jax.data.registry import builtin
from t5jax.data.registry.corpora import CORPORA, TEXT_TASKS
from t5jax.metrics.sums import SumMetric
from tests.data.benchmarks.real_runs import RUNS, TEXT_RUNS
from tests.data.benchmarks.tasks_page import ANY, PAGE, lines_of, names_of_objectives, with_examples


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_every_task_and_mixture_has_one_line_and_no_other(page):
    objectives = {ANY + name for name in names_of_objectives()}
    assert set(lines_of(page)) == {*SUPERVISED_TASKS, *TEXT_TASKS, *MIXTURES, *objectives}
    firsts = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    names = re.findall("`([^`]+)`", " ".join(firsts))
    assert sorted(names) == sorted(set(names))


@pytest.mark.slow
def test_examples_are_what_the_tasks_give(page):
    """`python -m tests.data.benchmarks.tasks_page` writes them anew."""
    made = with_examples(page)
    for line, anew in zip(page.splitlines(), made.splitlines(), strict=True):
        assert line == anew
    for name, cells in lines_of(made).items():
        if name not in MIXTURES and not name.startswith("huggingface"):
            assert re.search(r"(`.+`|nothing) → `.+`", cells[-1]), name


def test_names_in_one_line_are_of_one_corpus_and_objective(page):
    for line in page.splitlines():
        names = re.findall("`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else []
        if names and names[0].startswith(ANY):
            names = [name.replace(ANY, "jsonl:") for name in names]
        tasks = [builtin.find_in_table(name) for name in names]
        if len(tasks) > 1:
            assert len({(task.corpus, task.objective) for task in tasks}) == 1, names


def test_lines_name_source_and_metrics(page):
    for name, task in SUPERVISED_TASKS.items():
        targets, metrics, size, run, _ = lines_of(page)[name]
        choices = getattr(task.choices, "labels", None)
        if choices is not None:
            assert targets.partition(";")[0] == " / ".join(choices), name
        wordings = getattr(task.examples, "wordings", ())
        assert targets.endswith(f"; {len(wordings)} wordings") == bool(wordings), name
        names = [
            n
            for metric in task.metrics
            for n in (metric.names if isinstance(metric, SumMetric) else (metric.__name__,))
        ]
        assert metrics == (", ".join(names) or metrics), name
        assert bool(names) != metrics.startswith("("), name
        shown = {None: "unknown", 0: "–"}.get(task.num_examples, f"{task.num_examples or 0:,}")
        assert size == shown, name
        assert run, name


def test_lines_of_text_tasks_name_their_source(page):
    for name, task in TEXT_TASKS.items():
        reads, run, _ = lines_of(page)[name]
        of_tfds = re.search(r"\(([\w.]+/[\w.]+)\)\Z", task.description)
        if "tfds_data_dir" in task.settings:
            assert of_tfds, name
            assert reads == f"TFDS's {of_tfds[1]}", name
        assert ("data.text_column" in reads) == ("text_column" in task.settings), name
        assert run, name
    assert {task.corpus for task in TEXT_TASKS.values()} == set(CORPORA)


def test_numbers_of_examples_are_those_of_the_real_data_tests(page):
    counts: dict[str, set[tuple[str, int]]] = {}
    for name, split, count, *_ in (*RUNS, *TEXT_RUNS):
        counts.setdefault(name, set()).add((split, count))
        for suffix in ("_train", "_eval", ""):
            if name.endswith(suffix) and name.startswith(("super_glue", "dpr")):
                variant = f"{name.removesuffix(suffix)}_1_sentinel{suffix}"
                counts.setdefault(variant, set()).add((split, count))
                break
    for name, cells in lines_of(page).items():
        if name in MIXTURES or name.startswith(ANY):
            continue
        run = cells[-2]
        listed = {
            (split, int(count.replace(",", "")))
            for split, count in re.findall(r"(train|validation|test) ([\d,]+)", run)
        }
        assert listed == counts.get(name, set()), name
        assert bool(listed) != run.startswith(("not run", "what is installed")), name
