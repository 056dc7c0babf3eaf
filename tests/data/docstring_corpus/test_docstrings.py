"""The embedded corpus: what counts as documentation, what is left of it, how it is split."""

import ast
import pathlib
import pickle
import sysconfig

import pytest

from t5jax.data.docstring_corpus import Docstrings
from t5jax.data.docstring_corpus.prose import prose, reads_as_english, strip_markup
from t5jax.data.docstring_corpus.python_strings import documentation_strings
from t5jax.data.docstring_corpus.source import VALIDATION_SHARE, python_files, validation_packages
from t5jax.data.records import Row
from t5jax.errors import DataError

STDLIB = pathlib.Path(sysconfig.get_paths()["stdlib"])


def docstrings_by_ast(source: str) -> list[str]:
    """The reference: Python's own parser."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    texts = [ast.get_docstring(node, clean=False) for node in nodes]
    return sorted(text for text in texts if text is not None)


@pytest.mark.parametrize("package", ["asyncio", "email", "json", "logging", "urllib", "xml"])
def test_scanner_agrees_with_pythons_parser(package):
    found = 0
    for path in sorted((STDLIB / package).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        expected = docstrings_by_ast(source)
        assert sorted(documentation_strings(source)) == expected, path
        found += len(expected)
    assert found > 10


def test_scanner_on_ambiguous_source():
    source = '''#!/usr/bin/python
# coding: utf-8

r"""Module \\d."""
text = """not this"""; more = {"key": "x # y"}  # "nor this"
class A:  # a comment with """ in it

    # another: with a colon
    'One line, \\'single\\' quotes \\N{BULLET}'
    value = """
    nor this one
    """
    def f(self, x="a", *, y='"""'):
        """With "quotes" and \\"escapes\\"."""; return x
    def g(self):
        return """not a first statement"""
    def h(self):
        b"""bytes"""
    def i(self):
        f"""no {1}"""
