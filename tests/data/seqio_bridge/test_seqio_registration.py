"""Who registers what with seqio, tasks that nobody registered, mixtures and their rates."""

import functools
import sys

import pytest

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.inspect.catalog import entries
from t5jax.data.inspect.task_report import entry_report
from t5jax.data.modules import load_modules
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolve import checked_tasks, resolve
from t5jax.data.registry.texts import task_documents
from t5jax.data.tasks.mixture import shares
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError
from tests.data.pipeline.loaders import open_in_order

HEAD = """
import dataclasses, functools
import seqio, tensorflow as tf

FEATURE = seqio.Feature(seqio.ByteVocabulary(extra_ids=100))
FEATURES = {"inputs": FEATURE, "targets": FEATURE}
STEPS = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]

def rows(split, shuffle_files=False, seed=None):
    return tf.data.Dataset.from_tensor_slices({"inputs": ["ab", "c"], "targets": ["d", "ef"]})

SOURCE = seqio.FunctionDataSource(rows, ("train",))

def add(name):
    return seqio.TaskRegistry.add(name, SOURCE, FEATURES, STEPS)
"""
FIRST = HEAD + 'add("own_one")\n'
SECOND = HEAD + 'add("own_two")\nadd("own_one")\n'
OBJECTS = (
    HEAD
    + """
add("own_named")
LONE = seqio.Task("own_lone", SOURCE, FEATURES, STEPS)
OTHER = seqio.Task("own_other", SOURCE, FEATURES, STEPS)
MIXED = seqio.Mixture("own_mixed", [(LONE, 3.0), (OTHER, 1.0), ("own_named", 2.0)])
SWAPPED = seqio.TaskRegistry.get("own_named").replace(
    name="own_swapped",
    output_features={
        n: dataclasses.replace(f, vocabulary=seqio.ByteVocabulary(extra_ids=7), add_eos=False)
        for n, f in FEATURES.items()
    },
)
SAME_NAME = LONE.replace(name="own_named")
"""
)
OURS = """
import t5jax
from t5jax.data.sources import Tsv

t5jax.add_task(t5jax.ExampleTask(
    name="own_example", description="WHO", source=lambda data: Tsv(train_files=("x.tsv",)),
    examples=lambda row: [], splits=("train",),
))
"""
MODULES = {
    "first_tasks": FIRST,
    "second_tasks": SECOND,
    "object_tasks": OBJECTS,
    "our_tasks": OURS,
    "their_tasks": OURS,
    "t5_tasks": "import t5.data.preprocessors\n",
}


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)
    seqio = import_seqio()
    for one in (seqio.TaskRegistry, seqio.MixtureRegistry):
        for name in [n for n in one.names() if n.startswith("own_")]:
            one.remove(name)


def data(mixture, *modules, extra_ids=100, **settings):
    settings = {"cache_dir": None, "inputs_length": 9, "targets_length": 7} | settings
    vocabulary = ByteVocabulary(extra_ids=extra_ids)
    return DataConfig(mixture=mixture, modules=modules, vocabulary=vocabulary, **settings)


def test_a_second_task_of_a_name_names_both_modules(modules):
    with pytest.raises(ConfigError) as caught:
        load_modules(("first_tasks", "second_tasks"))
    message = str(caught.value)
    failed = "module second_tasks of data.modules failed: ValueError in second_tasks: Attempting"
    assert message.startswith(failed)
    (line,) = [n for n, text in enumerate(FIRST.splitlines(), 1) if "TaskRegistry.add(" in text]
    for module in ("first_tasks", "second_tasks"):
        assert f"by {module} ({modules}/{module}.py:{line})" in message


def test_a_second_task_of_ours_from_another_module_is_refused(modules):
    load_modules(("our_tasks",))
    with pytest.raises(ConfigError, match="again by their_tasks") as caught:
        load_modules(("their_tasks",))
    assert f"'own_example' is registered by our_tasks ({modules}/our_tasks.py:5)" in str(
        caught.value
    )
    sys.modules.pop("our_tasks")  # the same module once more, as in a session, replaces its own
    load_modules(("our_tasks",))


