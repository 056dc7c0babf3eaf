"""Registries of their own for each test."""

import importlib

import pytest

from t5jax.data.registry import names
from t5jax.data.tensorflow_import import import_seqio


@pytest.fixture(scope="session")
def seqio():
    return import_seqio()


@pytest.fixture(autouse=True)
def registries(monkeypatch, seqio):
    """t5jax's own names and both of seqio's registries as they are, and again afterwards."""
    register = importlib.import_module("t5jax.seqio_tasks.register")
    monkeypatch.setattr(names, "_own", dict(names._own))
    for library in (seqio.TaskRegistry, seqio.MixtureRegistry):
        kept = {k: v for k, v in library._REGISTRY.items() if v is not register._ours.get(k)}
        monkeypatch.setattr(library, "_REGISTRY", kept)
    monkeypatch.setattr(register, "_ours", {})
    monkeypatch.setattr(register, "_mixed", {})
