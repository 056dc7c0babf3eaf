"""Conversion report: every array with its source, and the agreement of the logits."""

import dataclasses
import math
import pathlib
import platform
from typing import Any

from t5jax.convert import architecture
from t5jax.convert.detect import FORMAT_TITLES
from t5jax.convert.source_checkpoint import SourceCheckpoint
from t5jax.convert.text_check import TextCheck
from t5jax.convert.verify import LogitsCheck
from t5jax.data.atomic_files import write_json_file
from t5jax.version import __version__

JSON, TEXT = "conversion.json", "conversion.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertedArray:
    """One array of the target and its source arrays."""

    name: str
    made_of: list[str]
    shape: tuple[int, ...]
    dtype: str
    from_dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionReport:
    source: SourceCheckpoint
    target: str
    target_kind: str
    arrays: list[ConvertedArray]
    checks: list[LogitsCheck]
    text_check: TextCheck
    seconds: float
    step: int | None = None
    slots: bool | None = None  # whether optimizer slots were converted; None: not applicable

    def to_dict(self) -> dict[str, Any]:
        source = self.source
        return {
            "source": {"format": source.kind, "path": source.path, "step": source.step},
            "target": {"format": self.target_kind, "path": self.target, "step": self.step},
            "model": {**dataclasses.asdict(source.model), "size": self._size()},
            "parameters": self._num_parameters(),
            "optimizer_slots": self.slots,
            "notes": source.notes,
            "checks": [check.to_dict() for check in self.checks],
            "text": self.text_check.to_dict(),
            "arrays": [dataclasses.asdict(array) for array in self.arrays],
            "seconds": round(self.seconds, 1),
            "software": {"t5jax": __version__, "python": platform.python_version()},
        }

    def text(self) -> str:
        """A summary of a few lines."""
        types = ", ".join(sorted({f"{a.from_dtype} to {a.dtype}" for a in self.arrays}))
        step = "" if self.source.step is None else f", step {self.source.step}"
        lines = [
            f"{FORMAT_TITLES[self.source.kind]} {self.source.path}{step}",
            f"  -> {FORMAT_TITLES[self.target_kind]} {self.target}"
            + (f", step {self.step}" if self.step is not None else ""),
            f"model: {self._size()}, {self._num_parameters():,} parameters in {len(self.arrays)} "
            f"arrays, {types}",
        ]
        if self.slots is not None:
            lines.append(f"optimizer slots: {'converted' if self.slots else 'none'}")
        lines += [f"note: {note}" for note in self.source.notes]
        lines += [
            f"logits: {check.num_logits:,} compared with {check.reference}; largest difference "
            f"{check.largest_difference:.1e}, {check.error:.1e} of the largest logit"
            for check in self.checks
        ]
        return "\n".join(lines + self.text_check.lines()) + "\n"

    def write(self, directory: pathlib.Path) -> None:
        write_json_file(directory / JSON, self.to_dict())
        (directory / TEXT).write_text(self.text(), encoding="utf-8")

    def _size(self) -> str:
        model = self.source.model
        layers = f"{model.num_encoder_layers}+{model.num_decoder_layers} layers"
        return architecture.size_name(model) or f"{layers}, emb_dim {model.emb_dim}"

    def _num_parameters(self) -> int:
        return sum(math.prod(array.shape) for array in self.source.params.values())