def test_the_list_says_who_registered_a_task(modules):
    config = data("own_one", "first_tasks", "our_tasks")
    found = {entry.name: entry for entry in entries(config)}
    assert found["own_one"].registered_by.startswith(f"first_tasks ({modules}/first_tasks.py:")
    assert found["own_example"].registered_by.startswith(f"our_tasks ({modules}/our_tasks.py:")
    assert found["glue_cola_v002"].registered_by == ""
    assert "registered  by first_tasks" in entry_report(found["own_one"])


@pytest.mark.parametrize("name", ["own_lone", "LONE", "object_tasks.LONE"])
def test_a_task_that_nobody_registered_is_found_in_its_module(name):
    config = data(name, "object_tasks", pack=False)
    (task,) = checked_tasks(config)
    assert task.name == "own_lone"
    loader = open_in_order(config, "train", batch_size=2)["own_lone"]
    rows = loader.rows(0)["encoder_input_tokens"]
    assert [row[row > 0].tolist() for row in rows] == [[100, 101, 1], [102, 1]]
    documents = task_documents(task, config)  # as another process finds it
    assert documents.splits() == ("train",)


def test_a_mixture_of_objects_is_found_with_its_tasks():
    mixture = resolve(data("MIXED", "object_tasks"))
    assert mixture.rates()[0].shares == {
        "own_lone": 1 / 2, "own_named": 1 / 3, "own_other": 1 / 6,
    }  # fmt: skip


def test_a_task_with_its_vocabulary_swapped_is_the_one_of_the_new_vocabulary():
    config = data("own_swapped", "object_tasks", extra_ids=7, pack=False)
    loader = open_in_order(config, "train", batch_size=2)["own_swapped"]
    rows = loader.rows(0)["decoder_target_tokens"]
    assert [row[row > 0].tolist() for row in rows] == [[103], [104, 105]]
    with pytest.raises(ConfigError, match="is not the one of task own_swapped"):
        checked_tasks(data("own_swapped", "object_tasks"))


def test_an_object_with_the_name_of_a_registered_task_is_refused():
    with pytest.raises(ConfigError, match=r"SAME_NAME has the name 'own_named'.*by object_ta"):
        checked_tasks(data("SAME_NAME", "object_tasks"))


def test_a_module_that_wants_t5_is_told_how_to_install_it():
    if "t5" in sys.modules:
        pytest.skip("t5 is installed")
    with pytest.raises(ConfigError) as caught:
        load_modules(("t5_tasks",))
    assert "module t5_tasks of data.modules imports 't5', which is not installed" in str(
        caught.value
    )
    assert "pip install 't5jax[t5]'" in str(caught.value)
    assert "pip install --no-deps t5==0.9.4" in str(caught.value)


# ---- features and rates


def register(name, steps=(), features=None, counts=None):
    seqio, tf = import_seqio(), import_tensorflow()
    feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=100))
    rows = lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
        {"inputs": ["ab", "c"], "targets": ["d", "ef"]}
    )
    return seqio.TaskRegistry.add(
        name,
        seqio.FunctionDataSource(rows, ("train",), num_input_examples=counts),
        {"inputs": feature, "targets": feature} | (features or {}),
        [seqio.preprocessors.tokenize, *steps],
    )


def test_rates_are_those_of_seqio():
    seqio = import_seqio()
    sizes = {"own_a": 40, "own_b": 9_000, "own_c": 700, "own_d": 11}
    for name, size in sizes.items():
        register(name, counts={"train": size})
    rate = functools.partial(
        seqio.mixing_rate_num_examples, maximum=1_000, scale=2.0, temperature=3.0
    )
    seqio.MixtureRegistry.add("own_inner", [("own_a", rate), ("own_b", rate), ("own_d", 0.5)])
    by_size = lambda task: 0.25 * task.num_input_examples("train")
    seqio.MixtureRegistry.add("own_outer", [("own_inner", 3.0), ("own_c", by_size), "own_b"], 2.0)
    mixture = seqio.MixtureRegistry.get("own_outer")
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    found = resolve(data("own_outer")).rates()
    assert len(found) == 1
    total = sum(rates.values())
    assert found[0].shares == pytest.approx({name: r / total for name, r in rates.items()})
    # What they are: min(2 n, 1000) ^ (1/3), shared in the inner mixture's 3.0.
    inner = {"own_a": 80 ** (1 / 3), "own_b": 10.0, "own_d": 0.5}
    whole = sum(inner.values())
    expected = {name: 3.0 * r / whole for name, r in inner.items()}
    expected["own_b"] += 2.0
    assert rates == pytest.approx(expected | {"own_c": 175.0})


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (import_seqio, "the rate of task own_a failed: TypeError"),
        (lambda task: 1 / 0, "the rate of task own_a failed: ZeroDivisionError: division by zero"),
        (lambda task: -1.0, "mixture own_mix: the rate of task own_a is -1.0"),
        (lambda task: float("nan"), "the rate of task own_a is nan"),
    ],
)
def test_a_rate_that_is_none_is_refused_by_name(rate, message):
    seqio = import_seqio()
    register("own_a")
    seqio.MixtureRegistry.add("own_mix", [("own_a", rate)])
    with pytest.raises(ConfigError, match=message):
        registry.find("own_mix", data("own_mix"))


