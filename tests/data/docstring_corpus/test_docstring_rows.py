"""Rows of sentences and parameters, from packages that are made up."""

import json

import pytest

from t5jax.data.docstring_corpus import rows as rows_module
from t5jax.data.docstring_corpus.rows import (
    CLASSES,
    VALIDATION_SHARE,
    collect_rows,
    share_of,
    type_name,
)
from t5jax.data.docstring_corpus.source import python_files
from t5jax.errors import DataError

MODULE = '''
def brew_{n}(minutes, hot):
    """Returns the tea of pot {n} that {package} has brewed for the guests.

    It is not returned if the guests of pot {n} prefer to drink the coffee of {package}. Short one.

    Parameters
    ----------
    minutes : int, optional
        For how long the leaves of pot {n} of {package} stay in. It may be long.
    hot : bool
        Whether the tea of pot {n} of {package} is hot.
    shape : tuple
        The shape of the pot {n} of {package} in inches.
    """
'''


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """60 files of each class, fewer of the first, and one package that is no class."""
    root = tmp_path_factory.mktemp("packages")
    for package in (*CLASSES, "other"):
        (root / package).mkdir()
        for n in range(30 if package == CLASSES[0] else 60):
            (root / package / f"pot{n}.py").write_text(MODULE.format(n=n, package=package))
    return python_files([str(root)])


def test_rows(files):
    rows = collect_rows(files)
    assert {"text": "Whether the tea of pot 7 of nltk is hot.", "type": "bool"} in (
        rows["train/types"] + rows["validation/types"]
    )
    texts = [row["text"] for row in rows["train/sentences"] + rows["validation/sentences"]]
    assert "Returns the tea of pot 7 that nltk has brewed for the guests." in texts
    assert "Short one." not in texts
    kinds = {row["type"] for row in rows["train/types"]}
    assert kinds == {"int", "bool"}  # a tuple is none of the six
    first = [row["text"] for row in rows["train/types"] if row["type"] == "int"]
    assert all(text.endswith(" stay in.") for text in first)


def test_files_are_of_one_split_and_texts_come_once(files):
    twice = collect_rows({**files, "again": files["other"]}, num_processes=2)
    assert twice == collect_rows(files)
    for package, own in files.items():
        for file in own:
            held_out = share_of(file.name) < VALIDATION_SHARE
            number = file.name.split("pot")[1].removesuffix(".py")
            text = f"Returns the tea of pot {number} that {package} has brewed for the guests."
            row = {"text": text, "package": package}
            assert (row in twice["validation/sentences"]) == held_out
            assert (row in twice["train/sentences"]) == (not held_out)


def test_a_text_of_one_split_is_not_in_the_other(files, tmp_path):
    """Prose of a file of train, and the description of a parameter in one of validation."""
    names = [f"same/pot{n}.py" for n in range(100)]
    train, held_out = (
        next(name for name in names if (share_of(name) < VALIDATION_SHARE) == side)
        for side in (False, True)
    )
    text = "Whether the tea is hot enough for all of the guests."
    entry = "Parameters\n    ----------\n    hot : bool\n        "
    (tmp_path / "same").mkdir()
    (tmp_path / train).write_text(f'def brew():\n    """{text}"""\n')
    (tmp_path / held_out).write_text(
        f'def pour():\n    """Pours tea.\n\n    {entry}{text}\n    """\n'
    )
    same = sorted(python_files([str(tmp_path)])["same"], key=lambda file: file.name != train)
    found = collect_rows({**files, "same": same})
    assert {"text": text, "package": "same"} in found["train/sentences"]
    assert {"text": text, "type": "bool"} not in found["validation/types"]
    alone = collect_rows({**files, "same": same[1:]})
    assert {"text": text, "type": "bool"} in alone["validation/types"]


def test_classes_are_balanced(files):
    rows = collect_rows(files)
    for split in ("train", "validation"):
        counts = [
            sum(row["package"] == name for row in rows[f"{split}/packages"]) for name in CLASSES
        ]
        assert len(set(counts)) == 1
        of_all = [row["package"] for row in rows[f"{split}/sentences"]]
        assert counts[0] == min(map(of_all.count, CLASSES))
        assert sum(counts) == len(rows[f"{split}/packages"])
    # The first class is all there, the others are the first of twice as many: still mixed.
    half = rows["train/packages"][: len(rows["train/packages"]) // 2]
    shares = [sum(row["package"] == name for row in half) / len(half) for name in CLASSES]
    assert all(abs(share - 1 / len(CLASSES)) < 0.08 for share in shares)


def test_shares_are_evenly_spread():
    shares = sorted(share_of(f"file {n}") for n in range(1000))
    assert all(abs(share - n / 1000) < 0.05 for n, share in enumerate(shares))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("int, optional", "int"),
        ("`~numpy.ndarray`, shape (n,)", "array"),
        ("Boolean", "bool"),
        ("array-like or None", "array"),
        ("callable ``f(x)``", "callable"),
        ("tuple of int", None),
        ("{'a', 'b'}", None),
        ("(n,) ndarray", None),
        ("integers", None),
    ],
)
def test_type_names(written, name):
    assert type_name(written) == name


def test_files(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rows_module, "installed_files", lambda: files)
    monkeypatch.setattr(rows_module, "PACKAGES", (*CLASSES, "other"))
    rows_module.write(str(tmp_path))
    said = capsys.readouterr().out
    for name, rows in collect_rows(files).items():
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows
        assert f"{name}.jsonl: {len(rows):,} rows" in said
    monkeypatch.setattr(rows_module, "PACKAGES", ("nltk", "no_such_package"))
    with pytest.raises(DataError, match="not installed: no_such_package"):
        rows_module.write(str(tmp_path))
