"""SuperGLUE (Wang et al. 2019) as T5 writes it, with DPR, which T5 trains WSC's form on.

Names are those of T5's registry; each task has a `…_1_sentinel` variant. Sizes of the training
splits are the weights of T5's `super_glue_v102_proportional`; a task without one has 0.
"""

from collections.abc import Callable, Iterable

from t5jax.data.benchmarks.classification import (
    FALSE_TRUE,
    Columns,
    FixedChoices,
    KeyedText,
    classification_task,
    same_name,
)
from t5jax.data.benchmarks.datasets import Dataset
from t5jax.data.benchmarks.glue import ALL_SPLITS, ENTAILMENT
from t5jax.data.benchmarks.reading import (
    multirc_columns,
    multirc_examples,
    multirc_value,
    record_columns,
    record_eval_examples,
    record_examples,
    record_value,
)
from t5jax.data.benchmarks.sentinels import with_sentinel
from t5jax.data.benchmarks.winograd import (
    WscExamples,
    dpr_columns,
    dpr_examples,
    referent_label,
    wsc_columns,
)
from t5jax.data.records import Row
from t5jax.data.tasks.task import Example, ExampleTask, Metric
from t5jax.metrics.classification import accuracy, mean_multiclass_f1
from t5jax.metrics.grouped import group_exact_match, multirc_f1, record

CB_CLASSES = ("entailment", "contradiction", "neutral")
COPA_CHOICES = ("choice1", "choice2")
_NLI = same_name("premise", "hypothesis")

BOOLQ = Dataset(
    name="super_glue/boolq",
    folder="superglue/BoolQ",
    adapt=Columns(texts=same_name("question", "passage"), labels=FALSE_TRUE),
)
CB = Dataset(
    name="super_glue/cb", folder="superglue/CB", adapt=Columns(texts=_NLI, labels=CB_CLASSES)
)
COPA = Dataset(
    name="super_glue/copa",
    folder="superglue/COPA",
    adapt=Columns(
        texts=same_name("premise", "choice1", "choice2", "question"), labels=COPA_CHOICES
    ),
)
MULTIRC = Dataset(name="super_glue/multirc", folder="superglue/MultiRC", adapt=multirc_columns)
RECORD = Dataset(name="super_glue/record", folder="superglue/ReCoRD", adapt=record_columns)
RTE = Dataset(
    name="super_glue/rte", folder="superglue/RTE", adapt=Columns(texts=_NLI, labels=ENTAILMENT)
)
WIC = Dataset(
    name="super_glue/wic",
    folder="superglue/WiC",
    adapt=Columns(texts=same_name("sentence1", "sentence2", "word"), labels=FALSE_TRUE),
)
WSC = Dataset(name="super_glue/wsc.fixed", folder="superglue/WSC", adapt=wsc_columns)
# The diagnostics: one file each, which TFDS calls test.
AXB = Dataset(
    name="super_glue/axb",
    folder="superglue/AX-b",
    adapt=Columns(texts=same_name("sentence1", "sentence2"), labels=ENTAILMENT),
    stems={"test": ("AX-b", "test")},
)
AXG = Dataset(
    name="super_glue/axg",
    folder="superglue/AX-g",
    adapt=Columns(texts=_NLI, labels=ENTAILMENT),
    stems={"test": ("AX-g", "test")},
)
DPR = Dataset(
    name="definite_pronoun_resolution",
    folder="definite_pronoun_resolution",
    adapt=dpr_columns,
    stems={"train": ("train",), "test": ("test",)},
)


def _task(
    key: str,
    dataset: Dataset,
    labels: tuple[str, ...],
    examples: Callable[[Row], Iterable[Example]],
    metrics: tuple[Metric, ...],
    num_examples: int,
    *,
    splits: tuple[str, ...] = ALL_SPLITS,
) -> ExampleTask:
    return classification_task(
        dataset,
        labels,
        name=f"super_glue_{key}_v102",
        description=f"SuperGLUE {key}",
        examples=examples,
        metrics=metrics,
        num_examples=num_examples,
        splits=splits,
    )


def _keyed(prefix: str, labels: tuple[str, ...], *columns: str) -> KeyedText:
    return KeyedText(prefix=prefix, columns=columns, labels=labels)


_RTE_FORM = _keyed("rte", ENTAILMENT, "hypothesis", "premise")


def axb_examples(row):
    """`rte hypothesis: <sentence2> premise: <sentence1>` -> the class: AX-b's sentences under RTE's
    names."""
    renamed = {**row, "premise": row.text("sentence1"), "hypothesis": row.text("sentence2")}
    return _RTE_FORM(type(row)(renamed, row.place))


_BOOLQ_FORM = _keyed("boolq", FALSE_TRUE, "passage", "question")
_CB_FORM = _keyed("cb", CB_CLASSES, "hypothesis", "premise")
_COPA_FORM = _keyed("copa", COPA_CHOICES, "choice1", "choice2", "premise", "question")
_WIC_FORM = _keyed("wic", FALSE_TRUE, "sentence1", "sentence2", "word")

_PLAIN: tuple[ExampleTask, ...] = (
    DPR.task(
        name="dpr_v001_simple",
        description="Definite Pronoun Resolution in WSC's form",
        examples=dpr_examples,
        metrics=(accuracy,),
        num_examples=1_322,
        splits=("train", "test"),
    ),
    WSC.task(
        name="super_glue_wsc_v102_simple_train",
        description="SuperGLUE wsc: the right referents, to train on",
        examples=WscExamples(correct_referent_only=True),
        num_examples=259,
        splits=("train",),
    ),
    WSC.task(
        name="super_glue_wsc_v102_simple_eval",
        description="SuperGLUE wsc: is the predicted referent the one asked about?",
        examples=WscExamples(correct_referent_only=False),
        postprocess=referent_label,
        metrics=(accuracy,),
        num_examples=0,
        splits=("validation", "test"),
        train_splits=(),
    ),
    _task("boolq", BOOLQ, FALSE_TRUE, _BOOLQ_FORM, (accuracy,), 9_427),
    _task("cb", CB, CB_CLASSES, _CB_FORM, (mean_multiclass_f1(num_classes=3), accuracy), 250),
    _task("copa", COPA, COPA_CHOICES, _COPA_FORM, (accuracy,), 400),
    MULTIRC.task(
        name="super_glue_multirc_v102",
        description="SuperGLUE multirc: one example per answer",
        examples=multirc_examples,
        postprocess=multirc_value,
        metrics=(multirc_f1, group_exact_match),
        choices=FixedChoices(FALSE_TRUE),
        num_examples=27_243,
        splits=ALL_SPLITS,
    ),
    RECORD.task(
        name="super_glue_record_v102",
        description="SuperGLUE record: one training example per right entity",
        examples=record_examples,
        eval_examples=record_eval_examples,
        postprocess=record_value,
        metrics=(record,),
        num_examples=138_854,
        splits=ALL_SPLITS,
    ),
    _task("rte", RTE, ENTAILMENT, _RTE_FORM, (accuracy,), 2_490),
    _task("wic", WIC, FALSE_TRUE, _WIC_FORM, (accuracy,), 5_428),
    _task("axb", AXB, ENTAILMENT, axb_examples, (), 0, splits=("test",)),
    _task("axg", AXG, ENTAILMENT, _RTE_FORM, (), 0, splits=("test",)),
)

TASKS: tuple[ExampleTask, ...] = (*_PLAIN, *(with_sentinel(task) for task in _PLAIN))
