"""C4's cleaning rules for raw web text (Raffel et al. 2020, section 2.2), with counts.

The line rules are those of the TFDS builder that made the published C4: what the paper says of
pages (a curly bracket, "lorem ipsum") is looked for in the lines that the other rules kept.
"""

import collections
import dataclasses
import hashlib
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from t5jax.data.records import MAX_RECORD_BYTES, BadColumn, BadRecord, Record, Row, Source
from t5jax.data.sources.sentences import split_sentences
from t5jax.data.sources.text_lines import numbered_lines
from t5jax.errors import ConfigError, DataError

DEDUPLICATIONS = ("spans", "lines", "none")
SPAN_SENTENCES = 3  # the paper's three-sentence spans
_END_MARKS = (".", "?", "!", '"')
_ELLIPSIS = "..."
_CITATION_MARK = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_POLICY = re.compile(
    "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
)
_PAGE_RULES = ("lorem ipsum", "curly bracket")  # a line that breaks one drops its page
_WITH_PAGE = "in a dropped page"

# text -> (language, probability)
LanguageDetector = Callable[[str], tuple[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CleaningRules:
    """Settings of C4's cleaning rules; a number of 0 or False turns a rule off.

    Lines are dropped that have a word of more than `max_word_length` characters, no
    `terminal_punctuation` (. ? ! " and no ellipsis), fewer than `min_words_per_line` words, the
    word Javascript, or a phrase of cookie and privacy notices. `citation_marks` ([1], [edit],
    [citation needed]) are taken out first. Pages are dropped with "lorem ipsum", a `{`, a bad word
    (from `bad_words` and the lines of `bad_words_file`; none are shipped), fewer than
    `min_sentences` sentences, or when their `language` is another one or less probable than
    `min_language_probability` (by `detector`, or the package langdetect). The paper's first version
    had 5 sentences and 3 words.

    `deduplicate` takes out of a page what an earlier page had: "spans" of three sentences (the
    paper), "lines" (the published builder), or "none".
    """

    VERSION: ClassVar[int] = 1

    min_sentences: int = 3
    min_words_per_line: int = 5
    max_word_length: int = 1000
    terminal_punctuation: bool = True
    citation_marks: bool = True
    javascript_lines: bool = True
    policy_lines: bool = True
    lorem_ipsum: bool = True
    curly_bracket: bool = True
    bad_words: tuple[str, ...] = ()
    bad_words_file: str | None = None
    deduplicate: str = "spans"
    language: str | None = None
    min_language_probability: float = 0.99
    detector: LanguageDetector | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        for field in ("min_sentences", "min_words_per_line", "max_word_length"):
            if getattr(self, field) < 0:
                raise ConfigError(f"{field}={getattr(self, field)}: give 0 (off) or more")
        if self.deduplicate not in DEDUPLICATIONS:
            choices = ", ".join(DEDUPLICATIONS)
            raise ConfigError(f"deduplicate={self.deduplicate!r}: choose one of {choices}")
        if self.detector and not self.language:
            raise ConfigError("detector has no effect without language: name the language to keep")
        if not 0.0 <= self.min_language_probability <= 1.0:
            raise ConfigError(
                f"min_language_probability={self.min_language_probability}: give a share, 0 to 1"
            )

    def all_bad_words(self) -> tuple[str, ...]:
        """The words given and those of the file. Raises DataError when it is empty or no UTF-8."""
        if self.bad_words_file is None:
            return self.bad_words
        words = []
        for _, line in numbered_lines(self.bad_words_file, MAX_RECORD_BYTES):
            if isinstance(line, BadRecord):
                raise DataError(f"{line.place}: {line.reason}")
            words.append(line.strip())
        if not any(words):
            raise DataError(f"{self.bad_words_file}: the file holds no words")
        return (*self.bad_words, *filter(None, words))

    def fingerprint(self) -> str:
        """Changes with any rule, the words of the file and the detector's name."""
        detector = getattr(self.detector, "__qualname__", type(self.detector).__name__)
        text = f"{self!r}\n{self.all_bad_words()}\n{detector}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(slots=True)
class CleaningCounts:
    """Pages and lines read, kept, and dropped by each rule.

    `pages == pages_kept + sum(dropped_pages)`, and likewise for lines; the lines of a dropped page
    are counted as "in a dropped page". `dropped_sentences` are those of repeated spans.
    """

    pages: int = 0
    pages_kept: int = 0
    lines: int = 0
    lines_kept: int = 0
    dropped_sentences: int = 0
    dropped_pages: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    dropped_lines: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, other: "CleaningCounts") -> None:
        """Adds the counts of other pages."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def by_rule(self) -> dict[str, int]:
        """One flat table: pages and lines read and kept, and dropped by each rule."""
        table = {"pages read": self.pages, "pages kept": self.pages_kept}
        table |= {"lines read": self.lines, "lines kept": self.lines_kept}
        table |= {f"pages dropped: {rule}": n for rule, n in sorted(self.dropped_pages.items())}
        table |= {f"lines dropped: {rule}": n for rule, n in sorted(self.dropped_lines.items())}
        return table | {"sentences dropped: repeated": self.dropped_sentences}

    def __str__(self) -> str:
        rows = [("", "pages", "lines"), ("read", self.pages, self.lines)]
        for rule in sorted({*self.dropped_pages, *self.dropped_lines}):
            rows.append((rule, self.dropped_pages[rule], self.dropped_lines[rule]))
        rows.append(("kept", self.pages_kept, self.lines_kept))
        return "\n".join(f"{name:24}{pages:>12}{lines:>12}" for name, pages, lines in rows)


class Cleaner:
    """Applies the rules to pages in turn; deduplicates, and counts.

    Deduplication keeps 8 bytes a span or line (some 60 in Python: 0.5 GB for 350,000 pages), and
    two spans in 2**64 share theirs. It knows only the pages that this cleaner saw.
    """

    def __init__(self, rules: CleaningRules):
        self.rules = rules
        self.counts = CleaningCounts()
        self._seen: set[bytes] = set()
        words = sorted(rules.all_bad_words(), key=len, reverse=True)
        pattern = "|".join(re.escape(word.lower()) for word in words)
        self._bad_word = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)") if words else None
        self._detect = (rules.detector or _langdetect()) if rules.language else None

    def clean(self, text: str) -> str | None:
        """The lines of a page that the rules keep; None when they drop the page."""
        page, lines, dropped = text.splitlines(), [], collections.Counter[str]()
        for raw in page:
            # White space that a citation mark leaves at the end stays, and drops the line: so it
            # was when C4 was made.
            line = self._without_citations(raw.strip())
            rule = self._rule_against(line, raw)
            if rule in _PAGE_RULES:
                return self._drop(len(page), rule)
            if rule:
                dropped[rule] += 1
            else:
                lines.append(line)
        if rule := self._rule_against_page(lines):
            return self._drop(len(page), rule)
        kept, repeated_sentences = self._without_repeats(lines)
        if kept != lines and self._too_short(kept):
            return self._drop(len(page), "repeated")
        dropped["repeated"] += len(lines) - len(kept)
        self.counts.add(
            CleaningCounts(
                pages=1,
                pages_kept=1,
                lines=len(page),
                lines_kept=len(kept),
                dropped_sentences=repeated_sentences,
                dropped_lines=+dropped,
            )
        )
        return "\n".join(kept).strip()

    def _drop(self, lines: int, rule: str) -> None:
        self.counts.pages += 1
        self.counts.lines += lines
        self.counts.dropped_pages[rule] += 1
        self.counts.dropped_lines[_WITH_PAGE] += lines

    def _without_citations(self, line: str) -> str:
        if self.rules.citation_marks and "[" in line:
            return _CITATION_MARK.sub("", line)
        return line

    def _rule_against(self, line: str, raw: str) -> str | None:
        """The rule that a line breaks, looked for in the builder's order; None to keep it."""
        rules = self.rules
        limit = rules.max_word_length
        if limit and len(raw) > limit and any(len(word) > limit for word in raw.split()):
            return "too long a word"
        ends_well = line.endswith(_END_MARKS) and not line.endswith(_ELLIPSIS)
        if rules.terminal_punctuation and not ends_well:
            return "no terminal punctuation"
        if len(line.split()) < rules.min_words_per_line:
            return "too few words"
        lower = line.lower()
        if rules.lorem_ipsum and "lorem ipsum" in lower:
            return "lorem ipsum"
        if rules.javascript_lines and "javascript" in lower:
            return "javascript"
        if rules.curly_bracket and "{" in line:
            return "curly bracket"
        return "policy" if rules.policy_lines and _POLICY.search(lower) else None

    def _rule_against_page(self, lines: list[str]) -> str | None:
        """The rule that drops a page of these lines; None to keep it."""
        if self._too_short(lines):
            return "too few sentences"
        text = "\n".join(lines)
        if self._bad_word and self._bad_word.search(text.lower()):
            return "bad word"
        if self._detect:
            language, probability = self._detect(text)
            if language != self.rules.language:
                return "another language"
            if probability < self.rules.min_language_probability:
                return "unsure language"
        return None

    def _too_short(self, lines: list[str]) -> bool:
        needed = self.rules.min_sentences
        if not needed or not lines:
            return not lines
        return sum(len(split_sentences(line)) for line in lines) < needed

    def _without_repeats(self, lines: list[str]) -> tuple[list[str], int]:
        """Lines without what was seen before, and the number of sentences in repeated spans."""
        if self.rules.deduplicate == "lines":
            return [line for line in lines if self._is_new(line)], 0
        if self.rules.deduplicate == "spans":
            return self._without_repeated_spans(lines)
        return lines, 0

    def _is_new(self, line: str) -> bool:
        key = _key(line)
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _without_repeated_spans(self, lines: list[str]) -> tuple[list[str], int]:
        by_line = [split_sentences(line) for line in lines]
        flat = [sentence for sentences in by_line for sentence in sentences]
        repeated, first_here = [False] * len(flat), {}
        for start in range(len(flat) - SPAN_SENTENCES + 1):
            end = start + SPAN_SENTENCES
            key = _key(" ".join(flat[start:end]))
            # Of a span that repeats within the page one stays: what overlaps it is no repetition.
            if key in self._seen or first_here.setdefault(key, start) <= start - SPAN_SENTENCES:
                repeated[start:end] = [True] * SPAN_SENTENCES
        self._seen.update(first_here)
        if not any(repeated):
            return lines, 0
        kept, position = [], 0
        for line, sentences in zip(lines, by_line, strict=True):
            marks = repeated[position : position + len(sentences)]
            position += len(sentences)
            rest = [s for s, mark in zip(sentences, marks, strict=True) if not mark]
            if rest:
                kept.append(" ".join(rest) if any(marks) else line)
        return kept, sum(repeated)


@dataclasses.dataclass(kw_only=True, slots=True)
class Cleaned:
    """Another source's rows with their text cleaned, without the pages that the rules drop.

    Each shard is cleaned alone, so that any process can read any shard and get the same rows:
    repetitions are found within a shard, not between shards (put what belongs together into one).
    `counts` holds the counts of the shards that this object has read to their ends, by split and
    shard; another process counts for itself.
    """

    VERSION: ClassVar[int] = 1

    source: Source
    rules: CleaningRules = dataclasses.field(default_factory=CleaningRules)
    text_column: str = "text"
    counts: dict[tuple[str, str], CleaningCounts] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def splits(self) -> tuple[str, ...]:
        """Those of the source."""
        return self.source.splits()

    def shards(self, split: str) -> list[str]:
        """Those of the source."""
        return self.source.shards(split)

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """Cleaned rows; a row without the text is a `BadRecord`."""
        cleaner = Cleaner(self.rules)
        for record in self.source.records(split, shard):
            if isinstance(record, Row):
                yield from self._cleaned(cleaner, record)
            else:
                yield record
        self.counts[split, shard] = cleaner.counts

    def total(self) -> CleaningCounts:
        """The sum of all counts so far."""
        total = CleaningCounts()
        for counts in self.counts.values():
            total.add(counts)
        return total

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """The source's, and the rules'."""
        of_source: Any = getattr(self.source, "shard_fingerprint", lambda split, shard: "")
        return f"{of_source(split, shard)}, cleaned by {self.rules.fingerprint()}"

    def _cleaned(self, cleaner: Cleaner, row: Row) -> Iterator[Record]:
        try:
            text = cleaner.clean(row.text(self.text_column))
        except BadColumn as error:
            yield BadRecord(row.place, str(error))
            return
        if text is not None:
            yield Row({**row, self.text_column: text}, row.place)


def _key(text: str) -> bytes:
    """8 bytes of a text's hash, its case and white space made equal."""
    normal = " ".join(text.lower().split())
    return hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _langdetect() -> LanguageDetector:
    """The detector C4 used, with its seed fixed: it draws random numbers."""
    try:
        langdetect = importlib.import_module("langdetect")
    except ImportError as error:
        raise ConfigError(
            "language needs the package langdetect (`pip install langdetect`), or a detector of "
            "your own: detector=function(text) -> (language, probability)"
        ) from error
    langdetect.DetectorFactory.seed = 0

    def detect(text: str) -> tuple[str, float]:
        try:
            best = langdetect.detect_langs(text)[0]
        except langdetect.LangDetectException:
            return "", 0.0
        return best.lang, best.prob

    return detect
