"""`t5jax predict WORKDIR`: answers texts, fills their blanks `<extra_id_0>`, `<extra_id_1>`, …, or
goes on where they end (a language model that was trained on text alone)."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from t5jax.commands.batch import Counts, JobOptions, Way, answer, describe
from t5jax.data.records import Row
from t5jax.errors import ConfigError
from t5jax.inference import TextOptions
from t5jax.inference.batch_job import ProcessRows
from t5jax.inference.input_rows import CommandLineTexts, InputFiles
from t5jax.inference.loaded_run import LoadedRun
from t5jax.inference.output_records import PREDICTION_KEYS, format_prediction, prediction_record


def run(
    options: JobOptions, texts: Sequence[str], inputs: InputFiles | None, text_options: TextOptions,
    flags: list[str], *, column: str, as_json: bool,
) -> None:  # fmt: skip
    """Answers `texts`, or the rows of `inputs`, or what comes on standard input."""
    if inputs is not None and texts:
        raise ConfigError(
            f"--input {' '.join(inputs.paths)} and {len(texts)} texts on the command line: give one"
        )
    if as_json and options.output is not None:
        raise ConfigError("--json has no effect: a file of --output holds JSON lines")
    if inputs is None and not texts:
        inputs = InputFiles(paths=("-",), columns=(column,))
        if sys.stdin.isatty():
            print("a text a line; the end is Ctrl-D (or see --interactive)", file=sys.stderr)
    way = Way(
        act="predict",
        added=PREDICTION_KEYS,
        describe=lambda run: _describe(run, column, options, text_options),
        answers=lambda run, counts: _answers(run, counts, column, text_options),
        shown=None if as_json else format_prediction,
    )
    answer(inputs or CommandLineTexts(tuple(texts), column), way, options, flags)


def _describe(run: LoadedRun, column: str, options: JobOptions, text_options: TextOptions) -> dict:
    return {
        **describe(run, "predict", [column], options),
        "decoding": dataclasses.asdict(run.config.decoding),
        **dataclasses.asdict(text_options),
    }


def _answers(run: LoadedRun, counts: Counts, column: str, text_options: TextOptions) -> ProcessRows:
    def answers(rows: Sequence[Row], numbers: Sequence[int]) -> list[dict[str, Any]]:
        texts = [row.text(column) for row in rows]
        predictions = run.texts.predict(texts, run.config.decoding, text_options, numbers)
        for text, one in zip(texts, predictions, strict=True):
            counts.add_input(one.input_tokens, one.input_truncated, run.texts.trained_length)
            counts.blank += not text.strip()
            counts.outputs_truncated += sum(not output.ended for output in one.outputs)
        return [
            {**row, **prediction_record(text, one, run.step, run.config.decoding.num_outputs)}
            for row, text, one in zip(rows, texts, predictions, strict=True)
        ]

    return answers
