"""Identities of tasks: every edit of their texts shows, nothing else does, on any Python."""

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

from t5jax.data import registry
from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS
from t5jax.data.config import DataConfig
from t5jax.data.objectives import SpanCorruption
from t5jax.data.registry.corpora import CORPORA, TEXT_TASKS
from t5jax.data.registry.texts import task_documents
from t5jax.data.sources import JsonLines, Tsv
from t5jax.data.tasks import ExampleTask, identity
from t5jax.data.tasks.identity import NO_SOURCE, identity_of
from t5jax.data.vocabularies import ByteVocabulary
from tests.data.tasks import functions_of_all_kinds
from tests.data.tasks.functions_of_all_kinds import Prefixed, made, plain

HERE = pathlib.Path(__file__).parent
BUILT_IN = HERE.parents[1] / "golden" / "identities_of_built_in_tasks.json"
# Of everything in functions_of_all_kinds.py. Another value means that stores which users have made
# are refused: change it only with reader.FORMAT_VERSION.
GOLDEN = "759ea810ec29c727"


def printed_by(python, seed="0"):
    """What identities.py prints under an interpreter."""
    done = subprocess.run(
        [python, HERE / "identities.py", identity.__file__],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def interpreter(version):
    """The path of an installed Python; skips where there is none."""
    home = pathlib.Path.home()
    found = [
        *home.glob(f".pyenv/versions/{version}.*/bin/python{version}"),
        *home.glob(f".local/share/uv/python/cpython-{version}.*/bin/python{version}"),
        *filter(None, [shutil.which(f"python{version}")]),
    ]
    for path in found:
        if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    pytest.skip(f"Python {version} is not installed")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_same_on_every_python(version):
    printed = printed_by(interpreter(version))
    assert hashlib.sha256(printed.encode()).hexdigest()[:16] == GOLDEN, printed


def test_the_same_in_every_process_and_under_any_name_of_the_module():
    printed = {printed_by(sys.executable, seed) for seed in "12"}
    everything = functions_of_all_kinds.EVERYTHING
    here = {name: identity_of(thing) for name, thing in everything.items()}
    here["foreign"]["type"] = "functions_of_all_kinds.Lines"  # all that is known is its full name
    assert {json.dumps(here, indent=1) + "\n"} == printed


def test_identities_are_distinct():
    everything = functions_of_all_kinds.EVERYTHING
    names = {}
    for name, thing in everything.items():
        names.setdefault(str(identity_of(thing)), []).append(name)
    # The same lambda twice.
    assert [same for same in names.values() if len(same) > 1] == [["alone", "first"]]


def test_equal_functions_are_equal():
    assert identity_of(made("a")) == identity_of(made("a"))
    assert identity_of(Prefixed("p")) == identity_of(Prefixed("p"))


@dataclasses.dataclass(frozen=True)
class Making:
    prefix: str
    make: object


def test_an_owner_that_holds_its_method_ends():
    holder = Making("p", None)
    object.__setattr__(holder, "make", types.MethodType(plain, holder))
    function, owner = identity_of(holder.make)["method"]
    assert function == identity_of(plain)
    assert owner["make"]["method"] == [function, {"type": f"{__name__}.Making"}]


def test_settings_change_the_identity():
    pairs = [
        (made("a"), made("b")),
        (functools.partial(plain, label="c"), functools.partial(plain, label="d")),
        (Making("p", made("a")), Making("q", made("a"))),
        (Making("p", made("a")), Making("p", made("b"))),
        (Tsv(train_files=("a",)), Tsv(train_files=("b",))),
        (Tsv(train_files=("a",)), JsonLines(train_files=("a",))),
    ]
    for one, other in pairs:
        assert identity_of(one) != identity_of(other), one


ORIGINAL = '''
def examples(row, label="x"):
    """What it makes."""
    # A remark.
    return [{"inputs": f"a: {row['text']}", "targets": label}]
'''


def identity_in_file(path, text, name="examples"):
    """Of a name of a module with such a text, imported afresh."""
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("edited", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["edited"] = module
    try:
        exec(compile(text, str(path), "exec"), vars(module))
        return identity_of(getattr(module, name))
    finally:
        del sys.modules["edited"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("    # A remark.\n", "\n\n"),
        lambda text: text.replace("What it makes.", "Makes examples."),
        lambda text: text.replace('    """What it makes."""\n', ""),
        lambda text: text.replace("(row, label=", "(row: dict, label: str =").replace(
            "):", ") -> list:"
        ),
        lambda text: text.replace('[{"inputs"', '[\n  {\n    "inputs"'),
        lambda text: "import os\n\n\n" + text,
        lambda text: ast.unparse(ast.parse(text)),
        lambda text: text.replace("def examples", "def another"),
    ],
)
def test_an_edit_that_changes_nothing(tmp_path, edit):
    before = identity_in_file(tmp_path / "a.py", ORIGINAL)
    edited = edit(ORIGINAL)
    assert edited != ORIGINAL
    name = "another" if "another" in edited else "examples"
    assert identity_in_file(tmp_path / "a.py", edited, name) == before
    assert set(before) == {"source_text", "defaults"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a: {", "b: {"),
        ("['text']", "['body']"),
        ('label="x"', 'label="y"'),
        ('"targets": label', '"targets": label + ""'),
        ("return [", "return 2 * ["),
        ("row, label", "row, /, label"),
        ("def examples", "@staticmethod\ndef examples"),
    ],
)
def test_an_edit_that_changes_something(tmp_path, old, new):
    before = identity_in_file(tmp_path / "a.py", ORIGINAL)
    assert old in ORIGINAL
    assert identity_in_file(tmp_path / "a.py", ORIGINAL.replace(old, new)) != before


def test_an_edit_of_a_class_shows_unless_it_states_a_version(tmp_path):
    text = "class Mine:\n    {}\n    def records(self, split, shard):\n        return {}\n"
    for first, same in (("", False), ("VERSION = 1", True)):
        one, other = (
            identity_in_file(tmp_path / "a.py", text.format(first, value), "Mine") for value in "12"
        )
        assert (one == other) == same
    assert other == {"type": "Mine", "stated_version": 1}
    assert identity_in_file(tmp_path / "a.py", text.format("VERSION = 2", 1), "Mine") != other


class OfTheUser(Tsv):
    """Has its own code, and so not the version of t5jax's class."""


def test_a_subclass_of_ours_has_its_own_source_text():
    assert "stated_version" not in identity_of(OfTheUser())
    assert set(identity_of(OfTheUser())) == {"source_text", *identity_of(Tsv())} - {
        "stated_version"
    }


def test_code_without_source_text_is_identified_by_name_with_a_note():
    namespace = {"__name__": "typed_in"}
    exec("def examples(row):\n    return []\n", namespace)
    function = namespace["examples"]
    assert identity_of(function) == {"function": "examples", "note": NO_SOURCE}
    function.VERSION = "2"
    assert identity_of(function) == {"function": "examples", "stated_version": "2"}


def test_own_code_is_identified_by_name_and_version():
    """Wherever its file lies, and however it is written."""
    assert identity_of(identity_of) == {
        "function": "t5jax.identity_of",
        "stated_version": 1,
        "defaults": [[[]], None],
    }
    assert identity_of(Tsv(train_files=("a.tsv",))) == {
        "type": "t5jax.Tsv",
        "stated_version": 1,
        "train_files": ["a.tsv"],
        "validation_files": [],
        "test_files": [],
        "max_record_bytes": 64 << 20,
        "delimiter": "\t",
        "columns": [],
        "quoting": False,
    }


@pytest.mark.parametrize("kind", ["text", "examples"])
def test_the_version_of_a_task_is_part_of_it(kind, monkeypatch):
    data = DataConfig(mixture="mine", vocabulary=ByteVocabulary(), cache_dir=None)
    source = CORPORA["text"].source
    task = (
        CORPORA["text"].task("mine", SpanCorruption())
        if kind == "text"
        else ExampleTask(name="mine", description="", source=source, examples=plain)
    )
    found = []
    for version in (1, 2, "2.0.1"):
        task = dataclasses.replace(task, version=version)
        monkeypatch.setattr(registry, "find_task", lambda name, data, task=task: task)
        found.append(task_documents(task, data).identity())
    assert [record.pop("stated_version") for record in found] == [1, 2, "2.0.1"]
    assert found[0] == found[1] == found[2]


DATA = DataConfig(
    mixture="mine",
    vocabulary=ByteVocabulary(),
    cache_dir=None,
    train_files=("a",),
    datasets_dir="sets",
    huggingface_dataset="a/b",
)


def test_built_in_tasks_keep_their_identities():
    """Moving and renaming must not refuse the stores that users have.

    Where a task's texts change, raise its `version` (or its source's) and write the new value:
    python -m tests.data.tasks.test_identity
    """
    assert identities_of_built_in_tasks() == json.loads(BUILT_IN.read_bytes())


def identities_of_built_in_tasks():
    tasks = {**TEXT_TASKS, **SUPERVISED_TASKS}
    records = {name: task_documents(task, DATA).identity() for name, task in tasks.items()}
    return {
        name: hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
        for name, record in records.items()
    }


def test_own_classes_have_unique_names():
    """Without their modules, which may move."""
    classes = {}

    def collect(thing):
        if dataclasses.is_dataclass(thing):
            classes.setdefault(identity_of(thing)["type"], set()).add(type(thing))
            for field in dataclasses.fields(thing):
                collect(getattr(thing, field.name))

    for task in (*TEXT_TASKS.values(), *SUPERVISED_TASKS.values()):
        collect(task.source(DATA))
        collect(getattr(task, "examples", None))
        collect(getattr(task, "eval_examples", None))
    assert len(classes) > 20
    assert all(len(same) == 1 for same in classes.values()), classes
    assert all(name.startswith("t5jax.") for name in classes)


if __name__ == "__main__":
    BUILT_IN.write_text(json.dumps(identities_of_built_in_tasks(), indent=1) + "\n")
