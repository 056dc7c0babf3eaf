"""Submission files for the GLUE and SuperGLUE leaderboards, from predictions on the test splits.

Formats: gluebenchmark.com/faq (a TSV file a task, columns `index` and `prediction`) and
super.gluebenchmark.com/faq (JSON lines with `idx` and `label`).
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from t5jax.data.atomic_files import json_line
from t5jax.data.benchmarks.classification import UNLABELLED
from t5jax.data.benchmarks.glue import ENTAILMENT, THREE_WAY
from t5jax.data.benchmarks.superglue import CB_CLASSES
from t5jax.errors import DataError
from t5jax.evaluation.examples import TaskExamples
from t5jax.evaluation.predictions import TaskPrediction

_BINARY, _LOWER, _CAPITAL = ("0", "1"), ("false", "true"), ("False", "True")
_MAX_SIMILARITY = 5.0


class _Format(NamedTuple):
    """Submission format of a task: its file, and the label of each class (None: no classes)."""

    file: str
    labels: Sequence[Any] | None


SUBMISSION_FORMATS: dict[str, _Format] = {
    "glue_cola_v002": _Format("CoLA.tsv", _BINARY),
    "glue_sst2_v002": _Format("SST-2.tsv", _BINARY),
    "glue_mrpc_v002": _Format("MRPC.tsv", _BINARY),
    "glue_stsb_v002": _Format("STS-B.tsv", None),
    "glue_qqp_v002": _Format("QQP.tsv", _BINARY),
    "glue_mnli_matched_v002": _Format("MNLI-m.tsv", THREE_WAY),
    "glue_mnli_mismatched_v002": _Format("MNLI-mm.tsv", THREE_WAY),
    "glue_qnli_v002": _Format("QNLI.tsv", ENTAILMENT),
    "glue_rte_v002": _Format("RTE.tsv", ENTAILMENT),
    "glue_wnli_v002_simple_eval": _Format("WNLI.tsv", _BINARY),
    "glue_wnli_v002": _Format("WNLI.tsv", _BINARY),
    "glue_ax_v002": _Format("AX.tsv", THREE_WAY),
    "super_glue_boolq_v102": _Format("BoolQ.jsonl", _LOWER),
    "super_glue_cb_v102": _Format("CB.jsonl", CB_CLASSES),
    "super_glue_copa_v102": _Format("COPA.jsonl", (0, 1)),
    "super_glue_multirc_v102": _Format("MultiRC.jsonl", (0, 1)),
    "super_glue_record_v102": _Format("ReCoRD.jsonl", None),
    "super_glue_rte_v102": _Format("RTE.jsonl", ENTAILMENT),
    "super_glue_wic_v102": _Format("WiC.jsonl", _LOWER),
    "super_glue_wsc_v102_simple_eval": _Format("WSC.jsonl", _CAPITAL),
    "super_glue_axb_v102": _Format("AX-b.jsonl", ENTAILMENT),
    "super_glue_axg_v102": _Format("AX-g.jsonl", ENTAILMENT),
}


def write_submission(
    directory: pathlib.Path, task: TaskExamples, predictions: list[TaskPrediction]
) -> tuple[pathlib.Path, int] | None:
    """(the file, how many predictions named no class and were given the first one); None for a task
    of neither benchmark. Raises DataError for rows without an index."""
    name = re.sub(r"_\d+_sentinel", "", task.task)
    form = SUBMISSION_FORMATS.get(name)
    if form is None:
        return None
    values = task.postprocessed_predictions([prediction.text for prediction in predictions])
    labels, num_replaced = _labels(name, form, values)
    directory.mkdir(parents=True, exist_ok=True)
    examples = [example.features for example in task.examples]
    lines = _LINES.get(name, _lines_of(form.file))(examples, labels)
    file = directory / form.file
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file, num_replaced


def _labels(name: str, form: _Format, values: list[Any]) -> tuple[list[Any], int]:
    """(the label of each prediction, how many predictions were invalid)."""
    if name == "super_glue_record_v102":
        return [value["value"] for value in values], 0
    if form.labels is None:  # similarities
        clipped = [min(max(value, 0.0), _MAX_SIMILARITY) for value in values]
        return [f"{value:.3f}" for value in clipped], sum(value < 0 for value in values)
    classes = [value["value"] if isinstance(value, Mapping) else value for value in values]
    num_invalid = sum(number == UNLABELLED for number in classes)
    return [form.labels[max(number, 0)] for number in classes], num_invalid


def _tsv(examples: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> Iterable[str]:
    yield "index\tprediction"
    for example, label in zip(examples, labels, strict=True):
        index = _index(example, "idx")
        if "\t" in str(label) or str(label).splitlines() != [str(label)]:
            raise DataError(
                f"the prediction of row {index} is {label!r}: a table has no place for tabs, line "
                "ends and nothing"
            )
        yield f"{index}\t{label}"


def _jsonl(examples: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> Iterable[str]:
    for example, label in zip(examples, labels, strict=True):
        yield json.dumps({"idx": _index(example, "idx"), "label": label})


def _record(examples: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> Iterable[str]:
    for example, label in zip(examples, labels, strict=True):
        yield json_line({"idx": _index(example, "idx/query"), "label": label}).decode().rstrip("\n")


def _multirc(examples: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> Iterable[str]:
    passages: dict[int, dict[int, list]] = {}
    for example, label in zip(examples, labels, strict=True):
        paragraph, question, answer = (
            _index(example, f"idx/{part}") for part in ("paragraph", "question", "answer")
        )
        answers = passages.setdefault(paragraph, {}).setdefault(question, [])
        answers.append({"idx": answer, "label": label})
    for paragraph, questions in passages.items():
        listed = [{"idx": idx, "answers": answers} for idx, answers in questions.items()]
        yield json.dumps({"idx": paragraph, "passage": {"questions": listed}})


_Lines = Callable[[Sequence[Mapping[str, Any]], Sequence[Any]], Iterable[str]]
_LINES: dict[str, _Lines] = {
    "super_glue_record_v102": _record,
    "super_glue_multirc_v102": _multirc,
}


def _lines_of(file: str) -> _Lines:
    return _tsv if file.endswith(".tsv") else _jsonl


def _index(example: Mapping[str, Any], key: str) -> Any:
    index = example.get(key)
    if not isinstance(index, int):
        raise DataError(f"an example has {key} = {index!r}: a submission needs the row's number")
    return index
