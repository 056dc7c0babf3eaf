"""Devices, software and clocks of several hosts, of which the others are given."""

import jax
import numpy as np
import pytest

from t5jax.run.provenance import environment
from t5jax.selftest import Outcome, check_clocks, check_devices, check_software
from t5jax.selftest.hosts import clock_offsets, software
from t5jax.sharding import MeshConfig
from tests.selftest.hosts_of_texts import answer, same


def test_devices_and_mesh():
    found = check_devices(MeshConfig(fsdp=4).build())
    assert found.outcome is Outcome.OK
    assert found.value == "8 x cpu (cpu), 8 on each of 1 host; mesh data=2 x fsdp=4 x tensor=1"
    assert found.numbers == {"devices": 8, "hosts": 1}


@pytest.mark.parametrize("other", [{"number": 7, "kinds": ["cpu"]}, {"number": 8, "kinds": ["x"]}])
def test_a_host_with_other_devices_is_named(monkeypatch, other):
    answer(monkeypatch, same, other)
    found = check_devices(MeshConfig().build())
    assert (found.outcome, found.code) == (Outcome.FAILED, 64)
    says = f"host 2 has {other['number']} x {other['kinds'][0]}"
    assert found.value == f"hosts have different devices: host 0 has 8 x cpu; {says}"


def test_software_names_versions_and_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_some=3 --xla_dump_to=/here")
    found = check_software()
    assert found.outcome is Outcome.OK
    assert f"jax {jax.__version__}, " in found.value
    assert found.value.endswith("; XLA_FLAGS --xla_some=3")


def test_a_host_with_other_files_of_t5jax_is_named(monkeypatch):
    def edited(ours):
        return {"found": {**ours["found"], "files of t5jax": "0123", "numpy": "1.0"}}

    answer(monkeypatch, edited, same, edited)
    found = check_software()
    assert (found.outcome, found.code) == (Outcome.FAILED, 64)
    ours = software()["files of t5jax"]
    assert found.value == (
        f"host 1 has files of t5jax 0123, host 0 {ours}; host 1 has numpy 1.0, host 0 "
        f"{environment()['numpy']}; 2 hosts differ"
    )


def test_clocks_of_one_host_are_left_out():
    assert check_clocks().outcome is Outcome.LEFT_OUT


@pytest.mark.parametrize(("offset", "outcome"), [(0.2, Outcome.OK), (-7.5, Outcome.WARNING)])
def test_clocks_far_from_that_of_host_0_are_a_warning(monkeypatch, offset, outcome):
    answer(monkeypatch, same, lambda ours: {"found": [t + offset for t in ours["found"]]})
    monkeypatch.setattr("t5jax.selftest.hosts.gather_texts", lambda text: [text])
    found = check_clocks()
    assert found.outcome is outcome
    assert found.value.startswith(f"host 2 is {offset:+.3f} s from host 0 (± 0.000 s)")
    assert found.numbers["offset_seconds"] == pytest.approx(offset)


def test_offsets_are_medians_and_uncertain_by_half_their_range():
    rng = np.random.default_rng(3)
    first = np.cumsum(rng.uniform(1, 2, 5))
    late = np.array([0.0, 0.1, 0.4, 0.1, 0.0])
    offsets, uncertainty = clock_offsets([first.tolist(), (first - 3 + late).tolist()])
    assert offsets == pytest.approx([0.0, -2.9])
    assert uncertainty == pytest.approx(0.2)
