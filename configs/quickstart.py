"""A small T5 that learns three tasks at once from the documentation of installed packages.

Command:   make quickstart, whose steps are in the Makefile
Hardware:  2 CPU cores
Data:      documentation strings of ten Python packages that every installation has
Result:    docs/benchmarks.md has the figures

An example of tasks of one's own: a task is a source of rows, and a function from a row to an input
and a target; plain text has an objective instead.
"""

import re
import zlib
from collections.abc import Callable, Iterator

from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.objectives import SpanCorruption
from t5jax.data.registry import add_mixture, add_task
from t5jax.data.sources import JsonLines
from t5jax.data.tasks import Custom, ExampleTask, Mixture, Row, TextTask
from t5jax.data.tasks.task import Example
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.decoding import DecodingConfig
from t5jax.evaluation.config import EvaluationConfig
from t5jax.metrics.classification import accuracy
from t5jax.model.config import T5Config
from t5jax.training.optimizers import AdamW
from t5jax.training.schedules import Cosine

FOLDER = "runs/data/quickstart"
WORDS = frozenset(  # frequent nouns of such texts
    re.findall(
        r"\w+",
        """array axis batch class data default dictionary dimension distribution dtype element
        elements error file function graph index input integer length list matrix method model name
        number object output path sequence shape size string tensor tuple type value values variable
        vector""",
    )
)


def parameter_type(row: Row) -> Iterator[Example]:
    """Which type has the parameter that a sentence describes?"""
    yield {"inputs": f"type: {row.text('text')}", "targets": row.text("type")}


def package(row: Row) -> Iterator[Example]:
    """In which package's documentation does a sentence stand?"""
    yield {"inputs": f"package: {row.text('text')}", "targets": row.text("package")}


def hidden_word(row: Row) -> Iterator[Example]:
    """Which of WORDS is hidden? Of several, the text's checksum chooses; without any, there is no
    example."""
    text = row.text("text")
    words = [found for found in re.finditer(r"\b[a-z]+\b", text) if found[0] in WORDS]
    if words:
        word = words[zlib.crc32(text.encode()) % len(words)]
        yield {
            "inputs": f"{text[: word.start()]}<extra_id_0>{text[word.end() :]}",
            "targets": f"<extra_id_0> {word[0]}",
        }


def source(name: str, *splits: str) -> Callable[[DataConfig], JsonLines]:
    """The files of that name that t5jax.data.docstring_corpus.rows has written."""
    files = {f"{split}_files": (f"{FOLDER}/text/{split}/{name}.jsonl",) for split in splits}
    return lambda data: JsonLines(**files)


add_task(
    TextTask(
        name="sentences",
        description="sentences of documentation strings, with T5's span corruption",
        corpus="sentences",
        source=source("sentences", "train", "validation"),
        objective=SpanCorruption(),
    )
)
for function, files in (
    (hidden_word, "sentences"),
    (parameter_type, "types"),
    (package, "packages"),
):
    add_task(
        ExampleTask(
            name=function.__name__,
            description=function.__doc__ or "",
            source=source(files, "train", "validation"),
            examples=function,
            metrics=(accuracy,),
        )
    )
SHARES = {"sentences": 0.15, "hidden_word": 0.35, "parameter_type": 0.2, "package": 0.3}
add_mixture(Mixture(name="quickstart", tasks=tuple(SHARES), rate=Custom(weights=SHARES)))


def config() -> RunConfig:
    return RunConfig(
        workdir="runs/quickstart",
        model=T5Config(
            vocab_size=2176,  # 2000 pieces, 100 sentinels, up to a multiple of 128
            emb_dim=128,
            num_heads=4,
            head_dim=32,
            mlp_dim=256,
            num_encoder_layers=1,
            num_decoder_layers=1,
            dtype="float32",
            unroll_layers="all",
        ),
        data=DataConfig(
            mixture="quickstart",
            modules=(__name__,),
            vocabulary=SentencePieceVocabulary(path=f"{FOLDER}/vocabulary.model"),
            inputs_length=48,
            targets_length=12,
            cache_dir=FOLDER,
        ),
        train=TrainConfig(
            num_train_steps=2000,
            batch_size=32,
            eval_every_steps=1000,
            num_eval_rows=512,
        ),
        optimizer=AdamW(learning_rate=2e-2, rms_scaled=True, schedule=Cosine(warmup_steps=50)),
        checkpoints=CheckpointConfig(save_every_steps=1000),
        decoding=DecodingConfig(max_length=16),
        evaluation=EvaluationConfig(num_examples=1000, batch_size=128),
    )
