"""SQuAD and TriviaQA by the punctuation rule of T5's source since April 2022 (`squad_text`).

In all else these are the tasks of the names without `_ascii_punctuation`.
"""

import dataclasses
import functools

from t5jax.data.benchmarks import squad, trivia_qa
from t5jax.data.tasks.task import ExampleTask

_BY_RULE = {
    squad.squad_examples: squad.answered_in_context,
    squad.context_free_examples: squad.answered_without_context,
    squad.span_examples: squad.answered_by_span,
    trivia_qa.matching_examples: trivia_qa.aliases_in_documents,
    trivia_qa.document_examples: trivia_qa.all_documents,
    None: None,
}


def _with_rule(task: ExampleTask) -> ExampleTask:
    makers = [_BY_RULE[made] for made in (task.examples, task.eval_examples)]
    examples, eval_examples = (
        made and functools.partial(made, rule="ascii_punctuation") for made in makers
    )
    assert examples is not None
    return dataclasses.replace(
        task,
        name=f"{task.name}_ascii_punctuation",
        description=f"{task.description}; spaces around ASCII punctuation only",
        examples=examples,
        eval_examples=eval_examples,
    )


TASKS: tuple[ExampleTask, ...] = tuple(map(_with_rule, (*squad.TASKS, *trivia_qa.TASKS)))
