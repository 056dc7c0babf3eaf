"""`t5jax convert SOURCE TARGET`: foreign checkpoints to runs, runs to Hugging Face's format.

Arrays are converted in blocks, and the logits of both models are compared at the end.
"""

import contextlib
import ctypes
import dataclasses
import pathlib
import re
import sys
import time

import jax

from t5jax import runtime
from t5jax.checkpoints import BlockArray
from t5jax.commands.target_folder import TargetFolder
from t5jax.convert.conversion_report import JSON, TEXT, ConversionReport, ConvertedArray
from t5jax.convert.detect import detect_format, open_source_checkpoint
from t5jax.convert.forward import model_logits
from t5jax.convert.huggingface import open_huggingface, write_huggingface
from t5jax.convert.peft_directory import check_written, open_lora_run, write_peft
from t5jax.convert.probe_inputs import ProbeInputs
from t5jax.convert.raw_files import dtype_named
from t5jax.convert.run_directory import CHECKPOINTS, open_run_directory, write_run
from t5jax.convert.source_checkpoint import SourceCheckpoint, fit_to_vocabulary
from t5jax.convert.text_check import check_text
from t5jax.convert.tokenizers import vocabulary_by_name
from t5jax.convert.verify import (
    Reference,
    ReferenceModel,
    check_logits,
    compare_arrays,
    write_golden,
)
from t5jax.data.vocabularies import ByteVocabulary, Vocabulary
from t5jax.data.vocabularies.source_check import check_against_source
from t5jax.errors import CheckpointError, ConfigError
from t5jax.paths import check_written_run, written_path
from t5jax.run.provenance import environment
from t5jax.tracking.progress import text_bar

