"""Translation as `translate English to German: <text>`: the WMT tasks of T5, and any other pair."""

import dataclasses
from collections.abc import Iterator

from t5jax.data.benchmarks.datasets import Dataset
from t5jax.data.benchmarks.glue import ALL_SPLITS
from t5jax.data.records import Row
from t5jax.data.tasks.task import Example, ExampleTask
from t5jax.errors import ConfigError
from t5jax.metrics.translation import bleu

# English names, as babel gives them to T5, by the first two letters of a code (`zh-cn` is `zh`).
LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fi": "Finnish",
    "fr": "French",
    "gu": "Gujarati",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "kk": "Kazakh",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}


def language_name(code: str) -> str:
    """The English name of a language code. Raises ConfigError for one that is not in the table."""
    name = LANGUAGES.get(code[:2])
    if name is None:
        raise ConfigError(
            f"language {code!r} has no name here: choose one of {', '.join(LANGUAGES)}, or add it "
            "to t5jax.data.benchmarks.translation.LANGUAGES"
        )
    return name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Translate:
    """`translate <language> to <language>: <text>` -> the translation, from columns named by
    language codes."""

    source_language: str
    target_language: str

    def __call__(self, row: Row) -> Iterator[Example]:
        source, target = language_name(self.source_language), language_name(self.target_language)
        yield {
            "inputs": f"translate {source} to {target}: {row.text(self.source_language)}",
            "targets": row.text(self.target_language),
        }


def translation_columns(row: Row, number: int) -> Iterator[Row]:
    """Files have a column per language code, or one object `translation` that has them."""
    nested = row.get("translation")
    yield Row(nested, row.place) if isinstance(nested, dict) else row


def translation(
    name: str,
    source_language: str,
    target_language: str,
    dataset: Dataset,
    *,
    num_examples: int | None = None,
    splits: tuple[str, ...] = ALL_SPLITS,
) -> ExampleTask:
    """A translation task between two columns of a data set, scored with BLEU.

    Raises ConfigError for a language without a name.
    """
    description = f"{language_name(source_language)} to {language_name(target_language)}"
    return dataset.task(
        name=name,
        description=f"{description}: {dataset.name}",
        examples=Translate(source_language=source_language, target_language=target_language),
        metrics=(bleu,),
        num_examples=num_examples,
        splits=splits,
    )


def parallel_text(name: str, *, in_tfds: bool = True) -> Dataset:
    """A data set of sentence pairs: TFDS's `name`, or files in `translation/<name>/`."""
    return Dataset(
        name=name, folder=f"translation/{name}", adapt=translation_columns, in_tfds=in_tfds
    )


MULTI30K = parallel_text("multi30k", in_tfds=False)

# Training sizes: the data sets' cards at Hugging Face (the same builders as TFDS's); wmt_t2t as
# the TFDS catalog has it. TFDS's own counts of WMT14, 15 and 19 differ by up to a tenth with the
# releases of their parts.
_WMT = (
    ("wmt14_ende_v003", "de", "wmt14_translate/de-en", 4_508_785, ALL_SPLITS),
    ("wmt14_enfr_v003", "fr", "wmt14_translate/fr-en", 40_836_715, ALL_SPLITS),
    ("wmt16_enro_v003", "ro", "wmt16_translate/ro-en", 610_320, ALL_SPLITS),
    ("wmt15_enfr_v003", "fr", "wmt15_translate/fr-en", 40_853_137, ALL_SPLITS),
    ("wmt19_ende_v003", "de", "wmt19_translate/de-en", 34_782_245, ("train", "validation")),
    ("wmt_t2t_ende_v003", "de", "wmt_t2t_translate/de-en", 4_592_289, ALL_SPLITS),
)
TASKS: tuple[ExampleTask, ...] = (
    *(
        translation(name, "en", to, parallel_text(dataset), num_examples=number, splits=splits)
        for name, to, dataset, number, splits in _WMT
    ),
    # Elliott et al. 2016: 29,000 captions of pictures in three languages; not T5's, but small.
    translation("multi30k_ende", "en", "de", MULTI30K, num_examples=29_000),
    translation("multi30k_enfr", "en", "fr", MULTI30K, num_examples=29_000),
    translation("multi30k_deen", "de", "en", MULTI30K, num_examples=29_000),
)
