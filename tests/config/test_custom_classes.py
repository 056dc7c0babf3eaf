"""Classes and functions of a user's module in a config: loaded, changed by flags, saved as text and
read back; the module is the one of docs/extending.md."""

import json
import pathlib
import re
import sys

import numpy as np
import pytest

from t5jax.config import RunConfig, from_text, load_config, override, to_text
from t5jax.data.objectives import objective_from_dict, parse_objective
from t5jax.errors import ConfigError

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "extending.md"
CONFIG = """
import dataclasses

import my_parts

from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.decoding.config import DecodingConfig
from t5jax.model.config import T5Config
from t5jax.tracking import TrackingConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import AdamW


def config():
    return RunConfig(
        workdir="runs/own",
        model=T5Config(vocab_size=384, emb_dim=24, num_heads=3, head_dim=5, mlp_dim=40),
        data=DataConfig(
            mixture="docstrings_span_corruption", vocabulary=ByteVocabulary(extra_ids=100),
            inputs_length=64, cache_dir=None, objective="my_parts.Reversal(keep=2)",
        ),
        train=TrainConfig(num_train_steps=30, batch_size=16),
        optimizer=my_parts.MuonForKernels(schedule=my_parts.StepDecay(at=(0.9,))),
        loss=my_parts.FocalLoss(gamma=1.0),
        decoding=DecodingConfig(
            logits_processors=(my_parts.Penalize(tokens=(7,), penalty=3.0),
                               my_parts.no_repeated_token)
        ),
        tracking=TrackingConfig(trackers=(my_parts.CsvTracker(),)),
    )
"""
OPTIMIZER = "my_parts.MuonForKernels(schedule=my_parts.StepDecay(at=(0.9,)))"


def documented(file: str) -> str:
    """The code of a file that the page shows."""
    found = re.search(rf"```python\n# {re.escape(file)}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None, file
    return found[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that t5jax is started in, with the user's module and the config file."""
    (tmp_path / "my_parts.py").write_text(documented("my_parts.py"))
    (tmp_path / "own.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    yield tmp_path
    sys.modules.pop("my_parts", None)


def changed(folder: pathlib.Path, old: str, new: str) -> RunConfig:
    assert old in CONFIG
    (folder / "own.py").write_text(CONFIG.replace(old, new))
    return load_config("own.py")


def test_every_kind_is_loaded_changed_saved_and_read_back(folder):
    flags = """--optimizer.momentum 0.8 --optimizer.schedule.at 0.2 0.4 --loss.gamma 0.5
        --optimizer.schedule.factor 0.5 --decoding.logits-processors.0.penalty 2
        --decoding.logits_processors.0.tokens 8 9 --tracking.trackers.0.file other.csv"""
    config = load_config("own.py", flags.split())
    parts = sys.modules["my_parts"]
    schedule = parts.StepDecay(at=(0.2, 0.4), factor=0.5)
    assert config.optimizer == parts.MuonForKernels(momentum=0.8, schedule=schedule)
    assert config.loss == parts.FocalLoss(gamma=0.5)
    first, second = config.decoding.logits_processors
    assert first == parts.Penalize(tokens=(8, 9), penalty=2.0)
    assert second is parts.no_repeated_token
    assert config.tracking.trackers == (parts.CsvTracker(file="other.csv"),)
    text = to_text(config)
    for line in (
        "data.objective = 'my_parts.Reversal(keep=2)'",
        "optimizer: my_parts.MuonForKernels",
        "optimizer.momentum = 0.8",
        "optimizer.schedule: my_parts.StepDecay",
        "optimizer.schedule.at = (0.2, 0.4)",
        "loss: my_parts.FocalLoss",
        "loss.first_sentinel_id = None",
        "decoding.logits_processors.0: my_parts.Penalize",
        "decoding.logits_processors.0.tokens = (8, 9)",
        "decoding.logits_processors.1: my_parts.no_repeated_token",
        "tracking.trackers.0: my_parts.CsvTracker",
    ):
        assert line in text.splitlines()
    assert from_text(text) == config
    again = override(from_text(text), ["--optimizer.momentum", "0.7"], program="x")
    assert again.optimizer == parts.MuonForKernels(momentum=0.7, schedule=schedule)
    assert again.decoding == config.decoding


def test_a_fresh_process_imports_the_module_from_its_working_directory(folder):
    text = to_text(load_config("own.py"))
    del sys.modules["my_parts"]
    sys.path[:] = [path for path in sys.path if path != str(folder)]
    read = from_text(text)
    assert type(read.optimizer) is sys.modules["my_parts"].MuonForKernels
    assert to_text(read) == text


def test_a_module_that_is_not_there_is_named_with_what_to_do(folder, tmp_path_factory, monkeypatch):
    text = to_text(load_config("own.py"))
    del sys.modules["my_parts"]
    sys.path[:] = [path for path in sys.path if path != str(folder)]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ConfigError) as error:
        from_text(text)
    for word in (
        "loss of a saved config",
        "names 'my_parts'",
        f"there is no my_parts.py in {elsewhere}",
        "PYTHONPATH",
    ):
        assert word in str(error.value)


def test_a_class_that_has_gone_is_named_with_the_nearest(folder):
    text = to_text(load_config("own.py")).replace("my_parts.FocalLoss", "my_parts.FocusLoss")
    with pytest.raises(ConfigError, match=r"my_parts has no FocusLoss; did you mean FocalLoss\?"):
        from_text(text)


def test_a_module_that_fails_is_an_error_of_the_config(folder):
    text = to_text(load_config("own.py"))
    del sys.modules["my_parts"]
    (folder / "my_parts.py").write_text("import no_such_module_of_anybody\n")
    with pytest.raises(ConfigError, match="imports 'no_such_module_of_anybody', which is not inst"):
        from_text(text)


def test_a_subclass_of_a_built_in_class_is_a_class_of_its_own(folder):
    (folder / "my_parts.py").write_text(
        documented("my_parts.py")
        + "\nfrom t5jax.training.losses import CrossEntropy\n"
        + "@dataclasses.dataclass(kw_only=True)\n"
        + "class Mine(CrossEntropy):\n    scale: float = 2.0\n"
    )
    config = changed(folder, "my_parts.FocalLoss(gamma=1.0)", "my_parts.Mine(z_loss=0.0)")
    config = override(config, ["--loss.scale", "3", "--loss.num-chunks", "2"], program="x")
    assert config.loss == sys.modules["my_parts"].Mine(z_loss=0.0, scale=3.0, num_chunks=2)
    assert from_text(to_text(config)) == config


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (OPTIMIZER, "my_parts.MuonForKernels", "optimizer = <class .*: a type, but the field is"),
        (OPTIMIZER, "my_parts.StepDecay()", "optimizer = .*: a StepDecay, but .* CustomOptimizer"),
        (OPTIMIZER, "AdamW(schedule=my_parts)", "optimizer.schedule = .*: a module, but"),
        (
            "my_parts.FocalLoss(gamma=1.0)",
            "my_parts.FocalLoss(gamma='1')",
            "loss.gamma = '1': a str",
        ),
        (
            "my_parts.FocalLoss(gamma=1.0)",
            "__import__('functools').partial(CrossEntropy())",
            "loss = .*: make partial a dataclass",
        ),
        (
            "my_parts.Penalize(tokens=(7,)",
            "my_parts.Penalize(tokens=[7]",
            "unhashable type: 'list'; .*frozen=True",
        ),
        (
            "my_parts.FocalLoss(gamma=1.0)",
            "lambda *_: None",
            "loss: .*config.<locals>.<lambda> cannot be imported: define it at the top of a module",
        ),
        (
            "my_parts.CsvTracker()",
            "my_parts.CsvTracker(file=__import__('pathlib').Path('x'))",
            "tracking.trackers.0.file = .*Path.*: a PosixPath, but the field is declared as str",
        ),
    ],
)
def test_what_a_saved_run_could_not_hold_is_refused(folder, old, new, reason):
    with pytest.raises(ConfigError, match=reason):
        changed(folder, old, new)


