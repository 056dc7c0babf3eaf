"""An export, loaded: predicts and scores texts."""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from t5jax.data.vocabularies import vocabulary_from_dict
from t5jax.errors import DataError
from t5jax.export import saved_model, stablehlo
from t5jax.types import EOS_ID, PAD_ID

MANIFEST = "manifest.json"


class ExportedOutput(NamedTuple):
    """One decoded output of an export."""

    text: str
    score: float
    ids: np.ndarray  # int32, without EOS and padding


class ExportedRun:
    """The export in `folder`, made by `t5jax export`; `functions` take and return ids.

    Raises DataError for a folder without an export.
    """

    def __init__(self, folder: str | pathlib.Path):
        folder = pathlib.Path(folder)
        if not (folder / MANIFEST).is_file():
            raise DataError(f"{folder} holds no export: there is no {MANIFEST}")
        self.manifest = json.loads((folder / MANIFEST).read_text())
        # An export of before has none: they were T5's.
        ids = self.manifest.get("special_ids", {"pad_id": PAD_ID, "eos_id": EOS_ID})
        self._pad_id, self._eos_id = ids["pad_id"], ids["eos_id"]
        self.vocabulary = vocabulary_from_dict(self.manifest["vocabulary"], folder)
        names = list(self.manifest["functions"])
        if self.manifest["format"] == "stablehlo":
            self.functions = stablehlo.read_stablehlo(folder, names, self.manifest["dtype"])
        else:
            self.functions = saved_model.read_saved_model(folder, names)

    def predict(self, texts: Sequence[str]) -> list[list[ExportedOutput]]:
        """The outputs of every text, the best first."""
        found = self.functions["predict"](self._inputs(texts))
        return [
            [self._output(ids, score) for ids, score in zip(tokens, scores, strict=True)]
            for tokens, scores in zip(found["tokens"], found["scores"], strict=True)
        ]

    def score(self, inputs: Sequence[str], targets: Sequence[str]) -> list[float]:
        """Log-likelihood of every target, EOS included, given its input."""
        length = self.manifest["targets_length"]
        target_ids = self._padded(targets, [self.vocabulary.eos_id], length, "target")
        scores = self.functions["score"](self._inputs(inputs), target_ids)["scores"]
        return [float(np.sum(score, dtype=np.float64)) for score in scores]

    def _inputs(self, texts: Sequence[str]) -> np.ndarray:
        end, length = self.manifest["end_of_inputs"], self.manifest["inputs_length"]
        return self._padded(texts, end, length, "input")

    def _padded(self, texts: Sequence[str], end: list[int], length: int, what: str) -> np.ndarray:
        """int32 [texts, length], padded."""
        padded = np.full((len(texts), length), self._pad_id, np.int32)
        for number, text in enumerate(texts):
            ids = [*self.vocabulary.encode(text).tolist(), *end]
            if len(ids) > length:
                raise DataError(
                    f"{what} {number} has {len(ids)} tokens; the export was made for {length}: "
                    f"truncate it, or export again with another --{what}s-length"
                )
            padded[number, : len(ids)] = ids
        return padded

    def _output(self, tokens: np.ndarray, score: float) -> ExportedOutput:
        ids = tokens[(tokens != self._pad_id) & (tokens != self._eos_id)]
        return ExportedOutput(self.vocabulary.decode(ids), float(score), ids)
