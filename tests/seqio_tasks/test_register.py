"""What is registered with seqio, under what names, and what is refused."""

import importlib
import subprocess
import sys

import pytest

from t5jax.data import registry
from t5jax.data.benchmarks.mixtures import MIXTURES
from t5jax.data.config import DataConfig
from t5jax.data.inspect.catalog import entries
from t5jax.data.objectives import OBJECTIVES
from t5jax.data.registry import add_mixture, add_task, names
from t5jax.data.registry.builtin import TABLE
from t5jax.data.registry.corpora import CORPORA
from t5jax.data.tasks import Custom, Mixture
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError
from t5jax.seqio_tasks import register
from tests.seqio_tasks.small_tasks import small_task

BYTES = ByteVocabulary(extra_ids=30)


def provider(seqio, name):
    return seqio.get_mixture_or_task(name)


def test_everything_that_has_a_name_is_registered(seqio):
    add_task(small_task())
    add_mixture(Mixture(name="so_mix", tasks=("so_small",), rate=Custom(weights={"so_small": 1})))
    found = register(vocabulary=BYTES)
    tasks, mixtures = seqio.TaskRegistry.names(), seqio.MixtureRegistry.names()
    assert set(TABLE) - set(MIXTURES) | {"so_small"} <= set(tasks)
    assert set(MIXTURES) | {"so_mix"} <= set(mixtures)
    assert {f"{c}:ul2" for c in CORPORA} <= set(mixtures)
    pairs = {f"{c}:{o}".replace("-", "_") for c in CORPORA for o in OBJECTIVES}
    assert pairs <= set(tasks)
    assert sorted(found) == sorted([*tasks, *mixtures])
    for name in tasks:
        task = provider(seqio, name)
        assert (task.supports_caching, task.requires_caching) == (True, False), name
        assert task.preprocessors, "seqio's own checks pass"
        assert len(task.metric_fns) == len(getattr(TABLE.get(name), "metrics", task.metric_fns))


def test_names_of_ones_own_and_their_tasks(seqio):
    found = register(["glue_mnli_and_dev_v002", "mc4_de:prefix_lm", "c4:reg_1-5_15_u_u"])
    assert found == [
        "glue_mnli_v002",
        "glue_mnli_mismatched_v002",
        "glue_mnli_matched_v002",
        "mc4_de:prefix_lm",
        "c4:reg_1_5_15_u_u",
        "glue_mnli_and_dev_v002",
    ]
    assert set(found) == {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}


def test_a_prefix_keeps_them_apart(seqio):
    seqio.TaskRegistry.add("glue_cola_v002", seqio.FunctionDataSource(rows, ["train"]), {})
    theirs = provider(seqio, "glue_cola_v002")
    found = register(["glue_v002_proportional"], prefix="ours/", vocabulary=BYTES)
    assert "ours_glue_cola_v002" in found
    assert provider(seqio, "glue_cola_v002") is theirs
    mixture = provider(seqio, "ours_glue_v002_proportional")
    assert all(task.name.startswith("ours_") for task in mixture.tasks)
    assert mixture.get_rate(provider(seqio, "ours_glue_cola_v002")) == 8551


def rows(split, shuffle_files=False, seed=None):
    raise AssertionError("nothing is read")


def test_a_name_that_somebody_else_has_is_refused(seqio):
    seqio.TaskRegistry.add("glue_cola_v002", seqio.FunctionDataSource(rows, ["train"]), {})
    before = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    message = (
        r"'glue_cola_v002' is registered with seqio already, as a task over FunctionDataSource.*; "
        r"t5jax's is .*register\(prefix='t5jax_'\)"
    )
    for some in (["glue_cola_v002"], ["glue_v002_proportional"], None):
        with pytest.raises(ConfigError, match=message):
            register(some, vocabulary=BYTES)
    assert {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()} == before
    seqio.TaskRegistry.remove("glue_cola_v002")
    seqio.MixtureRegistry.add("all_equal", [(small(seqio, "their_task"), 1.0)])
    with pytest.raises(ConfigError, match="as a mixture of their_task; t5jax's is \"all of T5"):
        register(["all_equal"], vocabulary=BYTES)


def small(seqio, name):
    features = {key: seqio.Feature(seqio.ByteVocabulary()) for key in ("inputs", "targets")}
    return seqio.TaskRegistry.add(name, seqio.FunctionDataSource(rows, ["train"]), features)


def test_names_that_become_the_same_are_refused():
    for name in ("so-small", "so_small"):
        add_task(small_task(name))
    with pytest.raises(ConfigError, match="so-small and so_small would both be so_small with seq"):
        register(["so-small", "so_small"])


