"""Stand-ins for a cluster's programs, first on the path of the launch scripts."""

import os

import pytest


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """stand_in(NAME, TEXT): a program of that name, found before any real one."""
    folder = tmp_path / "stand_ins"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name, text):
        path = folder / name
        path.write_text(f"#!/usr/bin/env bash\n{text}")
        path.chmod(0o755)
        return path

    return make
