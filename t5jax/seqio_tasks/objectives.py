"""The objective of a task of plain text as a seqio step: tokens of documents to rows of examples.

Rows are cut as T5's published preprocessors cut them (a random chunk of a long document, 128 chunks
joined). What happens to a row is the objective's own code, with a key that seqio's seeds give.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from t5jax.data.objectives import Coded, Objective
from t5jax.data.seqio_bridge.span_corruption import rows_of_tokens
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError

seqio = import_seqio()
tf = import_tensorflow()

# Features of seqio's pre-packed converters: where an objective puts several examples into a row.
PACKING = {
    "inputs_segment_ids": "inputs_segments",
    "inputs_positions": "inputs_positions",
    "targets_segment_ids": "targets_segments",
    "targets_positions": "targets_positions",
}


@dataclasses.dataclass
class ObjectivePreprocessor:
    """Tokens under `targets` -> `inputs` (where the objective has some) and `targets`, trimmed,
    with EOS. `prefix` stands in front of every row's inputs, and counts.

    seqio fills in the last two fields. Raises ConfigError without `sequence_length`, and where
    lengths or sentinels cannot hold a row.
    """

    objective: Objective
    prefix: str = ""
    sequence_length: Mapping[str, int] | None = None
    output_features: Mapping[str, Any] | None = None

    def __call__(self, dataset: Any) -> Any:
        if not self.sequence_length or not self.output_features:
            raise ConfigError(
                f"the objective {self.objective.name} makes rows of a length: give "
                "sequence_length={'inputs': ..., 'targets': ...} to get_dataset"
            )
        vocabulary = self.output_features["targets"].vocabulary.vocabulary
        targets_length = self.sequence_length["targets"]
        prefix = vocabulary.encode(self.prefix).astype(np.int32)
        room = self.sequence_length.get("inputs", targets_length) - len(prefix)
        self.objective.check(
            inputs_length=room,
            targets_length=targets_length,
            num_sentinels=vocabulary.num_sentinels,
        )
        tokens = dataset.map(lambda example: example["targets"]).filter(lambda x: tf.size(x) > 0)
        rows = rows_of_tokens(
            tokens,
            self.objective.lengths(room, targets_length).raw,
            eos_id=vocabulary.eos_id if self.objective.documents_end_with_eos else None,
        )
        features = tuple(self.output_features)
        code = self._code(features, vocabulary, prefix, (room, targets_length))

        @seqio.map_over_dataset(num_seeds=1)
        def coded(tokens: Any, seed: Any) -> dict[str, Any]:
            types = [tf.int32] * len(features)
            # A function of its arguments alone: data sets that were cached can be checkpointed.
            found = tf.numpy_function(code, [tokens, seed], types, stateful=False)
            for ids in found:
                ids.set_shape([None])
            return dict(zip(features, found, strict=True))

        return coded(rows)

    def _code(
        self,
        features: tuple[str, ...],
        vocabulary: Vocabulary,
        prefix: np.ndarray,
        lengths: tuple[int, int],
    ) -> Callable[[np.ndarray, np.ndarray], list[np.ndarray]]:
        def code(tokens: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
            high, low = (int(part) & 0xFFFFFFFF for part in seed)
            row = np.zeros(1, np.int64)
            coded = self.objective.apply(tokens[None], row, high << 32 | low, vocabulary)
            found = _features(coded.trimmed(*lengths, eos_id=vocabulary.eos_id))
            if "inputs" in found:
                found["inputs"] = np.concatenate([prefix, found["inputs"]])
            return [found[name] for name in features]

        return code


def _features(coded: Coded) -> dict[str, np.ndarray]:
    """The only row, without padding (of id 0, which a source checks)."""
    found = {name: np.trim_zeros(getattr(coded, name)[0], "b") for name in ("inputs", "targets")}
    if coded.inputs_segments is not None:
        for feature, field in PACKING.items():
            found[feature] = getattr(coded, field)[0, : len(found[feature.partition("_")[0]])]
    return {name: ids.astype(np.int32) for name, ids in found.items()}
