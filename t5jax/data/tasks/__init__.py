"""Tasks (text-to-text) and mixtures of tasks with their rates.

task.py      TextTask, ExampleTask, SeqioTask
mixture.py   Mixture: tasks by name and the rule of their rates
rates.py     the rules: proportional, equal, custom, temperature, UniMax, scheduled
identity.py  the identity of a task's texts: settings, versions, source text of functions
"""

from t5jax.data.records import BadColumn, Row
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.rates import Custom, Equal, LanguageAlpha, Proportional, Scheduled, UniMax
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
]
