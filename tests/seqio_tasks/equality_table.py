"""The table in docs/seqio.md: the first real examples of each task, by seqio and by t5jax.

    T5JAX_TEST_DATA=FOLDER python -m tests.seqio_tasks.equality_table

writes it into the page. seqio's side is `seqio.get_mixture_or_task(name).get_dataset(...)` of what
`register` registers; t5jax's is its loader (ids, trimmed, with EOS) and its texts.
"""

import itertools
import os
import pathlib
import tempfile
from typing import NamedTuple

import numpy as np

from t5jax.data import registry
from t5jax.data.benchmarks.mixtures import MIXTURES
from t5jax.data.config import DataConfig
from t5jax.data.registry.texts import task_documents
from t5jax.data.tasks.mixture import shares
from t5jax.data.tasks.task import Task, TextTask
from t5jax.data.tensorflow_import import import_seqio
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.seqio_tasks import register
from tests.data.benchmarks.real_folders import link_data_sets, text_settings, write_texts
from tests.data.benchmarks.real_runs import RUNS, TEXT_RUNS
from tests.data.pipeline.loaders import open_in_order

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "seqio.md"
BEGIN, END = "<!-- equality -->\n", "<!-- end -->\n"
COUNT = 100
LENGTHS = {"inputs": 256, "targets": 62}
C4_EXAMPLES = 364_613_570  # of c4/en 3.0.1; for rates by size, wherever it is not at hand


class Line(NamedTuple):
    """A task (or mixture), its split, how many examples were compared and are equal."""

    name: str
    split: str
    compared: int
    equal: int


def runs(real_data: pathlib.Path, root: pathlib.Path) -> list[tuple[str, str, DataConfig]]:
    """(task, split, data section) of everything that there are rows for; files below `root`."""
    vocabulary = SentencePieceVocabulary(path=str(real_data / "tokenizer/t5/spiece.model"))
    (root / "sets").mkdir()
    (root / "texts").mkdir()
    link_data_sets(real_data, root / "sets")
    write_texts(real_data, root / "texts")
    found = [(name, split, {"datasets_dir": str(root / "sets")}) for name, split, *_ in RUNS]
    for name, split, _, more in TEXT_RUNS:
        required = registry.find_builtin(name).required
        found.append((name, split, text_settings(root / "texts", required, more)))
    return [(name, split, _data(name, vocabulary, more)) for name, split, more in found]


def _data(name: str, vocabulary: SentencePieceVocabulary, settings: dict) -> DataConfig:
    is_text = isinstance(registry.find_builtin(name), TextTask)
    return DataConfig(
        mixture=name,
        vocabulary=vocabulary,
        inputs_length=LENGTHS["inputs"],
        targets_length=LENGTHS["targets"],
        pack=is_text,
        cache_dir=None,
        **settings,
    )


def compare(name: str, split: str, data: DataConfig) -> Line:
    """The first COUNT examples of a task; of plain text, documents."""
    settings = ("train_files", "validation_files", "text_column", "tfds_data_dir", "datasets_dir")
    register(
        [name], vocabulary=data.vocabulary, **{field: getattr(data, field) for field in settings}
    )
    task = import_seqio().get_mixture_or_task(name)
    definition = registry.find_task(name, data)
    if isinstance(definition, TextTask):
        expected, found = _documents(definition, split, data), _documents_of_seqio(task, split)
    else:
        expected, found = _examples(definition, split, data), _examples_of_seqio(task, split)
    if len(expected) != len(found):
        return Line(name, split, max(len(expected), len(found)), 0)
    equal = sum(map(_equal, expected, found))
    return Line(name, split, len(expected), equal)


def _equal(one: tuple, other: tuple) -> bool:
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
        for a, b in zip(one, other, strict=True)
    )


def _texts(task: Task, split: str, data: DataConfig) -> list[dict]:
    documents = task_documents(task, data)
    every = (x for shard in documents.shards(split) for x in documents.documents(split, shard))
    return list(itertools.islice(every, COUNT))


def _examples(task: Task, split: str, data: DataConfig) -> list[tuple]:
    texts = _texts(task, split, data)
    loader = open_in_order(data, split, batch_size=len(texts), num_rows=len(texts))[task.name]
    batch = loader.rows(0)
    return [
        (text["inputs"], text["targets"], np.trim_zeros(inputs, "b"), np.trim_zeros(targets, "b"))
        for text, inputs, targets in zip(
            texts, batch["encoder_input_tokens"], batch["decoder_target_tokens"], strict=True
        )
    ]


def _examples_of_seqio(task, split: str) -> list[tuple]:
    dataset = task.get_dataset(LENGTHS, split, shuffle=False, try_in_mem_cache=False)
    return [
        (
            row["inputs_pretokenized"].decode(),
            row["targets_pretokenized"].decode(),
            row["inputs"],
            row["targets"],
        )
        for row in dataset.take(COUNT).as_numpy_iterator()
    ]


def _documents(task: Task, split: str, data: DataConfig) -> list[tuple]:
    texts = _texts(task, split, data)
    return [(data.vocabulary.encode(text["text"], sentinels=False),) for text in texts]


def _documents_of_seqio(task, split: str) -> list[tuple]:
    """Before the objective: with it they are one stream, and its noise is random."""
    dataset = task.preprocess_precache(task.source.get_dataset(split, shuffle=False), seed=0)
    return [(row["targets"],) for row in dataset.take(COUNT).as_numpy_iterator()]


def compare_rates(name: str, vocabulary: SentencePieceVocabulary) -> Line:
    """The shares of a mixture's tasks; sizes are the published ones."""
    from unittest import mock

    from t5jax.data.sources import Tfds

    seqio, data = import_seqio(), DataConfig(mixture=name, vocabulary=vocabulary, cache_dir=None)
    tasks = {task.name: task for task in registry.definitions_of(name, data).tasks}
    sizes = {
        task.name: getattr(task, "num_examples", C4_EXAMPLES) or 0 if "train" in task.splits else 0
        for task in tasks.values()
    }
    expected = shares(MIXTURES[name], sizes)
    register([name], vocabulary=vocabulary)
    mixture = seqio.get_mixture_or_task(name)
    with mock.patch.object(Tfds, "num_records", return_value=C4_EXAMPLES):
        rates = {task: mixture.get_rate(seqio.TaskRegistry.get(task)) for task in tasks}
    trained = {task: rate for task, rate in rates.items() if "train" in tasks[task].splits}
    total = sum(trained.values())
    equal = [abs(rate / total - expected.get(task, 0.0)) < 1e-12 for task, rate in trained.items()]
    return Line(name, "rates of tasks", len(equal), sum(equal))


def table(lines: list[Line]) -> str:
    rows = [f"| `{x.name}` | {x.split} | {x.compared} | {x.equal} |" for x in lines]
    return "\n".join(["| name | split | compared | equal |", "|---|---|---|---|", *rows]) + "\n"


def main() -> None:
    real_data = pathlib.Path(os.environ["T5JAX_TEST_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        found = runs(real_data, pathlib.Path(folder))
        lines = []
        for name, split, data in found:
            lines.append(compare(name, split, data))
            print(*lines[-1], flush=True)
        lines += [compare_rates(name, found[0][2].vocabulary) for name in MIXTURES]
    write_page(lines)


def write_page(lines: list[Line]) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(lines) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
