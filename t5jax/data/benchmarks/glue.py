"""GLUE (Wang et al. 2019) as T5 writes it: prefixes, class names, metrics and sizes.

Names are those of T5's registry. Sizes of the training splits are the weights of T5's
`glue_v002_proportional`; a task without a training split has 0.
"""

import functools

from t5jax.data.benchmarks.classification import (
    ClassOfText,
    Columns,
    FixedChoices,
    KeyedText,
    same_name,
)
from t5jax.data.benchmarks.datasets import SETTINGS, Dataset
from t5jax.data.benchmarks.stsb import similarity_examples, similarity_of_text
from t5jax.data.benchmarks.winograd import referent_label, wnli_examples
from t5jax.data.tasks.task import ExampleTask, Metric
from t5jax.metrics.classification import accuracy, f1, matthews_corrcoef
from t5jax.metrics.regression import pearson_corrcoef, spearman_corrcoef

ALL_SPLITS = ("train", "validation", "test")
ACCEPTABLE = ("unacceptable", "acceptable")
SENTIMENT = ("negative", "positive")
EQUIVALENT = ("not_equivalent", "equivalent")
DUPLICATE = ("not_duplicate", "duplicate")
ENTAILMENT = ("entailment", "not_entailment")
THREE_WAY = ("entailment", "neutral", "contradiction")
WNLI = ("not_entailment", "entailment")

_PAIR = same_name("sentence1", "sentence2")
_NLI_TEXTS = {"premise": ("premise", "sentence1"), "hypothesis": ("hypothesis", "sentence2")}
_MNLI_STEMS = {
    "train": ("train",),
    "validation_matched": ("dev_matched", "validation_matched"),
    "validation_mismatched": ("dev_mismatched", "validation_mismatched"),
    "test_matched": ("test_matched",),
    "test_mismatched": ("test_mismatched",),
}

COLA = Dataset(
    name="glue/cola",
    folder="glue/CoLA",
    adapt=Columns(texts=same_name("sentence"), labels=ACCEPTABLE, label=("label", "is_acceptable")),
    headerless=dict.fromkeys(("train", "validation"), ("source", "label", "mark", "sentence")),
)
SST2 = Dataset(
    name="glue/sst2",
    folder="glue/SST-2",
    adapt=Columns(texts=same_name("sentence"), labels=SENTIMENT),
)
MRPC = Dataset(
    name="glue/mrpc",
    folder="glue/MRPC",
    adapt=Columns(
        texts={"sentence1": ("sentence1", "#1 String"), "sentence2": ("sentence2", "#2 String")},
        labels=EQUIVALENT,
        label=("label", "Quality"),
    ),
)
STSB = Dataset(
    name="glue/stsb",
    folder="glue/STS-B",
    adapt=Columns(texts=_PAIR, labels=None, label=("label", "score")),
)
QQP = Dataset(
    name="glue/qqp",
    folder="glue/QQP",
    adapt=Columns(
        texts=same_name("question1", "question2"),
        labels=DUPLICATE,
        label=("label", "is_duplicate"),
    ),
)
QNLI = Dataset(
    name="glue/qnli",
    folder="glue/QNLI",
    adapt=Columns(texts=same_name("question", "sentence"), labels=ENTAILMENT),
)
RTE = Dataset(name="glue/rte", folder="glue/RTE", adapt=Columns(texts=_PAIR, labels=ENTAILMENT))
WNLI_DATA = Dataset(name="glue/wnli", folder="glue/WNLI", adapt=Columns(texts=_PAIR, labels=WNLI))
MNLI = Dataset(
    name="glue/mnli",
    folder="glue/MNLI",
    adapt=Columns(texts=_NLI_TEXTS, labels=THREE_WAY, label=("label", "gold_label")),
    stems=_MNLI_STEMS,
)
AX = Dataset(
    name="glue/ax",
    folder="glue/AX",
    adapt=Columns(texts=_NLI_TEXTS, labels=THREE_WAY),
    stems={"test": ("test", "AX", "ax", "diagnostic")},
)


