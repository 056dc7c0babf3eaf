"""`t5jax predict WORKDIR`: answers texts, fills their blanks `<extra_id_0>`, `<extra_id_1>`, …, or
goes on where they end (a language model that was trained on text alone)."""

import json
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

import numpy as np

from t5jax.acts.saved_run import SavedRun, open_run
from t5jax.config import RunConfig
from t5jax.data.config import tasks_of
from t5jax.data.conversion import converter_for
from t5jax.decoding import DecodingConfig, Generator
from t5jax.errors import ConfigError, DataError

_BLANK = re.compile(r"\s*<extra_id_(\d+)>")


def run(
    workdir: str, texts: list[str], flags: list[str], *, file: str | None, step: int | None,
    max_length: int, batch_size: int, as_json: bool,
) -> None:  # fmt: skip
    if file is not None and texts:
        raise ConfigError(f"--file {file} and {len(texts)} texts on the command line: give one")
    if file is not None and not pathlib.Path(file).is_file():
        raise DataError(f"--file {file}: there is no such file")
    for name, value in (("--batch-size", batch_size), ("--max-length", max_length)):
        if value < 1:
            raise ConfigError(f"{name} {value}: at least 1")
    saved = open_run(workdir, step, flags, act="predict")
    if file is not None:
        with open(file, encoding="utf-8") as lines:
            _answer(saved, _lines(lines), max_length, batch_size, as_json)
    else:
        _answer(saved, texts or _lines(sys.stdin), max_length, batch_size, as_json)


def _answer(saved, texts: Iterable[str], max_length, batch_size, as_json) -> None:
    for text, output in predict(saved, texts, max_length=max_length, batch_size=batch_size):
        if as_json:
            record = {"input": text, "output": output, "filled": fill(text, output)}
            print(json.dumps(record, ensure_ascii=False), flush=True)
        else:
            print(fill(text, output) if _BLANK.search(text) else output, flush=True)


def predict(
    saved: SavedRun, texts: Iterable[str], *, max_length: int, batch_size: int
) -> Iterator[tuple[str, str]]:
    """(text, the model's output as text) in the order of `texts`; greedy, at most `max_length`."""
    vocabulary, end = saved.config.data.vocabulary, _end_of_inputs(saved.config)
    generator = Generator(
        saved.program, saved.params, num_ids=vocabulary.vocab_size, batch_size=batch_size
    )
    for batch in _batches(texts, batch_size):
        rows = [np.append(vocabulary.encode(text), end) for text in batch]
        outputs = generator.generate(rows, DecodingConfig(max_length=max_length))
        for text, (output,) in zip(batch, outputs, strict=True):
            yield text, vocabulary.decode(output.ids)


def _end_of_inputs(config: RunConfig) -> np.ndarray:
    """int32 ids that stand behind a text: EOS, or nothing where the model goes on with it."""
    architecture, data = config.model.architecture, config.data
    reads_inputs = architecture != "decoder_only" or (
        converter_for(architecture, tasks_of(data), data) != "lm"
    )
    return np.array([data.vocabulary.eos_id] * reads_inputs, np.int32)


def fill(text: str, output: str) -> str:
    """The text with its blanks replaced by what the output says after each sentinel.

    A blank that the output does not mention stays as it is.
    """
    pieces = re.split(r"<extra_id_(\d+)>", output)
    spans = dict(zip(pieces[1::2], pieces[2::2], strict=True))

    def span(blank: re.Match) -> str:
        found = spans.get(blank[1])
        if found is None:
            return blank[0]
        return f"{_space(blank[0], found)}{found.strip()}"

    return _BLANK.sub(span, text)


def _space(blank: str, found: str) -> str:
    """White space before the blank, unless the span continues a word or is punctuation."""
    leading = blank[: len(blank) - len(blank.lstrip())]
    return leading if not re.match(r"[,.;:!?)\]]", found.strip()) else ""


def _lines(lines: TextIO) -> Iterator[str]:
    for line in lines:
        if line.strip():
            yield line.rstrip("\n")


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
