"""Batch inference over texts: what `t5jax predict` and `t5jax score` share.

A job reads rows of files, of the command line or of standard input, and writes a record for each.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax

from t5jax import runtime
from t5jax.data.records import Row
from t5jax.errors import ConfigError
from t5jax.inference.batch_job import (
    JobMonitor,
    ProcessRows,
    StreamWriter,
    check_same_rows,
    num_shard_rows,
    parse_shard,
    run_batch_job,
)
from t5jax.inference.input_rows import (
    CommandLineTexts,
    InputSummary,
    check_column_names,
    scan_rows,
)
from t5jax.inference.loaded_run import LoadedRun, load_with_flags
from t5jax.inference.output_file import OutputFile, shard_path
from t5jax.tracking.progress import CountProgress

_BATCHES_OF_A_WINDOW = 16  # rows are batched by length within a window


class RowSource(Protocol):
    """Input rows; those of standard input can be read only once."""

    @property
    def from_stdin(self) -> bool: ...
    def rows(self) -> Iterator[Row]: ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """Command-line options of both commands."""

    workdir: str
    step: int | None = None
    ensemble: tuple[str, ...] = ()
    batch_size: int = 32
    output: str | None = None  # None: standard output
    overwrite: bool = False
    shard: str | None = None  # "I/N"
    take_over: bool = False  # whoever is said to write the output is dead

    def __post_init__(self) -> None:
        parse_shard(self.shard)
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size {self.batch_size}: at least 1")
        given_of = {
            "--shard": self.shard,
            "--overwrite": self.overwrite,
            "--take-over": self.take_over,
        }
        for flag, given in given_of.items():
            if given and self.output is None:
                raise ConfigError(f"{flag} has no effect without --output FILE")


@dataclasses.dataclass(slots=True)
class InputCounts:
    """Numbers of blank, long and truncated rows, for the warnings at the end."""

    rows: int = 0
    blank: int = 0
    long: int = 0  # longer than inputs were in training
    longest: int = 0  # tokens of an input, as the model read it
    inputs_truncated: int = 0
    outputs_truncated: int = 0
    outputs_printed: int = 0  # as lines of text
    outputs_escaped: int = 0  # of these, with line ends, or what could be taken for escaped ones

    def add_input(self, tokens: int, truncated: bool, trained_length: int) -> None:
        self.rows += 1
        self.long += tokens > trained_length
        self.longest = max(self.longest, tokens)
        self.inputs_truncated += truncated

    def warnings(self, trained_length: int, max_length: int) -> list[str]:
        of, lines = f"of {self.rows:,} inputs", []
        if self.blank:
            lines.append(f"{self.blank:,} {of} blank: their output is empty")
        if self.inputs_truncated:
            lines.append(f"{self.inputs_truncated:,} {of} cut (--truncate-inputs)")
        if self.long:
            lines.append(
                f"{self.long:,} {of} longer than the {trained_length} tokens of training (up to "
                f"{self.longest}): read whole; --truncate-inputs {trained_length} cuts them"
            )
        if self.outputs_truncated:
            outputs = "output" if self.outputs_truncated == 1 else "outputs"
            cut = f"{self.outputs_truncated:,} {outputs} cut"
            lines.append(f"{cut} at --decoding.max-length {max_length}")
        if self.outputs_escaped:
            lines.append(
                f"{self.outputs_escaped:,} of {self.outputs_printed:,} outputs hold line ends: "
                r"written as \n, \r or \u2028 (and \ before n, r, u or \ as \\), each in one line; "
                "--json or --output FILE gives JSON lines, --raw the outputs as they are"
            )
        return lines


class JobKind(NamedTuple):
    """How a command makes records of rows."""

    command: str
    result_keys: frozenset[str]  # of a record, beside the columns of its row
    settings: Callable[[LoadedRun], dict[str, Any]]  # all that determines the records
    process_rows: Callable[[LoadedRun, InputCounts], ProcessRows]
    format_record: Callable[[dict[str, Any]], str] | None = None  # on standard output; None: JSON


def run_text_job(source: RowSource, kind: JobKind, options: JobOptions, flags: list[str]) -> None:
    """Runs the job. Errors in the input are raised before the model is read, and so is LeaseHeld
    where another job is writing the output."""
    scanned = None if source.from_stdin else scan_rows(source.rows(), kind.result_keys)
    with contextlib.ExitStack() as job:
        run = load_with_flags(
            options.workdir,
            options.step,
            flags,
            options.ensemble,
            command=kind.command,
            batch_size=options.batch_size,
            before_parameters=lambda: job.enter_context(_owning_output(kind, options)),
        )
        _run(run, source, scanned, kind, options)


def _owning_output(kind: JobKind, options: JobOptions) -> contextlib.AbstractContextManager[None]:
    path = _output_path(options)
    if path is None:
        return contextlib.nullcontext()
    return runtime.owned(path, f"t5jax {kind.command}", beside=True, take_over=options.take_over)


def _run(
    run: LoadedRun,
    source: RowSource,
    scanned: InputSummary | None,
    kind: JobKind,
    options: JobOptions,
) -> None:
    """The job with the model that has been read."""
    monitor = JobMonitor()
    run.texts.generator.after_batch = monitor.after_batch
    _check_processes(options, source)
    shard = parse_shard(options.shard)
    if scanned is not None:
        check_same_rows(scanned.num_rows, scanned.checksum)
    output = _writer(run, kind, options) if jax.process_index() == 0 else None
    counts = InputCounts()
    batches = 1 if source.from_stdin else _BATCHES_OF_A_WINDOW
    num_rows = None if scanned is None else num_shard_rows(scanned.num_rows, shard)
    with monitor.running(run.config.runtime, resumable=options.output is not None):
        run_batch_job(
            check_column_names(source.rows(), kind.result_keys),
            kind.process_rows(run, counts),
            output,
            window=batches * run.texts.batch_size,
            shard=shard,
            progress=_progress(num_rows, source, options),
        )
    if jax.process_index() == 0:
        max_length = run.config.decoding.max_length
        for line in counts.warnings(run.texts.trained_length, max_length):
            print(line, file=sys.stderr)


def job_settings(
    run: LoadedRun, command: str, columns: Sequence[str], options: JobOptions
) -> dict[str, Any]:
    """The settings that determine a job's records, common to all commands."""
    return {
        "command": command,
        "checkpoints": [f"{one.workdir}, step {one.step}" for one in run.members],
        "steps": [one.step for one in run.members],
        "parameters": [one.fingerprint for one in run.members],
        "vocabulary": run.config.data.vocabulary.fingerprint,
        "dtype": run.config.model.dtype,
        "columns": list(columns),
        "shard": list(parse_shard(options.shard)),
    }


def _check_processes(options: JobOptions, source: RowSource) -> None:
    if jax.process_count() == 1:
        return
    if source.from_stdin:
        raise ConfigError("standard input is that of one process: give a file with --input")
    if options.shard is not None:
        raise ConfigError(
            f"--shard {options.shard}: the {jax.process_count()} processes of this job share the "
            "rows of every batch already; shards are for jobs of one process"
        )


def _writer(run: LoadedRun, kind: JobKind, options: JobOptions) -> OutputFile | StreamWriter:
    path = _output_path(options)
    if path is None:
        return StreamWriter(sys.stdout, kind.format_record)
    return OutputFile(path, kind.settings(run), kind.result_keys, overwrite=options.overwrite)


def _output_path(options: JobOptions) -> str | None:
    if options.output is None:
        return None
    return shard_path(options.output, parse_shard(options.shard) if options.shard else None)


def _progress(num_rows: int | None, source: RowSource, options: JobOptions) -> CountProgress | None:
    """On the process that writes; not for a few texts, nor between outputs on a terminal."""
    few = isinstance(source, CommandLineTexts)
    if jax.process_index() != 0 or few or (options.output is None and sys.stdout.isatty()):
        return None
    return CountProgress(sys.stderr, num_rows, "rows")
