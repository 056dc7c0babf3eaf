"""`t5jax predict WORKDIR`: generates outputs for texts.

An encoder-decoder answers a text or fills its blanks (`<extra_id_0>`, `<extra_id_1>`, …); a
language model continues it.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from t5jax.data.records import Row
from t5jax.data.vocabularies.one_line import one_line
from t5jax.errors import ConfigError
from t5jax.inference import TextOptions
from t5jax.inference.batch_job import ProcessRows
from t5jax.inference.input_rows import CommandLineTexts, InputFiles
from t5jax.inference.loaded_run import LoadedRun
from t5jax.inference.output_records import (
    PREDICTION_KEYS,
    format_prediction,
    format_prediction_raw,
    prediction_record,
    printed_texts,
)
from t5jax.inference.text_job import InputCounts, JobKind, JobOptions, job_settings, run_text_job


def predict_command(
    options: JobOptions, texts: Sequence[str], inputs: InputFiles | None, text_options: TextOptions,
    flags: list[str], *, column: str, as_json: bool, raw: bool = False,
) -> None:  # fmt: skip
    """Predicts for `texts`, for the rows of `inputs`, or for lines of standard input."""
    if inputs is not None and texts:
        raise ConfigError(
            f"--input {' '.join(inputs.paths)} and {len(texts)} texts on the command line: give one"
        )
    if as_json and options.output is not None:
        raise ConfigError("--json has no effect: a file of --output holds JSON lines")
    if raw and (as_json or options.output is not None):
        raise ConfigError("--raw has no effect on JSON lines: leave out --json and --output")
    if inputs is None and not texts:
        inputs = InputFiles(paths=("-",), columns=(column,))
        if sys.stdin.isatty():
            print("a text a line; the end is Ctrl-D (or see --interactive)", file=sys.stderr)
    in_lines = options.output is None and not as_json and not raw
    kind = JobKind(
        command="predict",
        result_keys=PREDICTION_KEYS,
        settings=lambda run: _settings(run, column, options, text_options),
        process_rows=lambda run, counts: _processor(run, counts, column, text_options, in_lines),
        format_record=None if as_json else format_prediction_raw if raw else format_prediction,
    )
    run_text_job(inputs or CommandLineTexts(tuple(texts), column), kind, options, flags)


def _settings(run: LoadedRun, column: str, options: JobOptions, text_options: TextOptions) -> dict:
    return {
        **job_settings(run, "predict", [column], options),
        "decoding": dataclasses.asdict(run.config.decoding),
        **dataclasses.asdict(text_options),
    }


def _processor(
    run: LoadedRun, counts: InputCounts, column: str, text_options: TextOptions, in_lines: bool
) -> ProcessRows:
    """`in_lines`: the outputs are printed, a line each."""

    def process_rows(rows: Sequence[Row], numbers: Sequence[int]) -> list[dict[str, Any]]:
        texts = [row.text(column) for row in rows]
        predictions = run.texts.predict(texts, run.config.decoding, text_options, numbers)
        for text, one in zip(texts, predictions, strict=True):
            counts.add_input(one.input_tokens, one.input_truncated, run.texts.trained_length)
            counts.blank += not text.strip()
            counts.outputs_truncated += sum(not output.ended for output in one.outputs)
        records = [
            {**row, **prediction_record(text, one, run.step, run.config.decoding.num_outputs)}
            for row, text, one in zip(rows, texts, predictions, strict=True)
        ]
        for text in (text for record in records for text in printed_texts(record)):
            counts.outputs_printed += 1
            counts.outputs_escaped += in_lines and one_line(text) != text
        return records

    return process_rows
