"""Extracting English prose from docstrings: paragraphs, no code, doctests, tables or markup.

Documentation strings mix sentences with reStructuredText, Google's and NumPy's parameter sections,
doctests and drawings. `prose` cuts the text into blocks by its layout, drops the blocks that are
not text, takes the markup off the rest and keeps what reads as English sentences.
"""

import inspect
import re
from collections.abc import Iterator

_KEPT_DIRECTIVES = {"note", "warning", "attention", "caution", "hint", "important", "tip"}
_DIRECTIVE = re.compile(r"\.\.\s+([\w:-]+?)::\s*(.*)\Z")
_FENCE = re.compile(r"```|~~~")
_CODE_PROMPT = re.compile(r">>>|\.\.\. |In \[\d*\]:|Out\[\d*\]:|[$%#!] ")
_RULE = re.compile(r"([=\-~^\"'`#*+_.:])\1{2,}\Z")
_TABLE = re.compile(r"\|.*\|\Z|\+.*\+\Z|\S {3,}\S.* {3,}\S|={2,} +={2,}|-{2,} +-{2,}|[─│┌└├╭╰]")
_BULLET = re.compile(r"(?:[-*+•]|\(?(?:\d{1,2}|[a-zA-Z])[.)])\s+(?=\S)")
_FIELD = re.compile(
    r"[:@][a-z]+(?: [^:\s]+){0,3}:(?:\s+|\Z)"
)  # ":param x: what it is", "@return: …"
_NAME = r"`{0,2}\*{0,2}[A-Za-z_][\w.\[\]-]*`{0,2}"
# NumPy's "x, y : array_like", a line of its own; Google's "x (int): what it is".
_TYPED = re.compile(rf"{_NAME}(?:(?:,| or) {_NAME})* : ")
_ENTRY = re.compile(rf"{_NAME}(?: ?\([^)]{{0,80}}\))?(?: -+|:)\s+(?=\S)")
_TITLE = re.compile(r"\W*(?:\w+\W+){0,4}\w+:?\Z")  # a line of few words that no sentence ends

