"""GLUE (Wang et al. 2019) as T5 writes it: prefixes, class names, metrics and sizes.

Names are those of T5's registry. Sizes of the training splits are the weights of T5's
`glue_v002_proportional`; a task without a training split has 0.
"""

from t5jax.data.benchmarks.classification import Columns, KeyedText, classification_task, same_name
from t5jax.data.benchmarks.datasets import Dataset
from t5jax.data.benchmarks.stsb import (
    UNLABELLED_SIMILARITY,
    similarity_examples,
    similarity_of_text,
)
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
        texts=same_name("question1", "question2"), labels=DUPLICATE, label=("label", "is_duplicate")
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
    metrics: tuple[Metric, ...],
    num_examples: int,
    *,
    prefix: str | None = None,
    splits: tuple[str, ...] = ALL_SPLITS,
) -> ExampleTask:
    return classification_task(
        dataset,
        labels,
        name=f"glue_{key}_v002",
        description=f"GLUE {key}",
        examples=KeyedText(prefix=prefix or key, columns=columns, labels=labels),
        metrics=metrics,
        num_examples=num_examples,
        splits=splits,
    )


def _mnli(
    key: str,
    dataset: Dataset,
    num_examples: int,
    splits: tuple[str, ...],
    metrics: tuple[Metric, ...] = (accuracy,),
) -> ExampleTask:
    """Columns by name, sorted, as T5 sorts every task's."""
    columns = ("hypothesis", "premise")
    return _task(
        key, dataset, THREE_WAY, columns, metrics, num_examples, prefix="mnli", splits=splits
    )


_EVALUATED = ("validation", "test")

TASKS: tuple[ExampleTask, ...] = (
    _task("cola", COLA, ACCEPTABLE, ("sentence",), (matthews_corrcoef,), 8_551),
    _task("sst2", SST2, SENTIMENT, ("sentence",), (accuracy,), 67_349),
    _task("mrpc", MRPC, EQUIVALENT, ("sentence1", "sentence2"), (f1, accuracy), 3_668),
    _task("qqp", QQP, DUPLICATE, ("question1", "question2"), (f1, accuracy), 363_849),
    STSB.task(
        name="glue_stsb_v002",
        description="GLUE stsb: similarity of two sentences, 0.0 to 5.0",
        examples=similarity_examples,
        postprocess=similarity_of_text,
        unlabelled=UNLABELLED_SIMILARITY,
        metrics=(pearson_corrcoef, spearman_corrcoef),
        num_examples=5_749,
        splits=ALL_SPLITS,
    ),
    _mnli("mnli", MNLI, 392_702, tuple(_MNLI_STEMS)),
    _task("qnli", QNLI, ENTAILMENT, ("question", "sentence"), (accuracy,), 104_743),
    _task("rte", RTE, ENTAILMENT, ("sentence1", "sentence2"), (accuracy,), 2_490),
    _mnli("mnli_mismatched", mnli_half("mismatched"), 0, _EVALUATED),
    _mnli("mnli_matched", mnli_half("matched"), 0, _EVALUATED),
    _mnli("ax", AX, 0, ("test",), metrics=()),
    _task("wnli", WNLI_DATA, WNLI, ("sentence1", "sentence2"), (accuracy,), 635),
    WNLI_DATA.task(
        name="glue_wnli_v002_simple_eval",
        description="GLUE wnli in WSC's form, for evaluation only",
        examples=wnli_examples,
        postprocess=referent_label,
        metrics=(accuracy,),
        num_examples=0,
        splits=_EVALUATED,
        train_splits=(),
    ),
)
