"""Pronoun tasks in T5's simple form: the pronoun marked by stars, the referent as the answer.

`wsc: The city refused because *they* feared violence.` -> `The city` (Raffel et al. 2020, section
2.4). WSC (SuperGLUE), the Definite Pronoun Resolution data (Rahman and Ng 2012) and WNLI (GLUE)
are all written so; a predicted referent is then judged by its words.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.data.benchmarks.classification import FALSE_TRUE, class_of, own_index
from t5jax.data.benchmarks.wnli import pronoun_and_referent
from t5jax.data.records import BadColumn, Row
from t5jax.data.tasks.task import Example
from t5jax.metrics.wsc import wsc_simple_label

PREFIX = "wsc:"
_WORD = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


def wsc_columns(row: Row, number: int) -> Iterator[Row]:
    """SuperGLUE's JSON line of WSC -> the columns of TFDS's `super_glue/wsc.fixed`."""
    target = row.get("target", row)
    if not isinstance(target, dict):
        raise BadColumn("column 'target' is no object with span1_text, span2_index, …")
    spans = Row({**target, "text": row.text("text")}, row.place)
    columns: dict[str, Any] = {"text": spans["text"]}
    for span in ("span1", "span2"):
        index = spans.get(f"{span}_index")
        if not isinstance(index, int) or index < 0:
            raise BadColumn(f"column '{span}_index' is {index!r}, not a word's position")
        columns[f"{span}_index"] = index
        columns[f"{span}_text"] = _as_in_text(spans.text(f"{span}_text"), index, spans["text"])
    columns["label"] = class_of(row.get("label"), FALSE_TRUE)
    columns["idx"] = own_index(row, number)
    yield Row(columns, row.place)


def _as_in_text(span: str, index: int, text: str) -> str:
    """A span as the text writes it; the files have some in another case, or with a full stop."""
    words = text.split()
    if span in text or index >= len(words):
        return span
    first = span[:1].lower() if words[index][:1].islower() else span[:1].upper()
    fixed = (first + span[1:]).rstrip(".").replace("\n", " ")
    return fixed if fixed in text else span


@dataclasses.dataclass(frozen=True, slots=True)
class WscExamples:
    """`wsc: … *pronoun* …` -> the referent; for training only rows with the right referent."""

    correct_referent_only: bool

    def __call__(self, row: Row) -> Iterator[Example]:
        label = class_of(row.get("label"), FALSE_TRUE)
        if self.correct_referent_only and label != 1:
            return
        text, index = row.text("text"), row.get("span2_index")
        if not isinstance(index, int):
            raise BadColumn(f"column 'span2_index' is {index!r}, not a word's position")
        yield {
            "inputs": f"{PREFIX} {_mark(text, index, row.text('span2_text'))}",
            "targets": row.text("span1_text"),
            "label": label,
            "idx": row.get("idx"),
        }


def _mark(text: str, index: int, pronoun: str) -> str:
    """The text with stars around the pronoun. Raises BadColumn when it is not there.

    Two rows of WSC point at a word beside the pronoun, or have it glued to punctuation; T5 lists
    both by hand, a search around the position finds them too.
    """
    words = text.split(" ")
    for i in sorted(range(len(words)), key=lambda i: abs(i - index)):
        before, word, after = _parts(words[i])
        if word == _parts(pronoun)[1]:
            marked = " ".join(part for part in (before, f"*{pronoun}*", after) if part)
            return " ".join([*words[:i], marked, *words[i + 1 :]])
    raise BadColumn(f"the pronoun {pronoun!r} (word {index}) is not in the text")


def _parts(word: str) -> tuple[str, str, str]:
    """Punctuation before, the word itself, punctuation after."""
    match = _WORD.fullmatch(word)
    assert match is not None
    before, middle, after = match.groups()
    return (before, middle, after) if middle else ("", word, "")


def dpr_columns(row: Row, number: int) -> Iterator[Row]:
    """A line with sentence, pronoun, candidates and either `label` or `answer` -> TFDS's columns.

    Raises BadColumn where the answer is none of the candidates.
    """
    candidates = _candidates(row)
    label = row.get("label")
    if label is None:
        answer = row.text("answer")
        if answer not in candidates:
            raise BadColumn(f"answer {answer!r} is none of the candidates {candidates}")
        label = candidates.index(answer)
    yield Row(
        {
            "sentence": row.text("sentence"),
            "pronoun": row.text("pronoun"),
            "candidates": candidates,
            "label": label,
        },
        row.place,
    )


def _candidates(row: Row) -> list[str]:
    candidates = row.get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(c, str) for c in candidates):
        raise BadColumn(f"column 'candidates' is {candidates!r}, not a list of strings")
    return candidates


def dpr_examples(row: Row) -> Iterator[Example]:
    """`wsc: … *pronoun* …` -> the candidate that it stands for.

    The first free-standing occurrence is marked: a space before it; a space, a full stop or a comma
    behind. Where there is none the sentence stays as it is, as in T5.
    """
    pronoun = row.text("pronoun")
    standing = re.compile(rf" ({re.escape(pronoun)})( |\.|,)")
    sentence = standing.sub(r" *\1*\2", row.text("sentence"), count=1)
    candidates = _candidates(row)
    label = row.get("label")
    if not isinstance(label, int) or not 0 <= label < len(candidates):
        raise BadColumn(f"label {label!r} is not the number of one of {candidates}")
    yield {"inputs": f"{PREFIX} {sentence}", "targets": candidates[label]}


def wnli_examples(row: Row) -> Iterator[Example]:
    """`wsc: … *pronoun* …` -> the phrase that WNLI's hypothesis puts in place of the pronoun.

    Only for evaluation: the phrase is that of the hypothesis, right or not (`label`).
    """
    premise, hypothesis = row.text("sentence1"), row.text("sentence2")
    marked, referent = pronoun_and_referent(premise, hypothesis)
    yield {
        "inputs": f"{PREFIX} {marked}",
        "targets": referent,
        "premise": premise,
        "hypothesis": hypothesis,
        "label": row.get("label"),
        "idx": row.get("idx"),
    }


def referent_label(text: str, *, example: Mapping[str, Any], is_target: bool = False) -> int:
    """1 where the predicted phrase names the example's referent, else 0; for a target its label."""
    return example["label"] if is_target else wsc_simple_label(text, example["targets"])
