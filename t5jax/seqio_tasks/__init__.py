"""Tasks and mixtures of t5jax as tasks and mixtures of seqio. Needs seqio and TensorFlow.

register.py      which names are registered, and under what names
tasks.py         a `seqio.Task` for a task: features and steps
sources.py       its rows, shard by shard
columns.py       what an example holds beside inputs and targets
objectives.py    the objective of a task of plain text, as a step
scoring.py       its postprocessor and metrics
mixtures.py      a `seqio.Mixture` for a mixture: rates
vocabularies.py  its vocabulary
"""

from t5jax.seqio_tasks.register import register

__all__ = ["register"]