_BYT5_ROWS = 384
# What a reader looks for first, by the target's kind: in a bucket it is written last.
_LAST = {"t5jax": "config.txt", "huggingface": "config.json", "peft": "adapter_config.json"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    to: str | None = None  # huggingface, t5jax; None: huggingface for a run, else t5jax
    step: int | None = None
    vocabulary: str | None = None
    extra_ids: int | None = None
    dtype: str | None = None  # of the Hugging Face weights; None: float32
    max_shard_size: str = "5GB"
    with_slots: bool = True
    reference: Reference = "auto"
    ignored_keys: tuple[str, ...] = ()  # of config.json and generation_config.json
    base: str | None = None  # of a PEFT directory


def convert_command(source_path: str, target: str, options: ConvertOptions) -> None:
    """Writes TARGET, which must not exist; it appears when it is complete and checked.

    Raises ConfigError, CheckpointError or DataError that says what to do.
    """
    start = time.monotonic()
    runtime.refuse_float64()
    # Nothing here needs an accelerator, and a run may be using the one of this machine.
    jax.config.update("jax_platforms", "cpu")
    _give_blocks_back()
    target = written_path(target, "target")
    to = _direction(source_path, options)
    if to == "t5jax":
        check_written_run(target, "target")
    place = TargetFolder(target, last=_LAST[to])
    if to == "peft":
        _to_peft(source_path, place, options)
        return
    max_shard_bytes = _bytes(options.max_shard_size)
    source = open_source_checkpoint(source_path, options.step, options.ignored_keys, options.base)
    vocabulary = _vocabulary(source, options)
    if source.kind != "t5jax":
        fit_to_vocabulary(source, vocabulary)
    unfinished = place.begin()
    progress = _Progress()
    if to == "t5jax":
        report = _to_run(source, unfinished, target, vocabulary, options, progress)
    else:
        report = _to_huggingface(
            source, unfinished, target, vocabulary, options, max_shard_bytes, progress
        )
    report = dataclasses.replace(report, seconds=time.monotonic() - start)
    report.write(unfinished)
    progress.done()
    print(report.text(), end="")
    for found in report.checks:
        if not found.passed:
            raise CheckpointError(
                f"the logits differ by {found.error:.1e} of the largest: this is not the same "
                f"model. What was written is kept for a look in {unfinished}, with {JSON}"
            )
    if not report.text_check.passed:
        raise CheckpointError(
            f"the outputs for fixed texts are not the source's: {report.text_check.difference}. "
            f"What was written is kept for a look in {unfinished}, with {JSON}"
        )
    place.complete()
    print(f"report: {place.shown}/{TEXT}; what became of every array: {place.shown}/{JSON}")
    if to == "t5jax":
        print(f'go on with: t5jax predict {target} "A <extra_id_0> of text."')


def _direction(source_path: str, options: ConvertOptions) -> str:
    """The target's kind; refuses options that have no effect on it."""
    kind = detect_format(source_path)
    to = options.to or ("huggingface" if kind == "t5jax" else "t5jax")
    if (kind, to) == ("t5jax", "t5jax"):
        raise ConfigError(f"{source_path} is a run of t5jax already; --to huggingface converts it")
    if to == "t5jax" and options.dtype is not None:
        raise ConfigError(f"--dtype {options.dtype} has no effect: a run keeps float32 parameters")
    if options.base is not None and "peft" not in (kind, to):
        raise ConfigError(f"--base {options.base} has no effect: it is for PEFT directories")
    if to == "peft" and kind != "t5jax":
        raise ConfigError(f"--to peft: {source_path} is no run of t5jax with LoRA's factors")
    if (kind, to) == ("peft", "huggingface"):
        raise ConfigError(
            f"--to huggingface: {source_path} is a PEFT directory: convert it to a run (leave --to "
            "out), merge that (t5jax merge RUN MERGED), and convert MERGED"
        )
    if to == "huggingface" and not options.with_slots:
        raise ConfigError("--no-slots has no effect: Hugging Face directories have none")
    return to


def _vocabulary(source: SourceCheckpoint, options: ConvertOptions) -> Vocabulary:
    """The one that is named, or the source's own.

    Raises ConfigError when nothing tells which it is, or it is not the run's.
    """
    if options.vocabulary is not None:
        vocabulary = vocabulary_by_name(options.vocabulary, options.extra_ids)
    elif options.extra_ids is not None:
        raise ConfigError(f"--extra-ids {options.extra_ids} has no effect without --vocabulary")
    elif source.vocabulary is not None:
        vocabulary = source.vocabulary
    elif source.model.vocab_size == _BYT5_ROWS:
        vocabulary = ByteVocabulary()
        source.notes.append(f"vocabulary: bytes, because the table has {_BYT5_ROWS} rows (ByT5)")
    else:
        raise ConfigError(
            f"{source.path} holds no vocabulary: give it with --vocabulary (a SentencePiece model, "
            "a tokenizer.json, or t5, mt5, umt5, byt5)"
        )
    wanted = source.vocabulary_fingerprint
    if wanted is not None and vocabulary.fingerprint != wanted:
        raise ConfigError(
            f"{vocabulary} is not the vocabulary that {source.path} was trained with: name the "
            "original with --vocabulary (and --extra-ids)"
        )
    return vocabulary


def _to_run(
    source: SourceCheckpoint, directory: pathlib.Path, workdir: str, vocabulary: Vocabulary,
    options: ConvertOptions, progress: "_Progress",
) -> ConversionReport:  # fmt: skip
    step = write_run(
        source,
        directory,
        workdir,
        vocabulary,
        with_slots=options.with_slots,
        environment=environment(),
        progress=progress,
    )
    progress("comparing logits")
    # Which verifies what was written.
    written = open_run_directory(str(directory), step, merged=True)
    ours = model_logits(written.model, written.params, _probe(source))
    reference = ReferenceModel(source, options.reference)
    checks = [reference.check_logits(ours)]
    progress("comparing texts")
    own_files = source.kind == "huggingface" and options.vocabulary is None
    compared = check_against_source(vocabulary, source.path) if own_files else None
    of_text = check_text(
        written.model, written.params, written.decoding, vocabulary, reference, compared
    )
    arrays = [
        _converted(f"params/{path}", source.origins[path], array, source.params[path])
        for path, array in written.params.items()
    ]
    return ConversionReport(
        source=source,
        target=workdir,
        target_kind="t5jax",
        arrays=arrays,
        checks=checks,
        text_check=of_text,
        seconds=0.0,
        step=step,
        slots=options.with_slots and source.slots is not None,
    )


def _to_huggingface(
    source: SourceCheckpoint, directory: pathlib.Path, target: str, vocabulary: Vocabulary,
    options: ConvertOptions, max_shard_bytes: int, progress: "_Progress",
) -> ConversionReport:  # fmt: skip
    dtype = options.dtype or "float32"
    made_of = write_huggingface(
        source,
        directory,
        vocabulary,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
        progress=progress,
    )
    progress("reading it again")
    written = open_huggingface(str(directory))
    compare_arrays(source, written, dtype_named(dtype))
    progress("comparing logits")
    ours = model_logits(written.model, written.params, _probe(source))
    reference = ReferenceModel(written, options.reference)
    checks = [reference.check_logits(ours)]
    progress("comparing texts")
    compared = check_against_source(vocabulary, directory)
    of_text = check_text(
        source.model, written.params, source.decoding, vocabulary, reference, compared
    )
    if source.kind != "t5jax":
        # That was about their names there; this is about the names here.
        unrounded = model_logits(source.model, source.params, _probe(source))
        checks.append(check_logits(unrounded, source, "auto"))
    write_golden(directory, ours)
    assert written.weights is not None
    of = next(iter(source.params.values()))
    arrays = [
        _converted(name, made_of[name], array, of)
        for name, array in written.weights.arrays.items()
        if name in made_of
    ]
    return ConversionReport(
        source=source,
        target=target,
        target_kind="huggingface",
        arrays=arrays,
        checks=checks,
        text_check=of_text,
        seconds=0.0,
    )


def _to_peft(source_path: str, place: TargetFolder, options: ConvertOptions) -> None:
    """Writes a run's LoRA factors, and reads them again."""
    run = open_lora_run(source_path, options.step)
    unfinished = place.begin()
    num_tensors = write_peft(run, unfinished, options.base)
    check_written(run, unfinished)
    place.complete()
    base = options.base or run.base
    print(
        f"{place.shown}: {num_tensors} tensors of LoRA, rank {run.finetuning.rank}, of step "
        f"{run.step} of {source_path}, read again and equal"
    )
    if (pathlib.Path(base) / CHECKPOINTS).is_dir():
        print(f"transformers needs its base too: t5jax convert {base} BASE_HF")


def _probe(source: SourceCheckpoint) -> ProbeInputs:
    return ProbeInputs.for_vocabulary(source.model.vocab_size)


def _converted(name: str, made_of: list[str], array: BlockArray, of: BlockArray) -> ConvertedArray:
    return ConvertedArray(
        name=name,
        made_of=made_of,
        shape=array.shape,
        dtype=array.dtype.name,
        from_dtype=of.dtype.name,
    )


def _give_blocks_back() -> None:
    """Tells glibc's malloc to return every freed block to the system at once.

    By default it keeps blocks of up to 32 MB for later, in an arena a thread; measured: 0.4 GB more
    in use at the end of a conversion, whose blocks have 16 MB.
    """
    mmap_threshold = -3  # of malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another system's C library
        ctypes.CDLL(None).mallopt(mmap_threshold, 2**20)


_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]B|)", text.strip().upper())
    if found is None or float(found[1]) <= 0:
        raise ConfigError(f"--max-shard-size {text}: a size such as 500MB or 5GB is expected")
    return int(float(found[1]) * _UNITS[found[2]])


class _Progress:
    """On a terminal the array in work, on one line that is written over; elsewhere nothing."""

    def __init__(self):
        self._bar = text_bar(sys.stderr, leave=False)

    def __call__(self, what: str) -> None:
        self._bar.set_description_str(what)

    def done(self) -> None:
        self._bar.close()
