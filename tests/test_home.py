"""`~` is the home folder in every path that a user gives, and nowhere a folder of that name."""

import argparse
import os

import pytest

from t5jax.cli.command_line import COMMANDS
from t5jax.config import WarmStart
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import (
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
)
from t5jax.home import expand_home
from t5jax.run.restore import checkpoint_directory


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "home")


def test_only_a_tilde_that_begins_a_path_is_home(home):
    assert expand_home("~") == home
    assert expand_home("~/x/~y") == f"{home}/x/~y"
    for other in ("./~/x", "a~", "/~/x", "gs://~/x", "-", "", None):
        assert expand_home(other) == other


def test_paths_of_a_config(home):
    data = DataConfig(mixture="c4", vocabulary=ByteVocabulary(), cache_dir="~/cache")
    assert data.cache_dir == f"{home}/cache"
    assert WarmStart(path="~/run").path == f"{home}/run"
    assert SentencePieceVocabulary(path="~/v.model").path == f"{home}/v.model"
    assert HuggingFaceVocabulary(path="~/t.json").path == f"{home}/t.json"


def test_the_workdir_of_a_saved_run(home):
    os.makedirs(f"{home}/run/checkpoints")
    assert str(checkpoint_directory("~/run")) == f"{home}/run/checkpoints"


# Options and arguments of commands that are no paths.
_TEXTS = {"text", "name", "column", "target-column", "prefix", "decoder-prefix", "format", "to"}
_TEXTS |= {"only", "reference", "dtype", "filter", "split", "tasks", "stop", "header", "shard"}
_TEXTS |= {"ensemble", "keep-best", "max-shard-size", "pieces", "platforms", "input", "ignore-key"}
_TEXTS |= {"topology", "step"}


def spelled(action: argparse.Action) -> str:
    """The option as it is written, the argument's name where it is none."""
    return action.option_strings[-1].lstrip("-") if action.option_strings else action.dest


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_paths_of_the_command_line(command):
    """Every option that takes a text is a path that knows `~`, or known to be none."""
    parser = argparse.ArgumentParser()
    command.add_to(parser.add_subparsers())
    (sub,) = parser._subparsers._group_actions[0].choices.values()
    taking = [spelled(x) for x in sub._actions if x.nargs != 0 and x.type is None]
    assert set(taking) <= _TEXTS
