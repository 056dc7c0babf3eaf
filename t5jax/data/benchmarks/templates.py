"""Tasks in many wordings, as FLAN (Wei et al. 2021) trained them: one of several templates per row.

Which wording a row gets is a hash of its text, so a row always reads the same, in any order and on
any host. The wordings are this file's own; a benchmark's other form (`glue.py`, …) stays T5's.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from t5jax.data.benchmarks import glue, squad, superglue
from t5jax.data.benchmarks.classification import (
    UNLABELLED_TEXT,
    ClassOfText,
    Columns,
    FixedChoices,
    label_text,
)
from t5jax.data.benchmarks.datasets import Dataset, as_in_tfds
from t5jax.data.benchmarks.squad import all_answers
from t5jax.data.benchmarks.summarization import CNN_DAILYMAIL
from t5jax.data.benchmarks.translation import MULTI30K, language_name
from t5jax.data.records import BadColumn, Row
from t5jax.data.rng import derive_seed
from t5jax.data.tasks.task import Example, ExampleTask, Metric, Postprocess
from t5jax.errors import ConfigError
from t5jax.metrics.classification import accuracy
from t5jax.metrics.question_answering import squad as squad_metric
from t5jax.metrics.summarization import rouge
from t5jax.metrics.translation import bleu

# row -> the texts that templates name in braces, among them `targets`, and what metrics need.
Fields = Callable[[Row], Mapping[str, object]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Templates:
    """Examples of a row in one of several wordings, chosen by a hash of its fields.

    A wording is an inputs format such as `Is it true that {hypothesis}? {premise}`; `targets` is
    the field of that name. `seed` gives another assignment of wordings to rows.
    """

    fields: Fields
    wordings: tuple[str, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if len(set(self.wordings)) < len(self.wordings) or not self.wordings:
            raise ConfigError(f"wordings={self.wordings}: give at least one, each once")

    def __call__(self, row: Row) -> Iterator[Example]:
        fields = self.fields(row)
        if fields["targets"] == UNLABELLED_TEXT:
            return  # an unlabelled row has no answer to give in any wording
        content = "\n".join(f"{key}: {value}" for key, value in sorted(fields.items()))
        wording = self.wordings[derive_seed(self.seed, content) % len(self.wordings)]
        rest = {key: value for key, value in fields.items() if key in ("targets", "answers")}
        yield {"inputs": wording.format_map(fields), **rest, "template": wording}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LabelledFields:
    """Text columns by name, and as `targets` a word for the class."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    words: tuple[str, ...]

    def __call__(self, row: Row) -> Mapping[str, object]:
        label = label_text(row, self.labels)
        known = label != UNLABELLED_TEXT
        word = self.words[self.labels.index(label)] if known else UNLABELLED_TEXT
        return {**{name: row.text(name) for name in self.columns}, "targets": word}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PairFields:
    """Text columns under a template's names, of which `targets` is one."""

    columns: tuple[tuple[str, str], ...]  # (name in the template, column)
    constants: tuple[tuple[str, str], ...] = ()

    def __call__(self, row: Row) -> Mapping[str, object]:
        return {**dict(self.constants), **{name: row.text(own) for name, own in self.columns}}


def squad_fields(row: Row) -> Mapping[str, object]:
    """Question and context as written; `targets` the first answer, `answers` all."""
    answers = row.get("answers")
    texts = answers.get("text") if isinstance(answers, dict) else None
    return _question(row, texts, context=row.text("context"))


def closed_book_fields(row: Row) -> Mapping[str, object]:
    """A question and its list of answers (column `answer`)."""
    return _question(row, row.get("answer"))


def _question(row: Row, answers: object, **more: str) -> Mapping[str, object]:
    if not isinstance(answers, list) or not answers or not isinstance(answers[0], str):
        raise BadColumn(f"answers are {str(answers)[:80]}, not a list of texts")
    return {"question": row.text("question"), "targets": answers[0], "answers": answers, **more}


def templated(
    name: str,
    dataset: Dataset,
    fields: Fields,
    wordings: tuple[str, ...],
    *,
    metrics: tuple[Metric, ...],
    words: tuple[str, ...] | None = None,
    postprocess: Postprocess | None = None,
    num_examples: int | None = None,
) -> ExampleTask:
    """A task in several wordings; `words`, the answers of a classification, are its choices."""
    return dataset.task(
        name=name,
        description=f"{dataset.name} in {len(wordings)} wordings",
        examples=Templates(fields=fields, wordings=wordings),
        postprocess=ClassOfText(words) if words else postprocess,
        metrics=metrics,
        choices=FixedChoices(words) if words else None,
        num_examples=num_examples,
    )


