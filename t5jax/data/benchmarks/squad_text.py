"""Text as T5 writes it for question answering: every punctuation mark between spaces."""

import re

# RE2, which T5 used, knows ASCII only: é is no word character and gets its spaces too.
_MARK = re.compile(r"([^0-9A-Za-z_\t\n\f\r ])")
_SPACES = re.compile(r"[\t\n\f\r ]+")


def pad_punctuation(text: str) -> str:
    """`It's 3.5` -> `It ' s 3 . 5`: spaces around what is no ASCII word character, then single."""
    return single_spaces(" ".join(_MARK.split(text)))


def single_spaces(text: str) -> str:
    """Runs of white space as one space; those at the ends stay, one each."""
    return _SPACES.sub(" ", text)
