"""Corpora of plain text, and the tasks that objectives make of them.

`CORPUS:OBJECTIVE` names the task of any corpus here and any objective of `t5jax.data.objectives`
(`c4:prefix_lm`, `docstrings:iid_15_u_u`), `CORPUS:ul2` the mixture of UL2's denoisers over it.
Tasks of one corpus share its tokenised store. T5's own names stand for some of them.
"""

import dataclasses
import re
from collections.abc import Callable

from t5jax.data import objectives
from t5jax.data.config import DataConfig
from t5jax.data.docstring_corpus import Docstrings
from t5jax.data.objectives import UL2_DENOISERS, Denoiser, Objective, SpanCorruption
from t5jax.data.records import Source
from t5jax.data.sources import (
    ArrayRecord,
    Cleaned,
    HuggingFace,
    JsonLines,
    Parquet,
    SplitNames,
    TextFiles,
    Tfds,
    TfRecord,
    Tsv,
)
from t5jax.data.tasks.mixture import Custom, Mixture
from t5jax.data.tasks.task import TextTask
from t5jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Plain text under a name, made from the fields of the data section that it reads."""

    name: str
    description: str
    source: Callable[[DataConfig], Source]
    column: str | None = "text"  # None: data.text_column says
    settings: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()  # settings of what is refused, which change no row
    required: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train", "validation")
    version: int | str = 1

    def task(self, name: str, objective: Objective, *, prefix: str = "") -> TextTask:
        """The task of an objective over this corpus."""
        return TextTask(
            name=name,
            description=self.description,
            corpus=self.name,
            source=self.source,
            objective=objective,
            prefix=prefix,
            column=self.column,
            settings=(*self.settings, *self.policies),
            required=self.required,
            splits=self.splits,
            version=self.version,
        )


_FILES = ("train_files", "validation_files", "test_files")
_OF_LINES = ("max_record_bytes", "blank_lines")  # policies of the sources with a record a line


def _prepared(
    name: str, tfds_name: str, what: str, splits: tuple[str, ...] = ("train", "validation")
) -> Corpus:
    return Corpus(
        name=name,
        description=f"{what}, as TensorFlow Datasets prepared it ({tfds_name})",
        source=lambda data: Tfds(name=tfds_name, data_dir=data.tfds_data_dir),
        settings=("tfds_data_dir",),
        splits=splits,
    )


def _files(
    name: str,
    what: str,
    kind: Callable[..., Source],
    column: str | None = None,
    policies: tuple[str, ...] = (),
) -> Corpus:
    policies = ("empty_files", *policies)
    return Corpus(
        name=name,
        description=what,
        source=lambda data: kind(**{field: getattr(data, field) for field in (*_FILES, *policies)}),
        column=column,
        settings=_FILES if column else (*_FILES, "text_column"),
        policies=policies,
        required=("train_files",),
        splits=("train", "validation", "test"),
    )


CORPORA = {
    corpus.name: corpus
    for corpus in (
        _prepared("c4", "c4/en", "C4 (en)"),
        _prepared("c4_realnewslike", "c4/realnewslike", "C4, pages of news sites"),
        _prepared("c4_webtextlike", "c4/webtextlike", "C4, pages that WebText links to"),
        _prepared("c4_noclean", "c4/en.noclean", "C4 (en) before cleaning"),
        _prepared("wikipedia", "wikipedia/20230601.en", "Wikipedia (en)", ("train",)),
        _files("c4_json", "C4 or mC4 as AllenAI's JSON lines", JsonLines, "text", _OF_LINES),
        _files(
            "text",
            "your .txt files, documents between blank lines",
            TextFiles,
            "text",
            ("max_record_bytes",),
        ),
        _files("jsonl", "your .json(l) files, one object a line", JsonLines, policies=_OF_LINES),
        _files(
            "raw_jsonl",
            "your raw web pages as JSON lines, cleaned by the rules of C4",
            lambda **files: Cleaned(source=JsonLines(**files)),
            "text",
            _OF_LINES,
        ),
        _files("tsv", "your .tsv files, with a header", Tsv, policies=_OF_LINES),
        _files("parquet", "your parquet files", Parquet),
        _files(
            "tfrecord",
            "your TFRecord files of tf.train.Example",
            TfRecord,
            policies=("max_record_bytes",),
        ),
        _files("arrayrecord", "your ArrayRecord files of tf.train.Example", ArrayRecord),
        Corpus(
            name="huggingface",
            description="a data set of the Hugging Face hub, or a folder (needs `datasets`)",
            source=lambda data: HuggingFace(path=data.huggingface_dataset or ""),
            column=None,
            settings=("huggingface_dataset", "text_column"),
            required=("huggingface_dataset",),
        ),
        Corpus(
            name="docstrings",
            description="documentation strings of the installed Python packages; no download",
            source=lambda data: Docstrings(),
        ),
    )
}

# T5's names, and ours of before, for tasks of these corpora.
_T5_NAMES = {
    "c4_v020_unsupervised": ("c4", "span_corruption"),
    "c4_noclean_v020_unsupervised": ("c4_noclean", "span_corruption"),
    "c4_realnewslike_v020_unsupervised": ("c4_realnewslike", "span_corruption"),
    "c4_webtextlike_v020_unsupervised": ("c4_webtextlike", "span_corruption"),
    "wikipedia_20190301.en_v003_unsupervised": ("wikipedia", "span_corruption"),
    "c4_v220_span_corruption": ("c4", "span_corruption"),
    "c4_v220_iid_denoising": ("c4", "iid_denoising"),
    "c4_v220_prefix_lm": ("c4", "prefix_lm"),
    "c4_v220_autoregressive_language_modeling": ("c4", "language_model"),
    "c4_v220_full_lm": ("c4", "full_language_model"),
    "c4_v220_bert_style": ("c4", "bert_style"),
    "c4_v220_deshuffling": ("c4", "deshuffling"),
}

TEXT_TASKS = {
    name: CORPORA[corpus].task(name, objectives.parse_objective(objective))
    for name, (corpus, objective) in _T5_NAMES.items()
} | {
    f"{name}_span_corruption": corpus.task(f"{name}_span_corruption", SpanCorruption())
    for name, corpus in CORPORA.items()
}


_MC4 = re.compile(r"mc4_([a-z]{2,3}(?:-[A-Z][a-z]{3})?)")


def text_task(name: str) -> TextTask | Mixture | None:
    """The task (or UL2 mixture) that `CORPUS:OBJECTIVE` names; None when it is not such a name.

    Raises ConfigError for an objective that does not exist.
    """
    corpus_name, colon, objective = name.partition(":")
    corpus = CORPORA.get(corpus_name) or _language_of_mc4(corpus_name)
    if not colon or corpus is None:
        return None
    if objective == "ul2":
        return _ul2(corpus)
    for denoiser in UL2_DENOISERS:
        if objective == _ul2_name(denoiser):
            return corpus.task(name, denoiser.objective, prefix=f"{denoiser.mode} ")
    if "(" in objective:
        raise ConfigError(
            f"task {name!r}: a name has no settings; give them as data.objective={objective!r}"
        )
    return corpus.task(name, objectives.parse_objective(objective))


def _language_of_mc4(name: str) -> Corpus | None:
    """`mc4_de`, `mc4_zh-Latn`, ...: a language of TFDS's c4/multilingual, by its code there."""
    found = _MC4.fullmatch(name)
    if found is None:
        return None
    names = {"train": found[1], "validation": f"{found[1]}-validation"}
    return Corpus(
        name=name,
        description=f"mC4, {found[1]}, as TensorFlow Datasets prepared it (c4/multilingual)",
        source=lambda data: SplitNames(
            source=Tfds(name="c4/multilingual", data_dir=data.tfds_data_dir), names=names
        ),
        settings=("tfds_data_dir",),
    )


def _ul2(corpus: Corpus) -> Mixture:
    rates = {f"{corpus.name}:{_ul2_name(d)}": d.rate for d in UL2_DENOISERS}
    return Mixture(name=f"{corpus.name}:ul2", tasks=tuple(rates), rate=Custom(weights=rates))


def _ul2_name(denoiser: Denoiser) -> str:
    return f"ul2_{denoiser.name}"