def mnli_half(half: str) -> Dataset:
    """`glue/mnli_matched` or `glue/mnli_mismatched`: one half of MNLI's validation and test."""
    return Dataset(
        name=f"glue/mnli_{half}",
        folder=MNLI.folder,
        adapt=MNLI.adapt,
        stems={split: MNLI.stems[f"{split}_{half}"] for split in ("validation", "test")},
    )


def _task(
    key: str,
    dataset: Dataset,
    labels: tuple[str, ...],
    columns: tuple[str, ...],
    *,
    metrics: tuple[Metric, ...],
    num_examples: int,
    prefix: str | None = None,
    splits: tuple[str, ...] = ALL_SPLITS,
) -> ExampleTask:
    return ExampleTask(
        name=f"glue_{key}_v002",
        description=f"GLUE {key}",
        source=dataset.source,
        examples=KeyedText(prefix=prefix or key, columns=columns, labels=labels),
        postprocess=ClassOfText(labels),
        metrics=metrics,
        choices=FixedChoices(labels),
        num_examples=num_examples,
        settings=SETTINGS,
        splits=splits,
        train_splits=("train",) if "train" in splits else (),
    )


# MNLI's column names sorted, as T5 sorts every task's.
_mnli = functools.partial(_task, labels=THREE_WAY, columns=("hypothesis", "premise"), prefix="mnli")

TASKS: tuple[ExampleTask, ...] = (
    _task(
        "cola", COLA, ACCEPTABLE, ("sentence",), metrics=(matthews_corrcoef,), num_examples=8_551
    ),
    _task("sst2", SST2, SENTIMENT, ("sentence",), metrics=(accuracy,), num_examples=67_349),
    _task(
        "mrpc",
        MRPC,
        EQUIVALENT,
        ("sentence1", "sentence2"),
        metrics=(f1, accuracy),
        num_examples=3_668,
    ),
    _task(
        "qqp",
        QQP,
        DUPLICATE,
        ("question1", "question2"),
        metrics=(f1, accuracy),
        num_examples=363_849,
    ),
    ExampleTask(
        name="glue_stsb_v002",
        description="GLUE stsb: similarity of two sentences, 0.0 to 5.0",
        source=STSB.source,
        examples=similarity_examples,
        postprocess=similarity_of_text,
        metrics=(pearson_corrcoef, spearman_corrcoef),
        num_examples=5_749,
        settings=SETTINGS,
        splits=ALL_SPLITS,
    ),
    _mnli(
        "mnli",
        MNLI,
        metrics=(accuracy,),
        num_examples=392_702,
        splits=tuple(_MNLI_STEMS),
    ),
    _task(
        "qnli",
        QNLI,
        ENTAILMENT,
        ("question", "sentence"),
        metrics=(accuracy,),
        num_examples=104_743,
    ),
    _task(
        "rte",
        RTE,
        ENTAILMENT,
        ("sentence1", "sentence2"),
        metrics=(accuracy,),
        num_examples=2_490,
    ),
    _mnli(
        "mnli_mismatched",
        mnli_half("mismatched"),
        metrics=(accuracy,),
        num_examples=0,
        splits=("validation", "test"),
    ),
    _mnli(
        "mnli_matched",
        mnli_half("matched"),
        metrics=(accuracy,),
        num_examples=0,
        splits=("validation", "test"),
    ),
    _mnli("ax", AX, metrics=(), num_examples=0, splits=("test",)),
    _task(
        "wnli",
        WNLI_DATA,
        WNLI,
        ("sentence1", "sentence2"),
        metrics=(accuracy,),
        num_examples=635,
    ),
    ExampleTask(
        name="glue_wnli_v002_simple_eval",
        description="GLUE wnli in WSC's form, for evaluation only",
        source=WNLI_DATA.source,
        examples=wnli_examples,
        postprocess=referent_label,
        metrics=(accuracy,),
        num_examples=0,
        settings=SETTINGS,
        splits=("validation", "test"),
        train_splits=(),
    ),
)
