"""Named tasks and mixtures: where text comes from and how it becomes text in, text out.

task.py             what a task is: TextTask, ExampleTask, SeqioTask
registry.py         names: t5jax's, the user's own (`add_task`, `add_mixture`), seqio's
texts.py            a task's texts for the token store, with the policy for bad records
builtin.py          everything that t5jax brings, in one table
pretraining.py      corpora of plain text, and the tasks that objectives make of them
supervised.py       tasks with examples: glue, superglue, squad, trivia_qa, summarization,
                    translation, templates, nsp; datasets.py: their rows, local or TFDS
mixtures.py         mixtures, those of the T5 paper by name; rates.py: the rules of their rates
seqio_tasks.py      tasks that were registered with seqio, as ours;
                    seqio_texts.py, seqio_adapters.py, span_corruption.py: what that takes
"""

from t5jax.data.records import BadColumn, Row
from t5jax.data.tasks.mixtures import Mixture
from t5jax.data.tasks.rates import Custom, Equal, LanguageAlpha, Proportional, Scheduled, UniMax
from t5jax.data.tasks.registry import add_mixture, add_task
from t5jax.data.tasks.task import ExampleTask, TextTask

__all__ = [
    "BadColumn",
    "Custom",
    "Equal",
    "ExampleTask",
    "LanguageAlpha",
    "Mixture",
    "Proportional",
    "Row",
    "Scheduled",
    "TextTask",
    "UniMax",
    "add_mixture",
    "add_task",
]
