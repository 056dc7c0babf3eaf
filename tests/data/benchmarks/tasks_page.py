"""The examples in docs/tasks.md: what the tasks make of invented rows.

`python -m tests.data.benchmarks.tasks_page` writes them into the page, into the last cell of
each line; everything else there is written by hand, and checked by test_tasks_page.py.
"""

import json
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any
from unittest import mock

import pyarrow
import pyarrow.parquet
from array_record.python.array_record_module import ArrayRecordWriter

from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS
from t5jax.data.config import DataConfig
from t5jax.data.docstring_corpus import Docstrings
from t5jax.data.inspect.task_preview import preview
from t5jax.data.objectives import OBJECTIVES, UL2_DENOISERS
from t5jax.data.registry import builtin
from t5jax.data.registry.corpora import CORPORA, TEXT_TASKS
from t5jax.data.tasks.task import ExampleTask, Task, TextTask
from t5jax.data.vocabularies import ByteVocabulary, HuggingFaceVocabulary
from tests.data.benchmarks.invented_rows import (
    DOCUMENTS,
    OBJECTIVES_DOCUMENT,
    SENTENCES,
    words,
    write_data_sets,
)
from tests.data.prepared_sets import example, framed, write_prepared

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "tasks.md"
ANY = "CORPUS:"  # in front of an objective, which every corpus can have
NO_EXAMPLE = "–"  # huggingface: the package `datasets` need not be there
_LONGEST = 200  # characters

Settings = Mapping[str, Any]  # fields of DataConfig


# ---- the page


def names_of_objectives() -> list[str]:
    """Those of the table, and UL2's denoisers."""
    return [*OBJECTIVES, *(f"ul2_{denoiser.name}" for denoiser in UL2_DENOISERS)]


def lines_of(page: str) -> dict[str, list[str]]:
    """The cells of a table's line, behind the first one, by each name in that one."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return {name: _cells(line)[1:] for line in lines for name in _names(line)}


def with_examples(page: str) -> str:
    """The page with what the tasks give now."""
    made, lines = examples(), []
    for line in page.splitlines():
        names = [name for name in _names(line) if name in made]
        if names:  # several: of one corpus and objective
            line = f"| {' | '.join([*_cells(line)[:-1], made[names[0]]])} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _names(line: str) -> list[str]:
    return re.findall("`([^`]+)`", _cells(line)[0]) if line.startswith("| `") else []


# ---- the examples


def examples() -> dict[str, str]:
    """`inputs` → `targets`, as Markdown, by task, and by objective as CORPUS:OBJECTIVE."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        write_data_sets(root)
        vocabulary = HuggingFaceVocabulary(path=str(_write_vocabulary(root / "tokenizer.json")))
        texts = {name: _write_corpus(root / "of", name, DOCUMENTS[name]) for name in DOCUMENTS}
        any_text = _write_corpus(root / "any", "jsonl", OBJECTIVES_DOCUMENT)
        found = {
            name: _of_examples(task, _rows_for(task, root))
            for name, task in SUPERVISED_TASKS.items()
        }
        packages = (str(root / "of" / "docstrings"),)  # not those that happen to be installed
        with mock.patch.object(Docstrings, "_folders", return_value=packages):
            found |= {
                name: _of_text(task, vocabulary, texts[task.corpus])
                for name, task in TEXT_TASKS.items()
                if task.corpus in texts
            }
        for name in names_of_objectives():
            found[ANY + name] = _of_text(
                builtin.find_in_table(f"jsonl:{name}"), vocabulary, any_text
            )
    return dict.fromkeys(TEXT_TASKS, NO_EXAMPLE) | found


def _rows_for(task: ExampleTask, root: pathlib.Path) -> Settings:
    corpus, nsp, _ = task.name.partition("_next_sentence")
    return _write_corpus(root / "nsp", corpus, SENTENCES) if nsp else {"datasets_dir": str(root)}


