"""Text of single tokens and of spans of tokens, for reports (`id_to_piece` of tokenisers)."""

import functools
from collections.abc import Iterable

from t5jax.data.vocabularies.base import Vocabulary


def run_text(vocabulary: Vocabulary, ids: Iterable[int]) -> str:
    """The text of a run of ids, with the space that it begins with, if any.

    A SentencePiece model drops the space at the beginning of a text: here something stands before.
    """
    before = vocabulary.encode("x").tolist()
    whole, start = vocabulary.decode([*before, *map(int, ids)]), vocabulary.decode(before)
    return whole.removeprefix(start)


class TokenTexts:
    """The text of single ids of a vocabulary, each looked up once."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._kinds = dict.fromkeys(vocabulary.sentinel_ids, "sentinel") | {
            vocabulary.unk_id: "unk",
            vocabulary.pad_id: "pad",
            vocabulary.eos_id: "eos",
        }
        self.text = functools.lru_cache(maxsize=None)(self._text)

    def kind(self, token: int) -> str:
        """pad, eos, unk, sentinel or text."""
        return self._kinds.get(token, "text")

    def _text(self, token: int) -> str:
        """What a reader is shown for an id; its number where it has no text (half a character)."""
        if self.kind(token) == "eos":
            return "</s>"
        return run_text(self._vocabulary, [token]) or f"‹{token}›"
