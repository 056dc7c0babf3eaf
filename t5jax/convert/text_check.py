"""Text-level check of a conversion: ids of fixed texts, and greedy outputs for them from the
source's own start to its own end, equal to those of another implementation.

Equal logits say nothing of either: they are compared for ids.
"""

import dataclasses
from typing import Any

import numpy as np

from t5jax.convert.forward import Arrays, model_logits
from t5jax.convert.probe_inputs import ProbeInputs
from t5jax.convert.verify import TOLERANCE, ReferenceModel
from t5jax.data.vocabularies import Vocabulary
from t5jax.decoding.config import DecodingConfig
from t5jax.model.config import T5Config

TEXTS = (
    "translate English to German: The house is wonderful.",
    "A <extra_id_0> of text {with} 1 < 2 \n and <extra_id_1>.",
    "Größe, Москва, 北京, 🙂",
)
NUM_TOKENS = 20  # of an output, where the model is small enough to decode so many without a cache
_MAX_BYTES = 8e9  # of weights that are read for it


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextCheck:
    """Greedy outputs for the fixed texts, by the reference, and where ours is another."""

    reference: str
    num_probe_texts: int | None  # whose ids equal the source tokenizer's; None: there is none
    start_id: int
    end_ids: tuple[int, ...]
    texts: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]  # the end included
    output_texts: tuple[str, ...]
    difference: str | None

    @property
    def passed(self) -> bool:
        return self.difference is None

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "passed": self.passed}

    def lines(self) -> list[str]:
        """For the report."""
        ids = "no tokenizer beside the weights"
        if self.num_probe_texts is not None:
            ids = f"ids of {self.num_probe_texts} texts are those of the source's tokenizer"
        ends = " or ".join(map(str, self.end_ids))
        tokens = sum(map(len, self.outputs))
        lines = [
            f"text: {ids}; {tokens} tokens of {len(self.outputs)} greedy outputs, from id "
            f"{self.start_id} to id {ends}, "
            + (f"equal {self.reference}" if self.passed else str(self.difference))
        ]
        for text, output in zip(self.texts, self.output_texts, strict=True):
            lines.append(f"  {text!r} -> {output!r}")
        return lines


def check_text(
    model: T5Config,
    params: Arrays,
    decoding: DecodingConfig,
    vocabulary: Vocabulary,
    reference: ReferenceModel,
    num_probe_texts: int | None,
) -> TextCheck:
    """Compares greedy decoding of ours (`model`, `params`) with the reference's.

    Ours is not decoded step by step: an output is greedy if each of its tokens is the likeliest
    after those before it, which one pass over all of them shows.
    """
    inputs = [[*vocabulary.encode(text).tolist(), vocabulary.eos_id] for text in TEXTS]
    nbytes = 4 * sum(array.size for array in params.values())
    length = int(np.clip(_MAX_BYTES / nbytes, 2, NUM_TOKENS))
    outputs = reference.greedy(inputs, vocabulary.vocab_size, length)
    ends = (model.eos_id, *(ids[0] for ids in decoding.stop if len(ids) == 1))
    probe = ProbeInputs.of_outputs(inputs, outputs, model.decoder_start_id)
    logits_RV = model_logits(model, params, probe)[:, : vocabulary.vocab_size]
    return TextCheck(
        reference=reference.name,
        num_probe_texts=num_probe_texts,
        start_id=model.decoder_start_id,
        end_ids=ends,
        texts=TEXTS,
        inputs=tuple(map(tuple, inputs)),
        outputs=tuple(map(tuple, outputs)),
        output_texts=tuple(map(vocabulary.decode, outputs)),
        difference=_difference(outputs, logits_RV, ends, length),
    )


def _difference(
    outputs: list[list[int]], logits_RV: np.ndarray, ends: tuple[int, ...], length: int
) -> str | None:
    """What the first other token is; two that are equally likely may be exchanged."""
    tie = TOLERANCE * np.abs(logits_RV).max()
    place = 0
    for number, ids in enumerate(outputs):
        for position, token in enumerate(ids):
            logits_V = logits_RV[place]
            place += 1
            best = int(logits_V.argmax())
            if not logits_V[best] - logits_V[token] <= tie:  # not for NaN
                return (
                    f"but token {position + 1} of output {number + 1} is {best} here, {token} there"
                )
            at = f"but output {number + 1} ends at token {position + 1} ({token})"
            if token in ends and position + 1 < len(ids):
                return f"{at} here and not there"
            if token not in ends and position + 1 == len(ids) < length:
                return f"{at} there and not here"
    return None
