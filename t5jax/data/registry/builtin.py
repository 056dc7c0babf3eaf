"""Everything that t5jax brings, under one roof: tasks of text, tasks with examples, mixtures."""

from t5jax.data.benchmarks.mixtures import MIXTURES
from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS
from t5jax.data.registry.corpora import TEXT_TASKS, text_task
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import Task

TABLE: dict[str, Task | Mixture] = {**TEXT_TASKS, **SUPERVISED_TASKS, **MIXTURES}


def find_in_table(name: str) -> Task | Mixture | None:
    """The task or mixture of a name of the table, or of the form CORPUS:OBJECTIVE."""
    return TABLE.get(name) or text_task(name)
