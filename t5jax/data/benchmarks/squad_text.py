"""Text as T5 writes it for question answering: every punctuation mark between spaces.

T5 has had two rules, under the same task names:

- `non_word`: its source before April 2022, with which the published models were trained. The marks
  are RE2's `\\W`: all but ASCII letters, digits, `_` and white space, so that `Queñua` becomes
  `Que ñ ua` and `file_name` stays. The tasks of T5's names have this rule here.
- `ascii_punctuation`: its source since April 2022. The marks are RE2's `[[:punct:]]`, the 32 of
  ASCII and no others: `Queñua` stays, `file_name` becomes `file _ name`. Tasks whose names end in
  `_ascii_punctuation` have this rule.
"""

import re
from typing import Literal

PunctuationRule = Literal["non_word", "ascii_punctuation"]
_MARKS: dict[PunctuationRule, re.Pattern] = {
    "non_word": re.compile(r"([^0-9A-Za-z_\t\n\f\r ])"),
    "ascii_punctuation": re.compile(r"([!-/:-@\[-`{-~])"),
}
_SPACES = re.compile(r"[\t\n\f\r ]+")


def pad_punctuation(text: str, rule: PunctuationRule = "non_word") -> str:
    """`It's 3.5` -> `It ' s 3 . 5`: spaces around the marks of a rule, then single ones."""
    return single_spaces(" ".join(_MARKS[rule].split(text)))


def single_spaces(text: str) -> str:
    """Runs of white space as one space; those at the ends stay, one each."""
    return _SPACES.sub(" ", text)