def test_registering_again_replaces_tasks_and_the_mixtures_that_hold_them(seqio):
    register(["glue_mnli_and_dev_v002", "glue_cola_v002"], vocabulary=BYTES)
    cola, mixture = (provider(seqio, name) for name in ("glue_cola_v002", "glue_mnli_and_dev_v002"))
    other = ByteVocabulary(extra_ids=44)
    register(["glue_mnli_v002"], vocabulary=other)
    assert provider(seqio, "glue_cola_v002") is cola
    again = provider(seqio, "glue_mnli_and_dev_v002")
    assert again is not mixture
    assert provider(seqio, "glue_mnli_v002") in again.tasks
    register(vocabulary=other)
    features = provider(seqio, "glue_cola_v002").output_features
    assert features["inputs"].vocabulary == seqio.ByteVocabulary(extra_ids=44)
    for name in seqio.MixtureRegistry.names():
        provider(seqio, name)._check_compatible_features()


def test_tasks_of_seqio_are_not_registered_twice(seqio):
    theirs = small(seqio, "so_theirs")
    add_task(small_task())
    mixed = {"so_small": 1.0, "so_theirs": 2.0}
    add_mixture(Mixture(name="so_mix", tasks=tuple(mixed), rate=Custom(weights=mixed)))
    plain = ByteVocabulary()
    assert register(["so_mix"], vocabulary=plain) == ["so_small", "so_mix"]
    assert provider(seqio, "so_theirs") is theirs
    assert theirs in provider(seqio, "so_mix").tasks
    assert provider(seqio, "so_mix").get_rate(theirs) == 2.0
    found = register(vocabulary=plain)
    assert "so_theirs" not in found
    assert "so_theirs" in names.seqio_names()


def test_t5jax_lists_its_tasks_once(seqio):
    data = DataConfig(mixture="any", vocabulary=BYTES, cache_dir=None)
    before = [one.name for one in entries(data)]
    register(vocabulary=BYTES)
    register(["glue_cola_v002"], prefix="other_", vocabulary=BYTES)
    assert [one.name for one in entries(data)] == before
    assert not set(registry.seqio_names()) & {*TABLE, "c4:ul2", "other_glue_cola_v002"}


def test_a_task_that_seqio_got_from_t5jax_can_be_read_back(seqio):
    from t5jax.data.tasks.task import SeqioTask

    register(["glue_cola_v002"], prefix="other_", vocabulary=BYTES)
    data = DataConfig(mixture="other_glue_cola_v002", vocabulary=BYTES, cache_dir=None)
    task = registry.find_task("other_glue_cola_v002", data)
    assert isinstance(task, SeqioTask)
    assert task.not_cacheable is None
    assert task.eos == {"inputs": "after_trim", "targets": "after_trim"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": "glue_cola_v002"}, "names='glue_cola_v002': give a list of names"),
        ({"names": ["glue_colla_v002"]}, "did you mean glue_cola_v002"),
        ({"dataset_dir": "x"}, "has no setting 'dataset_dir'; did you mean datasets_dir"),
        ({"on_bad_record": "ignore"}, "on_bad_record='ignore': choose one of"),
        ({"names": ["so"], "modules": ("no_such_tasks",)}, "there is no no_such_tasks.py"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        register(**arguments)


def test_a_users_module_is_imported(seqio, tmp_path, monkeypatch):
    (tmp_path / "so_module.py").write_text(
        "from t5jax import add_task\n"
        "from tests.seqio_tasks.small_tasks import small_task\n"
        "add_task(small_task('so_of_module'))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert "so_of_module" in register(modules=("so_module",), vocabulary=BYTES)
    sys.modules.pop("so_module")


def test_importing_the_module_registers_or_refuses(seqio, monkeypatch):
    monkeypatch.delitem(sys.modules, "t5jax.seqio", raising=False)
    theirs = small(seqio, "glue_rte_v002")
    with pytest.raises(ConfigError, match="'glue_rte_v002' is registered with seqio already"):
        importlib.import_module("t5jax.seqio")
    assert list(seqio.TaskRegistry.names()) == ["glue_rte_v002"]
    assert provider(seqio, "glue_rte_v002") is theirs
    seqio.TaskRegistry.remove("glue_rte_v002")
    importlib.import_module("t5jax.seqio")
    vocabulary = provider(seqio, "all_proportional").output_features["inputs"].vocabulary
    published = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
    assert vocabulary == seqio.SentencePieceVocabulary(published, 100), "as T5X's configs name it"


OPENED = """
import sys
import t5jax
t5jax.ExampleTask, t5jax.add_task
assert not {"seqio", "tensorflow"} & set(sys.modules)
from t5jax.data.tensorflow_import import import_seqio
import_seqio()
import tensorflow_datasets, t5jax.seqio_tasks.tasks
opened = []
def hook(event, arguments):
    path = str(arguments[0]) if arguments else ""
    installed = path.startswith((sys.prefix, sys.base_prefix)) or path.endswith((".py", ".pyc"))
    if event == "socket.connect" or (event == "open" and not installed):
        opened.append(path)
sys.addaudithook(hook)
import t5jax.seqio
assert not opened, opened
import seqio
assert seqio.__name__ == "seqio" and t5jax.seqio.__name__ == "t5jax.seqio"
assert len(seqio.get_mixture_or_task("glue_v002_proportional").tasks) > 8
"""


@pytest.mark.slow
def test_importing_registers_and_opens_nothing(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", OPENED], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
