"""All tasks with fixed examples that t5jax brings, by name: one file per benchmark."""

from t5jax.data.benchmarks import (
    glue,
    nsp,
    squad,
    summarization,
    superglue,
    templates,
    translation,
    trivia_qa,
)
from t5jax.data.tasks.task import ExampleTask

_FILES = (glue, superglue, squad, trivia_qa, summarization, translation, templates, nsp)

SUPERVISED_TASKS: dict[str, ExampleTask] = {
    task.name: task for file in _FILES for task in file.TASKS
}
