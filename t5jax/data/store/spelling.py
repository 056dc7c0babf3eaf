"""How much of its texts a vocabulary cannot spell.

What has no piece becomes the unknown piece and cannot be told from anything else: a model can
neither read nor say it. SentencePiece makes one unknown piece of any number of such characters in a
row, so the share that counts is that of characters: Chinese with T5's English vocabulary has nine
of ten, C4 one in several thousand.

Of targets there is more to say: those that hold unknown pieces can never be given as an answer, and
others come back in another form (Unicode normalisation, white space), which an exact match sees.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from t5jax.data.records import counted
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError

NO_TARGET = "<unk>"  # T5's targets of a row whose label is kept back: nobody has to spell it
TARGETS = "targets"
_SENTINEL = re.compile(r"<extra_id_\d+>")
_MOST_KEPT = 10  # characters that are shown
_MOST_COUNTED = 10_000
# Of so few characters a share says little: an emoji in one of ten short answers.
_FEW = 20
_MOST_OF_THEM = 0.5


@dataclasses.dataclass(slots=True)
class SpellingCounts:
    """Of the texts of one feature.

    `lost_characters` are those without a piece, most frequent first in `lost`. `unknown_texts`
    hold unknown pieces; `changed_texts` (of targets) hold none and are decoded to another text.
    """

    texts: int = 0
    characters: int = 0
    lost_characters: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    unknown_texts: int = 0
    changed_texts: int = 0
    lost: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def lost_share(self) -> float:
        """Of the characters; of the tokens where a task gives ids and no text."""
        if self.characters:
            return self.lost_characters / self.characters
        return self.unknown_tokens / max(self.tokens, 1)

    def add(self, other: "SpellingCounts") -> None:
        """Adds the counts of other texts."""
        for field in dataclasses.fields(self):
            if field.name != "lost":
                setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        for character, count in other.lost.items():
            self.lost[character] = self.lost.get(character, 0) + count

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the most frequent of the lost characters."""
        return dataclasses.asdict(self) | {"lost": dict(self.most_lost())}

    def most_lost(self) -> list[tuple[str, int]]:
        """Characters and how often, the most frequent ones first."""
        return sorted(self.lost.items(), key=lambda item: (-item[1], item[0]))[:_MOST_KEPT]

    def __str__(self) -> str:
        """`1,204 of 9,000 characters (13.4 %) …: 好 (12), 天 (9)`."""
        if not self.characters:
            of = f"{self.unknown_tokens:,} of {counted(self.tokens, 'token')}"
            return f"{of} ({self.lost_share:.2%}) are the unknown piece"
        most = ", ".join(f"{_shown(char)} ({n:,})" for char, n in self.most_lost())
        return (
            f"{self.lost_characters:,} of {counted(self.characters, 'character')} "
            f"({self.lost_share:.2%}) have no piece" + (f": {most}" if most else "")
        )


def _shown(character: str) -> str:
    """The character, or its number where it would not be seen."""
    return character if character.isprintable() else f"U+{ord(character):04X}"


class SpellingCounter:
    """Counts the documents of a task, feature by feature, as they are encoded."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary, self._unk_id = vocabulary, vocabulary.unk_id
        self.counts: dict[str, SpellingCounts] = {}
        self._has_piece: dict[str, bool] = {}

    def add(self, document: Mapping[str, Any], ids: Mapping[str, np.ndarray]) -> None:
        """One document or example: text by feature (or ids, where a task tokenises itself), and
        its ids."""
        for name, tokens in ids.items():
            if (counts := self.counts.get(name)) is None:
                counts = self.counts[name] = SpellingCounts()
            text = document[name]
            if name == TARGETS and isinstance(text, str) and text == NO_TARGET:
                continue
            self._count(counts, text if isinstance(text, str) else None, tokens, name)

    def of(self, feature: str) -> SpellingCounts:
        """The counts of a feature so far."""
        return self.counts.get(feature, SpellingCounts())

    def of_text(
        self, text: str | None, tokens: np.ndarray, feature: str = TARGETS
    ) -> SpellingCounts:
        """The counts of one text (None: only its ids are known) and its ids."""
        found = SpellingCounts()
        self._count(found, text, tokens, feature)
        return found

    def _count(
        self, found: SpellingCounts, text: str | None, tokens: np.ndarray, feature: str
    ) -> None:
        unknown = int(np.count_nonzero(tokens == self._unk_id))
        found.texts += 1
        found.tokens += len(tokens)
        found.unknown_tokens += unknown
        found.unknown_texts += unknown > 0
        if text is None:
            return
        found.characters += len(text)
        if unknown:
            self._count_lost(text if feature == "text" else _SENTINEL.sub("", text), found)
        elif feature == TARGETS and self._vocabulary.decode(tokens) != text:
            found.changed_texts += 1

    def _count_lost(self, text: str, found: SpellingCounts) -> None:
        for character in text:
            if not self._spells(character):
                found.lost_characters += 1
                found.lost[character] = found.lost.get(character, 0) + 1

    def _spells(self, character: str) -> bool:
        """Whether a character has pieces of its own; inside a word, where no word mark hides it."""
        spelled = self._has_piece.get(character)
        if spelled is None:
            ids = self._vocabulary.encode(f"a{character}a", sentinels=False)
            spelled = self._unk_id not in ids
            if len(self._has_piece) < _MOST_COUNTED:
                self._has_piece[character] = spelled
        return spelled


def spelling_notes(counts: Mapping[str, SpellingCounts]) -> list[str]:
    """A line for each feature of which something is lost or changed."""
    notes = []
    for name, of in counts.items():
        if of.unknown_tokens:
            notes.append(f"{name}: {of}")
        if name == TARGETS and (of.unknown_texts or of.changed_texts):
            notes.append(unspelled_targets(of.unknown_texts, of.changed_texts, of.texts))
    return notes


def unspelled_targets(unknown: int, changed: int, texts: int) -> str:
    """`588 of 1,000 targets cannot be spelled …; 3 more come back in another form …`."""
    of = f"of {counted(texts, 'target')}"
    parts = []
    if unknown:
        parts.append(f"{unknown:,} {of} cannot be spelled by the vocabulary")
    if changed:
        subject = f"{changed:,} more come" if unknown else f"{changed:,} {of} come"
        parts.append(f"{subject} back in another form (Unicode normalisation, white space)")
    return "; ".join(parts)


def refuse_unspellable(
    counts: Mapping[str, SpellingCounts], limit: float, where: str, vocabulary: Vocabulary
) -> None:
    """Raises DataError when of a feature more than `limit` cannot be spelled, with what to do."""
    for name, of in counts.items():
        few = max(of.lost_characters, of.unknown_tokens) < _FEW and of.lost_share < _MOST_OF_THEM
        if of.lost_share > limit and not (few and limit):
            said = f"{of}, more than data.max_unknown_share = {limit}"
            if name == TARGETS:
                said += f"; {unspelled_targets(of.unknown_texts, of.changed_texts, of.texts)}"
            raise DataError(
                f"{where}: the vocabulary {getattr(vocabulary, 'path', vocabulary.kind)} cannot "
                f"spell its {name}: {said}. Take a vocabulary that was made for such text "
                "(data.vocabulary: mt5, umt5, ByteVocabulary(); `t5jax vocab train CONFIG "
                "--data.vocabulary.path NEW_FILE` makes one of it, with --byte-fallback one that "
                "spells everything; `t5jax vocab extend` adds pieces), or raise the limit if the "
                "rest is worth training on"
            )
