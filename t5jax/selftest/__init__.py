"""Self-test of a cluster: what a run on several hosts needs, checked on them in under a minute.

check.py         a check and the table of all; the exit code
hosts.py         devices and mesh, software, clocks
collectives.py   sums, gathers and permutations along each mesh axis: values and bandwidth
files.py         workdir and data: seen by every host, how fast they are written and read
known_step.py    two train steps of a small model whose losses are known
kill_test.py     `kill -9` and resume of a tiny run on one host

Every check is called by all hosts, in one order, and gives the same verdict on each.
"""

from t5jax.selftest.check import Check, Outcome, Table, failed
from t5jax.selftest.collectives import check_collectives
from t5jax.selftest.files import check_data, check_workdir
from t5jax.selftest.hosts import check_clocks, check_devices, check_software
from t5jax.selftest.kill_test import check_kills
from t5jax.selftest.known_step import check_known_step

__all__ = [
    "Check",
    "Outcome",
    "Table",
    "check_clocks",
    "check_collectives",
    "check_data",
    "check_devices",
    "check_kills",
    "check_known_step",
    "check_software",
    "check_workdir",
    "failed",
]
