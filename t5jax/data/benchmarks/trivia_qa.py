"""TriviaQA (Joshi et al. 2017) as reading comprehension: the alias that occurs in the document.

T5 truncates a context that is too long around the answer; here as everywhere the loader cuts its
end off.
"""

from collections.abc import Iterator
from typing import Any

from t5jax.data.benchmarks.datasets import Dataset, as_in_tfds
from t5jax.data.benchmarks.squad import all_answers
from t5jax.data.benchmarks.squad_text import PunctuationRule, pad_punctuation, single_spaces
from t5jax.data.records import BadColumn, Row
from t5jax.data.tasks.task import Example, ExampleTask
from t5jax.metrics.question_answering import trivia_qa

TRAIN_QUESTIONS = 138_384  # TFDS catalog, trivia_qa/rc; a question gives several examples or none


# Columns: question, answer.normalized_aliases, entity_pages.wiki_context,
# search_results.search_context.
TRIVIA_QA = Dataset(name="trivia_qa/rc", folder="trivia_qa", adapt=as_in_tfds)


def matching_examples(row: Row) -> Iterator[Example]:
    """`question: … context: …` -> a normalised alias; one example per alias and document in which
    it occurs (case of ASCII letters aside)."""
    yield from aliases_in_documents(row, rule="non_word")


def document_examples(row: Row) -> Iterator[Example]:
    """One example per document, whether or not the answer is in it."""
    yield from all_documents(row, rule="non_word")


def aliases_in_documents(row: Row, *, rule: PunctuationRule) -> Iterator[Example]:
    """`question: … context: …` -> a normalised alias that the document holds, by a rule of
    punctuation."""
    for context in _contexts(row, rule):
        for alias in _aliases(row, rule):
            if _ascii_lower(alias) in _ascii_lower(context):
                yield _example(row, context, alias, rule)


def all_documents(row: Row, *, rule: PunctuationRule) -> Iterator[Example]:
    """`question: … context: …` -> the first alias; one example per document, by a rule of
    punctuation."""
    for context in _contexts(row, rule):
        yield _example(row, context, _aliases(row, rule)[0], rule)


def _example(row: Row, context: str, answer: str, rule: PunctuationRule) -> Example:
    question = pad_punctuation(row.text("question"), rule)
    return {
        "inputs": single_spaces(f"question: {question} context: {context}"),
        "targets": answer,
        "answers": _aliases(row, rule),
        "question_id": row.get("question_id"),
    }


def _aliases(row: Row, rule: PunctuationRule) -> list[str]:
    aliases = _texts(row, "answer", "normalized_aliases")
    if not aliases:
        raise BadColumn("column 'answer' has no normalized_aliases: a test row has no answer")
    return [pad_punctuation(alias, rule) for alias in aliases]


def _contexts(row: Row, rule: PunctuationRule) -> list[str]:
    """Wikipedia's pages first, then the web's."""
    contexts = _texts(row, "entity_pages", "wiki_context", required=False)
    contexts += _texts(row, "search_results", "search_context", required=False)
    return [pad_punctuation(context, rule) for context in contexts]


def _texts(row: Row, column: str, key: str, *, required: bool = True) -> list[str]:
    value: Any = row.get(column)
    if value is None and not required:
        return []
    texts = value.get(key) if isinstance(value, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadColumn(f"column {column!r} has no list of texts {key!r}")
    return list(texts)


def _ascii_lower(text: str) -> str:
    return text.encode().lower().decode()


TASKS: tuple[ExampleTask, ...] = (
    TRIVIA_QA.task(
        name="trivia_qa_v010",
        description="TriviaQA: an alias of the answer that the document holds",
        examples=matching_examples,
        eval_examples=document_examples,
        postprocess=all_answers,
        metrics=(trivia_qa,),
        num_examples=TRAIN_QUESTIONS,
    ),
)
