"""SQuAD v1.1 (Rajpurkar et al. 2016): answers as text, without the context, and as a span."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.data.benchmarks.datasets import Dataset
from t5jax.data.benchmarks.squad_text import PunctuationRule, pad_punctuation, single_spaces
from t5jax.data.records import BadColumn, Row
from t5jax.data.tasks.task import Example, ExampleTask
from t5jax.metrics.question_answering import span_squad, squad, words_of

TRAIN_EXAMPLES = 87_599  # Rajpurkar et al. 2016; TFDS catalog


def squad_columns(row: Row, number: int) -> Iterator[Row]:
    """SQuAD's JSON document -> one row per question, in TFDS's columns; a flat row stays."""
    if "context" in row:
        yield row
        return
    try:
        articles = json.loads(row.text("text"))["data"] if "text" in row else row["data"]
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield _question_row(article, paragraph, question, row.place)
    except (ValueError, KeyError, TypeError) as error:
        raise BadColumn(
            f"not SQuAD's layout, data / paragraphs / qas: {type(error).__name__}: {error}"
        ) from None


def _question_row(article: Any, paragraph: Any, question: Any, place: str) -> Row:
    answers = question.get("answers", [])
    return Row(
        {
            "id": question["id"],
            "title": article.get("title", ""),
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {
                "text": [answer["text"] for answer in answers],
                "answer_start": [answer["answer_start"] for answer in answers],
            },
        },
        f"{place}, question {question['id']}",
    )


SQUAD = Dataset(
    name="squad/v1.1",
    folder="squad",
    adapt=squad_columns,
    stems={"train": ("train-v1.1", "train"), "validation": ("dev-v1.1", "validation", "dev")},
    one_document=True,
)


def squad_examples(row: Row) -> Iterator[Example]:
    """`question: <question> context: <context>` -> the first answer; all answers for the metric."""
    yield from answered_in_context(row, rule="non_word")


def context_free_examples(row: Row) -> Iterator[Example]:
    """`squad trivia question: <question>` -> the first answer."""
    yield from answered_without_context(row, rule="non_word")


def span_examples(row: Row) -> Iterator[Example]:
    """`question: <question> context: <context>` -> `start: 3 end: 6`, positions of the answer in
    the context's words.

    A question whose answer is not found as whole words has no example. Words are those that the
    metric counts, as they were when T5 was published; later versions of its preprocessor count the
    empty strings between neighbouring marks as well.
    """
    yield from answered_by_span(row, rule="non_word")


def answered_in_context(row: Row, *, rule: PunctuationRule) -> Iterator[Example]:
    """`question: <question> context: <context>` -> the first answer, by a rule of punctuation."""
    example = _padded(row, rule)
    text = f"question: {example['question']} context: {example['context']}"
    yield {"inputs": single_spaces(text), "targets": example["answers"][0], **example}


def answered_without_context(row: Row, *, rule: PunctuationRule) -> Iterator[Example]:
    """`squad trivia question: <question>` -> the first answer, by a rule of punctuation."""
    example = _padded(row, rule)
    text = f"squad trivia question: {example['question']}"
    yield {"inputs": single_spaces(text), "targets": example["answers"][0], **example}


def answered_by_span(row: Row, *, rule: PunctuationRule) -> Iterator[Example]:
    """`question: <question> context: <context>` -> `start: 3 end: 6`, by a rule of punctuation."""
    example = next(answered_in_context(row, rule=rule))
    context, answer = words_of(example["context"]), words_of(example["targets"])
    for start in range(len(context) - len(answer) + 1):
        if answer and context[start : start + len(answer)] == answer:
            yield {**example, "targets": f"start: {start} end: {start + len(answer) - 1}"}
            return


def _padded(row: Row, rule: PunctuationRule) -> dict[str, Any]:
    answers = row.get("answers")
    texts = answers.get("text") if isinstance(answers, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise BadColumn(f"column 'answers' is {str(answers)[:80]}: no list of texts below 'text'")
    return {
        "id": row.get("id"),
        "question": pad_punctuation(row.text("question"), rule),
        "context": pad_punctuation(row.text("context"), rule),
        "answers": [pad_punctuation(text, rule) for text in texts],
    }


def all_answers(text: str, *, example: Mapping[str, Any], is_target: bool = False) -> Any:
    """T5's `qa`: a prediction as it is; for a target all its answers."""
    return example["answers"] if is_target else text


def answers_and_context(text: str, *, example: Mapping[str, Any], is_target: bool = False) -> Any:
    """T5's `span_qa`: a prediction as it is; for a target its answers and the context."""
    return {key: example[key] for key in ("answers", "context")} if is_target else text


def _task(key: str, form: str, **fields: Any) -> ExampleTask:
    return SQUAD.task(
        name=f"squad_v010_{key}",
        description=f"SQuAD v1.1{form}",
        num_examples=TRAIN_EXAMPLES,
        **fields,
    )


TASKS: tuple[ExampleTask, ...] = (
    _task(
        "allanswers",
        ", the best over all answers",
        examples=squad_examples,
        postprocess=all_answers,
        metrics=(squad,),
    ),
    _task(
        "context_free",
        " without the context",
        examples=context_free_examples,
        postprocess=all_answers,
        metrics=(squad,),
    ),
    _task(
        "allanswers_span",
        ", positions of the answer's words",
        examples=span_examples,
        postprocess=answers_and_context,
        metrics=(span_squad,),
    ),
)
