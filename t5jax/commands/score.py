"""`t5jax score WORKDIR`: log-likelihood of targets given their inputs."""

from collections.abc import Sequence
from typing import Any

from t5jax.data.records import Row
from t5jax.data.vocabularies.token_text import TokenTexts
from t5jax.inference import TextOptions
from t5jax.inference.batch_job import ProcessRows
from t5jax.inference.input_rows import InputFiles
from t5jax.inference.loaded_run import LoadedRun
from t5jax.inference.output_records import SCORE_KEYS, score_record
from t5jax.inference.text_job import InputCounts, JobKind, JobOptions, job_settings, run_text_job


def score_command(
    options: JobOptions, inputs: InputFiles, text_options: TextOptions, flags: list[str], *,
    with_tokens: bool,
) -> None:  # fmt: skip
    """Scores the two columns of `inputs`: input and target."""
    kind = JobKind(
        command="score",
        result_keys=SCORE_KEYS,
        settings=lambda run: {
            **job_settings(run, "score", inputs.columns, options),
            "prefix": text_options.prefix,
            "truncate_inputs": text_options.truncate_inputs,
            "tokens": with_tokens,
        },
        process_rows=lambda run, counts: _processor(run, counts, inputs, text_options, with_tokens),
    )
    run_text_job(inputs, kind, options, flags)


def _processor(
    run: LoadedRun, counts: InputCounts, inputs: InputFiles, options: TextOptions, with_tokens: bool
) -> ProcessRows:
    input_column, target_column = inputs.columns
    pieces = TokenTexts(run.config.data.vocabulary).text if with_tokens else None

    def process_rows(rows: Sequence[Row], numbers: Sequence[int]) -> list[dict[str, Any]]:
        del numbers  # nothing is drawn
        texts = [row.text(input_column) for row in rows]
        targets = [row.text(target_column) for row in rows]
        scores = run.texts.score(texts, targets, options)
        for one in scores:
            counts.add_input(one.input_tokens, one.input_truncated, run.texts.trained_length)
        return [
            {**row, **score_record(one, run.step, pieces)}
            for row, one in zip(rows, scores, strict=True)
        ]

    return process_rows