_MARKUP = (  # (a character without which the pattern cannot match, pattern, replacement)
    (":", re.compile(r":[\w:+-]+:`[~!.]?([^`<]*?)\s*(?:<[^`>]*>)?`"), r"\1"),  # :class:`~a.b`
    ("<", re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{0,2}"), r"\1"),  # `text <url>`_
    ("[", re.compile(r"\[([^\]\[]+)\]\([^()\s]*\)"), r"\1"),  # [text](url)
    ("`", re.compile(r"`+([^`]+)`+_{0,2}"), r"\1"),  # ``code``, `name`, `link`_
    ("*", re.compile(r"\*{1,3}(?=\S)([^*]+?)(?<=\S)\*{1,3}"), r"\1"),  # *emphasis*
    ("[", re.compile(r"\s*\[(?:\d+|#?\w+)\]_"), ""),  # [1]_
    ("_", re.compile(r"(?<=\w)_{1,2}(?=[\s.,;)]|\Z)"), ""),  # link_
    ("<", re.compile(r"</?(?:a|b|br|code|em|i|li|p|strong|tt|ul)(?: [^<>]*)?/?>"), ""),  # <b>
    ("\\", re.compile(r"\\([*`_|<>\\ ])"), r"\1"),  # \* in reStructuredText
)

_WORD = re.compile(  # letters, between white space; quotes, brackets and stops may touch them
    r"(?<!\S)[\"'“‘(\[]*[A-Za-z]+(?:[-'’/][A-Za-z]+)*[\"'”’)\]]*[.,;:!?]*[\"'”’)]*(?!\S)"
)
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a all also an and any are as at be been but by can each either for from has have how if
        in into is it its may more must no not of on one only or other should so such than that the
        their then there these this to use used value was when where whether which while will with
        you your""",
    )
)
_SENTENCE = re.compile(r"[\"'“‘(]?[A-Z].*[.!?][\"'”’)]*\Z", re.DOTALL)
_PLAIN_START = re.compile(r"[a-z]+[ ,'-]")
_LAST_SENTENCE = re.compile(r"(?<=[.!?])\s+[^.!?]*:\Z")  # "… is possible. For example:"
_NOT_PROSE = re.compile(
    r"https?:|www\.|[{}<>=\\|^~@$#]|\(\)|__|:{2}|-{2}|\.{4}|[^\x00-\x7f–—‘’“”…é°×]"
)
_MIN_WORDS = 5


def prose(docstring: str) -> list[str]:
    """Paragraphs of English sentences, without line breaks; an empty list where there are none."""
    paragraphs = (
        as_sentences(strip_markup(text), described) for text, described in text_blocks(docstring)
    )
    return [paragraph for paragraph in paragraphs if reads_as_english(paragraph)]


def strip_markup(text: str) -> str:
    """The text without reStructuredText, Markdown and HTML marks."""
    for needed, pattern, replacement in _MARKUP:
        if needed in text:
            text = pattern.sub(replacement, text)
    return text


def as_sentences(text: str, described: bool) -> str:
    """Text with white space made single and without a last sentence that led to code ("For
    example:").

    A description of a parameter or a list item (`described`) often lacks a sentence's capital and
    full stop: they are added.
    """
    text = _LAST_SENTENCE.sub("", " ".join(text.split()))
    if described and len(text) > 1:
        text = text[0].upper() + text[1:] if _PLAIN_START.match(text) else text
        text += "." if text[-1].isalnum() or text[-1] in "\"')" else ""
    return text


def reads_as_english(paragraph: str) -> bool:
    """Whether a paragraph is made of sentences: a capital, a full stop, words, and the small words
    between them."""
    words = paragraph.split()
    n = len(words)
    if n < _MIN_WORDS or not _SENTENCE.match(paragraph):
        return False
    if len([word for word in words if word in _FUNCTION_WORDS]) < 0.18 * n:
        return False
    plain = _WORD.findall(paragraph)
    if len(plain) < 0.75 * n or sum(map(str.islower, plain)) < 0.55 * n:
        return False
    return len(_NOT_PROSE.findall(paragraph)) <= 0.04 * n


def text_blocks(docstring: str) -> Iterator[tuple[str, bool]]:
    """Text that belongs together, markup still in it; and whether it is a description: that of a
    parameter, or a list item."""
    block = _Block()
    # Lines indented deeper than this belong to a code block or a directive.
    hidden_below: int | None = None
    fenced = in_code = False
    for raw in inspect.cleandoc(docstring).splitlines():
        line = raw.strip()
        indent = len(raw) - len(raw.lstrip())
        if not line:
            in_code = False
            yield from block.take()
            continue
        if _FENCE.match(line):
            fenced = not fenced
            yield from block.take()
            continue
        if fenced or in_code or (hidden_below is not None and indent > hidden_below):
            continue
        hidden_below = None
        if not line[0].isalpha():
            if _CODE_PROMPT.match(line):
                in_code = True
                yield from block.take()
                continue
            if _RULE.match(line):
                block.drop_title()
                yield from block.take()
                continue
            if line.startswith(".. "):
                yield from block.take()
                directive = _DIRECTIVE.match(line)
                if not directive or directive[1] not in _KEPT_DIRECTIVES:
                    hidden_below = indent
                line = directive[2] if directive and hidden_below is None else ""
                if not line:
                    continue
        if ("   " in line or not line.isascii() or line[0] in "|+=-") and _TABLE.search(line):
            yield from block.take()
            continue
        if line.endswith("::"):
            hidden_below = indent
            line = line[:-1]
        yield from block.add(line, indent)
    yield from block.take()


class _Block:
    """Lines gathered until the layout says that they end: one paragraph, list item or
    description."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.first = self.last = 0  # indents of the first and the last line
        self.described = False

    def take(self) -> Iterator[tuple[str, bool]]:
        """What was gathered, if anything; the block is empty after it."""
        if self.lines:
            yield " ".join(self.lines), self.described
        self.lines, self.described = [], False

    def drop_title(self) -> None:
        """Forgets the last line: it stood above a rule of dashes."""
        del self.lines[-1:]

    def add(self, line: str, indent: int) -> Iterator[tuple[str, bool]]:
        """Takes a line in; gives what was gathered before when the line begins something new."""
        if len(self.lines) == 1 and indent > self.last and _TITLE.match(self.lines[0]):
            self.lines, self.described = [], True  # "Args:", "x": a heading over a description
        item = _FIELD.match(line) if line[0] in ":@" else None
        if not (line[0].isalpha() and line[1:2].isalpha()):  # most lines are plain text: spare them
            item = item or _BULLET.match(line)
        if not item and (not self.lines or indent <= self.first):
            if " : " in line and _TYPED.match(line):
                yield from self.take()
                self.described = True
                return
            if ": " in line or " -" in line:
                item = _ENTRY.match(line)
        if item or (self.lines and indent < self.first):
            yield from self.take()
        if item:
            self.described = True
            line = line[item.end() :]
            name = _TYPED.match(line) or _ENTRY.match(line)  # "- x: what it is"
            line = line[name.end() :] if name else line
        if not self.lines:
            self.first = indent
        self.lines.append(line)
        self.last = indent