def test_a_rate_by_size_without_a_size_says_what_is_missing():
    seqio = import_seqio()
    register("own_a")
    seqio.MixtureRegistry.add("own_mix", [("own_a", seqio.mixing_rate_num_examples)])
    with pytest.raises(ConfigError, match="needs a source that states num_input_examples"):
        find_definitions(data("own_mix"))


def test_features_that_are_no_rows_of_ids_are_refused_by_name():
    seqio, tf = import_seqio(), import_tensorflow()
    plain = seqio.ByteVocabulary(extra_ids=100)
    register("own_matrix", features={"inputs": seqio.Feature(plain, rank=2)})
    register("own_floats", features={"targets": seqio.ContinuousFeature(dtype=tf.float32)})
    with pytest.raises(ConfigError, match="own_matrix: its feature inputs is int32 of rank 2"):
        checked_tasks(data("own_matrix"))
    with pytest.raises(ConfigError, match="own_floats: its feature targets is float32 of rank 1"):
        checked_tasks(data("own_floats"))
    only = {"source": plain, "answer": plain}
    task = register("own_none", features={name: seqio.Feature(v) for name, v in only.items()})
    seqio.TaskRegistry.remove("own_none")
    seqio.TaskRegistry.add_provider(
        "own_none",
        task.replace(output_features={n: seqio.Feature(v) for n, v in only.items()}),
    )
    with pytest.raises(ConfigError, match=r"own_none has the features \['answer', 'source'\]"):
        checked_tasks(data("own_none"))


def test_further_features_of_any_kind_train_nothing():
    seqio, tf = import_seqio(), import_tensorflow()
    extra = seqio.map_over_dataset(lambda x: {**x, "image": tf.ones([2, 3]), "ids": x["inputs"]})
    other = seqio.ByteVocabulary(extra_ids=3)
    features = {
        "image": seqio.ContinuousFeature(dtype=tf.float32, rank=2),
        "ids": seqio.Feature(other),
    }
    register("own_extra", steps=[extra], features=features)
    config = data("own_extra", pack=False)
    loader = open_in_order(config, "train", batch_size=2)["own_extra"]
    assert loader.rows(0).keys() == {
        "encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens",
        "decoder_loss_weights",
    }  # fmt: skip
    assert checked_tasks(config)[0].eos.keys() == {"inputs", "targets"}
    stages = resolve(config).rates()
    assert stages[0].shares == {"own_extra": 1.0}


def test_shares_leave_out_tasks_without_a_training_split():
    seqio = import_seqio()
    task = register("own_a", counts={"train": 3})
    register("own_b", counts={"train": 5})
    rows = lambda split, shuffle_files, seed=None: None
    seqio.TaskRegistry.remove("own_a")
    held_out = seqio.FunctionDataSource(rows, ("validation",))
    seqio.TaskRegistry.add_provider("own_a", task.replace(source=held_out))
    seqio.MixtureRegistry.add("own_mix", [("own_a", 1.0), ("own_b", 1.0)])
    found = registry.find("own_mix", data("own_mix"))
    assert shares(found, {"own_a": 0, "own_b": 5}) == {"own_b": 1.0}
    assert resolve(data("own_mix")).rates()[0].shares == {"own_b": 1.0}
