"""Names of tasks and mixtures, and what a config's mixture resolves to.

names.py           look-up by name: t5jax's, the user's own (`add_task`, `add_mixture`), seqio's;
                   what a name is made of: tasks, rates, mixtures inside
builtin.py         every task and mixture that t5jax brings, in one table
corpora.py         corpora of plain text, and the tasks that objectives make of them
texts.py           documents and examples of a task, with the policy for bad records
resolve.py         a run's mixture, resolved once; resolved_task.py, row_format.py: its parts
"""

from t5jax.data.registry.names import (
    add_mixture,
    add_task,
    builtin_names,
    check_task_name,
    definitions_of,
    find,
    find_builtin,
    find_task,
    own_names,
    registered_by,
    seqio_names,
    unknown,
)

__all__ = [
    "add_mixture",
    "add_task",
    "builtin_names",
    "check_task_name",
    "definitions_of",
    "find",
    "find_builtin",
    "find_task",
    "own_names",
    "registered_by",
    "seqio_names",
    "unknown",
]