def _classification(
    name: str,
    dataset: Dataset,
    labels: tuple[str, ...],
    words: tuple[str, ...],
    columns: tuple[str, ...],
    wordings: tuple[str, ...],
    num_examples: int | None = None,
) -> ExampleTask:
    fields = LabelledFields(columns=columns, labels=labels, words=words)
    more = {"metrics": (accuracy,), "words": words, "num_examples": num_examples}
    return templated(name, dataset, fields, wordings, **more)


SNLI = Dataset(
    name="snli",
    folder="snli",
    adapt=Columns(
        texts={"premise": ("premise", "sentence1"), "hypothesis": ("hypothesis", "sentence2")},
        labels=glue.THREE_WAY,
        label=("label", "gold_label"),
    ),
    stems={
        "train": ("snli_1.0_train", "train"),
        "validation": ("snli_1.0_dev", "validation", "dev"),
        "test": ("snli_1.0_test", "test"),
    },
)


# Columns: question, answer (a list).
NQ_OPEN = Dataset(name="natural_questions_open", folder="nq_open", adapt=as_in_tfds)

_YES_NO_MAYBE = ("yes", "it is not possible to tell", "no")
_NLI_WORDINGS = (
    "{premise}\n\nCan we conclude that {hypothesis}",
    "Read this: {premise}\nDoes it follow that {hypothesis}",
    "Premise: {premise}\nClaim: {hypothesis}\nIs the claim true, given the premise?",
    "If it is so that {premise}, is it then so that {hypothesis}",
    "Suppose somebody tells you: {premise}\nDo you now know this for certain: {hypothesis}",
)

TASKS: tuple[ExampleTask, ...] = (
    _classification(
        "rte_templates_v001",
        superglue.RTE,
        glue.ENTAILMENT,
        ("yes", "no"),
        ("premise", "hypothesis"),
        _NLI_WORDINGS,
        num_examples=2_490,
    ),
    _classification(
        "snli_templates_v001",
        SNLI,
        glue.THREE_WAY,
        _YES_NO_MAYBE,
        ("premise", "hypothesis"),
        _NLI_WORDINGS,
        num_examples=549_367,  # Bowman et al. 2015: the training pairs with a label
    ),
    _classification(
        "boolq_templates_v001",
        superglue.BOOLQ,
        superglue.FALSE_TRUE,
        ("no", "yes"),
        ("passage", "question"),
        (
            "{passage}\n\nAnswer with yes or no: {question}?",
            "Question: {question}?\nText: {passage}\nYes or no?",
            "Use the text to decide. {question}?\n\n{passage}",
            "Here is a passage: {passage}\nA reader asks, {question}? What is the answer?",
        ),
        num_examples=9_427,
    ),
    _classification(
        "sst2_templates_v001",
        glue.SST2,
        glue.SENTIMENT,
        glue.SENTIMENT,
        ("sentence",),
        (
            "A critic wrote: {sentence}\nIs this review positive or negative?",
            "{sentence}\nDid the writer like the film? Say positive or negative.",
            "What is the sentiment of the following phrase? {sentence}",
            "Tell whether these words about a film are positive or negative: {sentence}",
        ),
        num_examples=67_349,
    ),
    templated(
        "squad_templates_v001",
        squad.SQUAD,
        squad_fields,
        (
            "{context}\n\nQuestion: {question}\nAnswer:",
            "Read the text and answer. {question}\n\n{context}",
            "Find the words in the article that answer this: {question}\nArticle: {context}",
            "{question} The answer is in this passage: {context}",
        ),
        metrics=(squad_metric,),
        postprocess=all_answers,
        num_examples=squad.TRAIN_EXAMPLES,
    ),
    templated(
        "nq_open_templates_v001",
        NQ_OPEN,
        closed_book_fields,
        (
            "Answer from memory: {question}?",
            "Question: {question}?\nAnswer:",
            "I would like to know, {question}?",
            "{question}? Give a short answer.",
        ),
        metrics=(squad_metric,),
        postprocess=all_answers,
        num_examples=87_925,  # TFDS catalog, natural_questions_open
    ),
    templated(
        "multi30k_ende_templates_v001",
        MULTI30K,
        PairFields(
            columns=(("text", "en"), ("targets", "de")),
            constants=(("language", language_name("de")),),
        ),
        (
            "{text}\n\nSay this in {language}.",
            "How would one put the following in {language}? {text}",
            "Give the {language} version of this sentence: {text}",
            "{language} translation of: {text}",
        ),
        metrics=(bleu,),
        num_examples=29_000,
    ),
    templated(
        "cnn_dailymail_templates_v001",
        CNN_DAILYMAIL,
        PairFields(columns=(("article", "article"), ("targets", "highlights"))),
        (
            "{article}\n\nWhat are the highlights of this article?",
            "Write the main points of the following news in a few sentences: {article}",
            "News: {article}\nSummary:",
        ),
        metrics=(rouge,),
        num_examples=287_113,
    ),
)