LOCAL = """
@dataclasses.dataclass
class Local:
    scale: float = 1.0

    def __call__(self, model, batch, keys_B):
        return CrossEntropy()(model, batch, keys_B)


def config():"""


def test_a_class_of_the_config_file_itself(folder, tmp_path_factory):
    """Taken where the file can be imported by its name, from the folder that t5jax starts in."""
    text = CONFIG.replace("def config():", LOCAL).replace(
        "my_parts.FocalLoss(gamma=1.0)", "Local()"
    )
    (folder / "own.py").write_text(text)
    config = load_config("own.py", ["--loss.scale", "3"])
    assert "loss: own.Local\nloss.scale = 3.0\n" in to_text(config)
    assert from_text(to_text(config)) == config
    del sys.modules["own"]
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "own.py"
    elsewhere.write_text(text)
    with pytest.raises(ConfigError, match="Local is defined in t5jax_config_own, which other proc"):
        load_config(str(elsewhere))


def test_values_that_text_cannot_hold_are_refused(folder):
    (folder / "my_parts.py").write_text(
        documented("my_parts.py").replace("gamma: float = 2.0", "gamma: object = object()")
    )
    with pytest.raises(ConfigError, match=r"loss.gamma = <object .* a saved config can hold numb"):
        changed(folder, "my_parts.FocalLoss(gamma=1.0)", "my_parts.FocalLoss()")


def test_logits_processors_must_be_hashable(folder):
    (folder / "my_parts.py").write_text(documented("my_parts.py").replace("frozen=True, ", ""))
    with pytest.raises(ConfigError, match=r"decoding.logits_processors = .*frozen=True"):
        load_config("own.py")


def test_an_objective_is_named_with_its_settings_and_recorded(folder):
    objective = parse_objective(load_config("own.py").data.objective)
    parts = sys.modules["my_parts"]
    assert objective == parts.Reversal(keep=2)
    record = json.loads(json.dumps(objective.to_dict()))
    assert record == {"objective": "my_parts.Reversal", "keep": 2}
    assert objective_from_dict(record) == objective
    rows = objective.apply(np.array([[5, 6, 7, 8], [9, 0, 0, 0]]), None, 0, None, np.array([4, 1]))
    np.testing.assert_array_equal(rows.inputs, [[5, 6, 8, 7, 1], [9, 1, 0, 0, 0]])
    np.testing.assert_array_equal(rows.targets, [[5, 6, 7, 8, 1], [9, 1, 0, 0, 0]])
    config = load_config("own.py", ["--data.objective", "my_parts.Reversal"])
    assert parse_objective(config.data.objective) == parts.Reversal()


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        ("my_parts.Reversed(keep=2)", r"my_parts has no Reversed; did you mean Reversal\?"),
        ("my_part.Reversal", r"data.objective names 'my_part', .*did you mean my_parts"),
        ("my_parts.Reversal(kept=2)", "unexpected keyword argument 'kept'"),
        ("my_parts.Reversal(keep=64)", "keep=64: rows have 64 tokens"),
        ("my_parts.StepDecay", "my_parts.StepDecay is no objective: it lacks name, documents_end"),
    ],
)
def test_an_objective_that_does_not_fit_is_refused(folder, objective, reason):
    with pytest.raises(ConfigError, match=reason):
        load_config("own.py", ["--data.objective", objective])