'''
    assert sorted(documentation_strings(source)) == docstrings_by_ast(source)
    assert len(docstrings_by_ast(source)) == 3


MIXED = """Reads a *table* from the :class:`~package.io.File` object that is ``given``.

    The rows are returned in the order in which they were `written <https://x.org>`_ to
    the file [1]_. For example::

        table = read_table("a.csv")
        the code is gone and so is this

    >>> read_table("a.csv").rows[0]
    this is the output of a doctest

    .. note::
       Reading stops at the first row that is not complete.

    .. math:: x = y

    +-----+-----+
    | one | two |
    +-----+-----+

    Parameters
    ----------
    path, other : str or path-like, optional
        The name of the file that is to be read. It must exist.
    limit : int
        number of rows

    Returns
    -------
    Table

    Args:
      mode (str): how the file is opened, which is for reading if it is not given
      **extra: Further options that are passed on to the reader of the file.

    - The first of the things that can go wrong with it.
    :param name: The name that is used for the table in the catalogue.
    :rtype: int
"""


def test_prose_extraction():
    assert prose(MIXED) == [
        "Reads a table from the package.io.File object that is given.",
        "The rows are returned in the order in which they were written to the file.",
        "Reading stops at the first row that is not complete.",
        "The name of the file that is to be read. It must exist.",
        "How the file is opened, which is for reading if it is not given.",
        "Further options that are passed on to the reader of the file.",
        "The first of the things that can go wrong with it.",
        "The name that is used for the table in the catalogue.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Returns the number of rows in the table.", True),
        ("Returns rows.", False),  # too short
        ("returns the number of rows in the table.", False),  # no capital
        ("Returns the number of rows in the table", False),  # no full stop
        ("Foo bar baz qux quux corge grault garply.", False),  # no small words
        ("X = a[i] + b[j] for all i in the set {1, 2}.", False),  # a formula
        ("Gibt die Anzahl der Zeilen in der Tabelle.", False),  # not English
        ("See https://a.org/b and http://c.org for the details of it.", False),
    ],
)
def test_english_detection(text, expected):
    assert reads_as_english(text) is expected


def test_strip_markup():
    text = r"Use :func:`f() <mod.f>`, ``*args``, **bold** `x`__, link_, [t](u) and a\*b <b>c</b>."
    assert strip_markup(text) == "Use f(), *args, bold x, link, t and a*b c."


SHARED = "This sentence is shared by all of the packages that were made here."


@pytest.fixture
def site(tmp_path) -> pathlib.Path:
    """Thirty packages; each has its own sentences, one that all share, and things to leave out."""
    for i in range(30):
        package = tmp_path / f"package{i:02d}"
        (package / "tests").mkdir(parents=True)
        own = f"This is the text number {i} of the package, and it is not like any of the others."
        code = f'"""{own}\n\n{SHARED}"""\ndef f():\n    """Too short a text."""\n'
        (package / "__init__.py").write_text(code, encoding="utf-8")
        (package / "tests" / "a.py").write_text(f'"""A test of the {i} that is left out of it."""')
        (package / "test_b.py").write_text(f'"""A test of the {i} that is left out as well."""')
        (package / "latin.py").write_bytes(
            b'"""Caf\xe9 is not the UTF-8 that Python wants here."""'
        )
    return tmp_path


def rows_of(source: Docstrings, split: str) -> list[Row]:
    rows = list(source.records(split, "all"))
    assert all(isinstance(row, Row) for row in rows)
    return rows


def corpus(source: Docstrings) -> dict[str, list[str]]:
    return {split: [row["text"] for row in rows_of(source, split)] for split in source.splits()}


def test_packages_are_split_and_paragraphs_are_unique(site):
    texts = corpus(Docstrings(roots=(str(site),)))
    owners = {
        split: {int(text.split("number ")[1].split()[0]) for text in own}
        for split, own in texts.items()
    }
    assert len(owners["train"] | owners["validation"]) == 30
    assert not owners["train"] & owners["validation"]
    assert len(owners["validation"]) in (
        1,
        2,
    )  # 6.5 % of 30 packages of one size, each <= 2 % or one
    everything = "\n".join(texts["train"] + texts["validation"])
    assert everything.count(SHARED) == 1
    assert SHARED not in "\n".join(texts["validation"])
    assert "left out" not in everything
    assert "Too short" not in everything
    assert "Caf" not in everything


def test_the_corpus_is_deterministic_and_survives_pickling(site):
    source = Docstrings(roots=(str(site),))
    first = corpus(source)
    assert rows_of(source, "train")[2].place == "embedded corpus, train, document 2"
    from t5jax.data.docstring_corpus import source as docstrings

    docstrings._corpus.cache_clear()
    assert corpus(pickle.loads(pickle.dumps(source))) == first
    fingerprint = source.shard_fingerprint("train", "all")
    (site / "package03" / "more.py").write_text('"""Another text that is new in here."""')
    assert source.shard_fingerprint("train", "all") != fingerprint


def test_validation_is_a_stable_choice_of_small_packages():
    sizes = {f"p{i}": 100 + i for i in range(200)} | {"giant": 50_000}
    chosen = validation_packages(sizes)
    assert validation_packages(dict(reversed(sizes.items()))) == chosen
    assert "giant" not in chosen
    share = sum(sizes[name] for name in chosen) / sum(sizes.values())
    assert VALIDATION_SHARE - 0.005 < share <= VALIDATION_SHARE
    assert validation_packages({"a": 5, "b": 3}) == {"b"}
    with pytest.raises(DataError, match="found 1 packages"):
        validation_packages({"a": 5})


def test_invalid_settings_are_refused(tmp_path, site):
    with pytest.raises(DataError, match="no split 'test'"):
        Docstrings().shards("test")
    with pytest.raises(DataError, match="one shard, 'all', not '3'"):
        next(Docstrings().records("train", "3"))
    with pytest.raises(DataError, match="target_bytes=0"):
        Docstrings(target_bytes=0)
    empty = tmp_path / "empty"
    for name in ("a", "b"):
        (empty / name).mkdir(parents=True)
        (empty / name / "m.py").write_text("x = 1\n")
    with pytest.raises(DataError, match="no English documentation strings"):
        corpus(Docstrings(roots=(str(empty),)))


@pytest.mark.slow
def test_a_sample_of_this_environment_reads_as_english():
    texts = corpus(Docstrings(target_bytes=400_000))
    size = {split: sum(len(text.encode()) for text in own) for split, own in texts.items()}
    assert 370_000 < size["train"] < 600_000
    assert 0.05 < size["validation"] / (size["train"] + size["validation"]) < 0.10
    paragraphs = [line for own in texts.values() for text in own for line in text.split("\n")]
    assert len({line.lower() for line in paragraphs}) == len(paragraphs)
    assert all(reads_as_english(line) for line in paragraphs)
    packages = python_files((str(STDLIB),))
    assert list(packages) == ["python"]
