"""Verification of a conversion: two implementations give the same logits for fixed inputs."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from t5jax.convert import transformers_t5
from t5jax.convert.lazy_arrays import Cast
from t5jax.convert.numpy_t5 import NumpyT5
from t5jax.convert.probe_inputs import INPUTS_VERSION, ProbeInputs
from t5jax.convert.source_checkpoint import SourceCheckpoint
from t5jax.errors import CheckpointError, ConfigError

Reference = Literal["auto", "transformers", "golden", "numpy"]
# Relative to the largest logit: float32 implementations of the same model differ by 1e-6 to 1e-5,
# a wrong name, layout, scale or activation by more than this.
TOLERANCE = 1e-4
GOLDEN = "t5jax_golden.json"
_NUM_GOLDEN_IDS = 97  # ids of the vocabulary whose logits are stored


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsCheck:
    """Difference of our logits from those of a reference implementation."""

    reference: str
    num_logits: int
    largest_difference: float
    largest_logit: float

    @property
    def error(self) -> float:
        """Relative to the largest logit."""
        return self.largest_difference / self.largest_logit

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCE  # not for NaN

    def to_dict(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self),
            "relative_error": self.error,
            "allowed": TOLERANCE,
            "passed": self.passed,
        }


class ReferenceModel:
    """`foreign` by another implementation: transformers, logits stored beside the weights, or
    NumPy.

    Raises ConfigError for a reference that is not available, CheckpointError when it cannot load.
    """

    def __init__(self, foreign: SourceCheckpoint, reference: Reference):
        self._foreign, self._kind = foreign, _choose(foreign, reference)

    def check_logits(self, ours: np.ndarray) -> LogitsCheck:
        """Compares our logits [R, V] of the probe with the reference's."""
        probe = ProbeInputs.for_vocabulary(self._foreign.model.vocab_size)
        if self._kind == "golden":
            return _against_golden(ours, probe, _golden_file(self._foreign))
        return _compared(ours, self._model.logits(probe), self.name)

    def greedy(self, inputs: Sequence[Sequence[int]], num_ids: int, length: int) -> list[list[int]]:
        """Greedy outputs from the source's own start to its own end, which is included."""
        if isinstance(self._model, NumpyT5):
            ends = self._foreign.end_ids or (self._foreign.model.eos_id,)
            return self._model.greedy(inputs, ends, num_ids, length)
        return self._model.greedy(inputs, num_ids, length)

    @property
    def name(self) -> str:
        if isinstance(self._model, NumpyT5):
            return "NumPy, from the files' own names"
        return self._model.version

    @functools.cached_property
    def _model(self) -> NumpyT5 | transformers_t5.TransformersT5:
        foreign = self._foreign
        if self._kind == "transformers":
            return transformers_t5.TransformersT5(foreign.path, foreign.model)
        assert foreign.weights is not None
        kind = "huggingface" if foreign.kind == "peft" else foreign.kind  # their names
        return NumpyT5(kind, foreign.weights.arrays, foreign.model)


def check_logits(ours: np.ndarray, foreign: SourceCheckpoint, reference: Reference) -> LogitsCheck:
    """As `ReferenceModel.check_logits`, once."""
    return ReferenceModel(foreign, reference).check_logits(ours)


def _choose(foreign: SourceCheckpoint, reference: Reference) -> str:
    is_directory = foreign.kind == "huggingface"
    nbytes = 4 * sum(array.size for array in foreign.params.values())
    if reference == "transformers" and not (is_directory and transformers_t5.is_installed()):
        raise ConfigError(
            "--reference transformers: needs a Hugging Face directory and the packages "
            "transformers and torch (pip install 't5jax[parity]'); without them use numpy"
        )
    if reference == "golden" and not _golden_file(foreign).is_file():
        raise ConfigError(f"--reference golden: there is no {_golden_file(foreign)}")
    if reference != "auto":
        return reference
    if is_directory and transformers_t5.is_installed() and transformers_t5.fits_into_memory(nbytes):
        return "transformers"
    return "golden" if _golden_file(foreign).is_file() else "numpy"


def _compared(ours: np.ndarray, theirs: np.ndarray, name: str) -> LogitsCheck:
    return LogitsCheck(
        reference=name,
        num_logits=ours.size,
        largest_difference=float(np.abs(ours.astype(np.float64) - theirs).max()),
        largest_logit=float(np.abs(theirs).max()),
    )


def compare_arrays(source: SourceCheckpoint, written: SourceCheckpoint, dtype: np.dtype) -> None:
    """Checks that every written array equals the source's, bit for bit in `dtype`.

    Raises CheckpointError that names one that does not.
    """
    for path, array in source.params.items():
        expected, actual = Cast(array, dtype), written.params[path]
        for region in expected.regions():
            if expected.read(region).tobytes() != actual.read(region).tobytes():
                raise CheckpointError(f"{written.path}: {path} differs from the source's")


# ---- goldens


def write_golden(directory: pathlib.Path, ours: np.ndarray) -> None:
    """Writes some of our logits beside the weights, for a later import without transformers.

    Stored are the logits of ids from all over the vocabulary, and the logarithm of the softmax
    denominator, to which all logits contribute.
    """
    ids = _golden_ids(ours.shape[1])
    content = {
        "note": "logits on fixed inputs, by t5jax; `t5jax convert` compares them when it imports",
        "inputs": INPUTS_VERSION,
        "logits": ours[:, ids].astype(np.float64).round(6).tolist(),
        "log_denominators": _log_denominators(ours).round(6).tolist(),
    }
    (directory / GOLDEN).write_text(json.dumps(content) + "\n")


def _against_golden(ours: np.ndarray, probe: ProbeInputs, file: pathlib.Path) -> LogitsCheck:
    try:
        content = json.loads(file.read_text())
        if content["inputs"] != INPUTS_VERSION:
            raise ValueError(f"its inputs are of version {content['inputs']}, not {INPUTS_VERSION}")
        theirs = np.array(content["logits"], np.float64)
        denominators = np.array(content["log_denominators"], np.float64)
        picked = ours[:, _golden_ids(ours.shape[1])]
        if theirs.shape != picked.shape or denominators.shape != (len(probe.rows),):
            raise ValueError("its numbers have other shapes")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} is damaged or of another model: {error}; delete it to use another reference"
        ) from error
    with_denominators = lambda x, d: np.concatenate([x, d[:, None]], axis=1)
    return _compared(
        with_denominators(picked, _log_denominators(ours)),
        with_denominators(theirs, denominators),
        f"{file.name}, stored beside the weights",
    )


def _golden_file(foreign: SourceCheckpoint) -> pathlib.Path:
    return pathlib.Path(foreign.path) / GOLDEN


def _golden_ids(vocab_size: int) -> np.ndarray:
    return np.unique(np.linspace(0, vocab_size - 1, _NUM_GOLDEN_IDS).astype(np.int64))


def _log_denominators(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(axis=-1, keepdims=True).astype(np.float64)
    return largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=-1))
