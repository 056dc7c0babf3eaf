"""MultiRC and ReCoRD, the SuperGLUE tasks with several examples to a passage.

Their files nest questions below passages; TFDS has one row per answer (MultiRC) or per query
(ReCoRD), and so have the examples here. What the grouped metrics need travels in the example.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.data.benchmarks.classification import (
    FALSE_TRUE,
    UNLABELLED_TEXT,
    ClassOfText,
    class_of,
    keyed_text,
    label_text,
)
from t5jax.data.records import BadColumn, Row
from t5jax.data.tasks.task import Example

_HIGHLIGHT_AFTER_MARK = re.compile(r"([.?!\"'])\n@highlight\n")
_HIGHLIGHT = "\n@highlight\n"


def multirc_columns(row: Row, number: int) -> Iterator[Row]:
    """A passage with questions with answers -> one row per answer; a flat row stays as it is."""
    if "passage" not in row:
        yield Row({**row, "label": class_of(row.get("label"), FALSE_TRUE)}, row.place)
        return
    passage = _below(row, "passage", row.place)
    for question in _list(passage, "questions"):
        for answer in _list(question, "answers"):
            yield Row(
                {
                    "paragraph": passage.text("text"),
                    "question": question.text("question"),
                    "answer": answer.text("text"),
                    "label": class_of(answer.get("label"), FALSE_TRUE),
                    "idx": {
                        "paragraph": row.get("idx", number),
                        "question": question.get("idx"),
                        "answer": answer.get("idx"),
                    },
                },
                f"{row.place}, question {question.get('idx')}, answer {answer.get('idx')}",
            )


def multirc_examples(row: Row) -> Iterator[Example]:
    """`multirc question: … answer: … paragraph: …` -> False / True, without the files' HTML."""
    inputs = keyed_text("multirc", row, ("question", "answer", "paragraph"))
    inputs = inputs.replace("<br>", " ").replace("<b>", "").replace("</b>", "")
    idx = _index(row, "question")
    yield {
        "inputs": inputs,
        "targets": label_text(row, FALSE_TRUE),
        "idx/paragraph": idx.get("paragraph"),
        "idx/question": idx["question"],
        "idx/answer": idx.get("answer"),
    }


def multirc_value(text: str, *, example: Mapping[str, Any], is_target: bool = False) -> dict:
    """{"value": class, and for a target "group": the question}, as the grouped metrics take it."""
    value = {"value": ClassOfText(FALSE_TRUE)(text)}
    return {**value, "group": example["idx/question"]} if is_target else value


def record_columns(row: Row, number: int) -> Iterator[Row]:
    """A passage with queries -> one row per query, entities and answers each once, sorted."""
    if "qas" not in row:
        yield row
        return
    passage = _below(row, "passage", row.place)
    text = passage.text("text")
    entities = sorted({_span(text, entity) for entity in _list(passage, "entities")})
    for query in _list(row, "qas"):
        answers = _list(query, "answers") if "answers" in query else []
        yield Row(
            {
                "passage": text,
                "query": query.text("query"),
                "entities": entities,
                "answers": sorted({answer.text("text") for answer in answers}),
                "idx": {"passage": row.get("idx", number), "query": query.get("idx")},
            },
            f"{row.place}, query {query.get('idx')}",
        )


def record_examples(row: Row) -> Iterator[Example]:
    """`record query: … entities: a, b passage: …` -> an entity; one example per right answer, and
    `<unk>` for a query without answers."""
    inputs, answers, idx = _record_inputs(row), _texts(row, "answers"), _index(row, "query")
    for answer in answers or [UNLABELLED_TEXT]:
        yield {
            "inputs": inputs,
            "targets": answer,
            "answers": answers,
            "idx/passage": idx.get("passage"),
            "idx/query": idx["query"],
        }


def record_eval_examples(row: Row) -> Iterator[Example]:
    """The first of a query's examples: the others would be the same question asked again."""
    yield next(record_examples(row))


def record_value(text: str, *, example: Mapping[str, Any], is_target: bool = False) -> dict:
    """{"value": text}; for a target all answers and "group": (passage, query)."""
    if not is_target:
        return {"value": text}
    group = (example["idx/passage"], example["idx/query"])
    return {"value": example["answers"], "group": group}


def _record_inputs(row: Row) -> str:
    passage = _HIGHLIGHT_AFTER_MARK.sub(r"\1 ", row.text("passage")).replace(_HIGHLIGHT, ". ")
    entities = ", ".join(_texts(row, "entities"))
    return f"record query: {row.text('query')} entities: {entities} passage: {passage}"


def _span(text: str, entity: Row) -> str:
    start, end = entity.get("start"), entity.get("end")
    if not isinstance(start, int) or not isinstance(end, int):
        raise BadColumn(f"an entity reaches from {start!r} to {end!r}")
    return text[start : end + 1]  # the end is that of the last character


def _texts(row: Row, column: str) -> list[str]:
    values = row.get(column)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadColumn(f"column {column!r} is {str(values)[:80]}, not a list of strings")
    return values


def _index(row: Row, key: str) -> dict[str, Any]:
    idx = row.get("idx")
    if not isinstance(idx, dict) or key not in idx:
        raise BadColumn(f"column 'idx' is {idx!r}, without {key!r}: rows could not be grouped")
    return idx


def _below(row: Row, column: str, place: str) -> Row:
    value = row.get(column)
    if not isinstance(value, dict):
        raise BadColumn(f"column {column!r} is no object")
    return Row(value, place)


def _list(row: Row, column: str) -> list[Row]:
    values = row.get(column)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise BadColumn(f"column {column!r} is no list of objects")
    return [Row(value, row.place) for value in values]
