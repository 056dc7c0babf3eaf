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
    """t5jax's own names as they are and empty registries of seqio; afterwards as they were."""
    register = importlib.import_module("t5jax.seqio_tasks.register")
    monkeypatch.setattr(names, "_own", dict(names._own))
    for library in (seqio.TaskRegistry, seqio.MixtureRegistry):
        monkeypatch.setattr(library, "_REGISTRY", {})
    monkeypatch.setattr(register, "_ours", {})
    monkeypatch.setattr(register, "_mixed", {})
