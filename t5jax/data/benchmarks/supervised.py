"""All tasks with fixed examples that t5jax brings, by name: one file per benchmark."""

from t5jax.data.benchmarks import (
    ascii_punctuation,
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

BENCHMARKS = (  # (title, module)
    ("GLUE", glue),
    ("SuperGLUE", superglue),
    ("questions and answers", squad),
    ("questions and answers", trivia_qa),
    ("questions and answers", ascii_punctuation),
    ("summaries", summarization),
    ("translation", translation),
    ("in many wordings (templates)", templates),
    ("next sentence prediction", nsp),
)

SUPERVISED_TASKS: dict[str, ExampleTask] = {
    task.name: task for _, module in BENCHMARKS for task in module.TASKS
}