def _of_examples(task: ExampleTask, rows: Settings) -> str:
    vocabulary = ByteVocabulary(extra_ids=100)
    split = (task.train_splits or task.splits)[0]
    return _first(
        task, split, vocabulary=vocabulary, inputs_length=2000, targets_length=500, **rows
    )


def _of_text(task: TextTask, vocabulary: HuggingFaceVocabulary, files: Settings) -> str:
    """The document is all that there is: it fits into one row."""
    return _first(
        task, "train", vocabulary=vocabulary, inputs_length=64, targets_length=64, **files
    )


def _first(task: Task, split: str, **settings: Any) -> str:
    data = DataConfig(mixture=task.name, cache_dir=None, **settings)
    shown = preview(task, data, split=split, num_examples=1).examples[0]
    return f"{_code(shown.inputs_text)} → {_code(shown.targets_text)}"


def _code(text: str) -> str:
    assert not {"|", "`"} & set(text), text
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 60]}…{text[-50:]}"
    return f"`{' ⏎ '.join(text.splitlines())}`" if text else "nothing"


# ---- a corpus of one document


def _write_corpus(folder: pathlib.Path, corpus: str, text: str) -> Settings:
    """The document in the format of a corpus, and the settings that name its file."""
    folder.mkdir(exist_ok=True)
    if corpus == "docstrings":
        _write_packages(folder / corpus, text)
        return {}
    if "tfds_data_dir" in CORPORA[corpus].settings:
        name = _TFDS_NAMES[corpus]
        (path,) = write_prepared(folder / "tfds", name, ["text"], "train", [1])
        path.write_bytes(framed(example({"text": text})))
        return {"tfds_data_dir": str(folder / "tfds")}
    path = folder / f"{corpus}.data"
    if corpus == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), path)
    elif corpus == "arrayrecord":
        writer = ArrayRecordWriter(str(path), "group_size:1")
        writer.write(example({"text": text}))
        writer.close()
    else:
        path.write_bytes(_AS_BYTES.get(corpus, _json_line)(text))
    return {"train_files": (str(path),)}


def _json_line(text: str) -> bytes:
    return json.dumps({"text": text}).encode() + b"\n"


_TFDS_NAMES = {
    "c4": "c4/en",
    "c4_realnewslike": "c4/realnewslike",
    "c4_webtextlike": "c4/webtextlike",
    "c4_noclean": "c4/en.noclean",
    "wikipedia": "wikipedia/20230601.en",
}
_AS_BYTES = {
    "text": lambda text: text.encode(),
    "tsv": lambda text: f"text\n{text}\n".encode(),
    "tfrecord": lambda text: framed(example({"text": text})),
}


def _write_packages(root: pathlib.Path, text: str) -> None:
    """Two of them: the smaller one, which is not shown, is the validation split."""
    other = "It is not to be seen in what the page is to show."
    for package, docstring in (("tickets", text), ("other", other)):
        (root / package).mkdir(parents=True)
        (root / package / "sales.py").write_text(f'"""{docstring}"""\n')


def _write_vocabulary(path: pathlib.Path) -> pathlib.Path:
    """A tokenizer.json whose pieces are the words of all documents, with UL2's modes."""
    modes = dict.fromkeys(denoiser.mode for denoiser in UL2_DENOISERS)
    pieces = ["▁", *(f"{before}{word}" for word in (*modes, *words()) for before in "▁\n")]
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(100))]
    vocabulary = ["<pad>", "</s>", "<unk>", *pieces, *sentinels]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    record = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, "special": True, **special}
            for number, token in enumerate(vocabulary)
            if token.startswith("<")
        ],
        "normalizer": None,
        "pre_tokenizer": spaces,
        "post_processor": None,
        "decoder": spaces,
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "vocab": [[token, -1.0 if token in pieces else 0.0] for token in vocabulary],
            "byte_fallback": False,
        },
    }
    path.write_text(json.dumps(record))
    return path


if __name__ == "__main__":
    PAGE.write_text(with_examples(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
