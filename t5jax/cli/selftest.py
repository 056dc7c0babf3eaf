"""t5jax selftest."""

import argparse

from t5jax.cli.command import Command, call, file_or_url, local_file

_NOTES = """\
Start it as the run, with the same launcher and arguments: T5JAX_COMMAND=selftest in front of
launch/ssh.sh, mpi.sh, tpu_vm.sh, gke/xpk.sh, sbatch launch/slurm/train.sbatch; here
launch/local.py -n 2 -- selftest. With a CONFIG its mesh, workdir and data are tried. Settings
(--section.field VALUE) are those of train that begin with --mesh. and --runtime., and --workdir.
examples:
  t5jax selftest --workdir /shared/runs/new --data '/shared/c4/*.gz'
  t5jax selftest configs/t5_1_1_base_c4.py --workdir gs://bucket/runs/base --mesh.fsdp 8
  t5jax selftest --kills 20 --workdir /shared/runs/new
exit code: 0 where nothing failed, else that of the first check that did: 64 hosts, devices or
settings that do not fit; 65 data not seen; 70 wrong numbers; 73 workdir not written; 75 it hung
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config_file", nargs="?", type=local_file, metavar="CONFIG",
        help="a run's Python file; without it all devices are one axis",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=file_or_url, metavar="PATH",
        help="what every host must see: files (a pattern, a folder, a URL), or those of a config",
    )  # fmt: skip
    parser.add_argument(
        "--kills", type=int, default=0, metavar="N",
        help="kill -9 a tiny run on the first host N times, resume it, compare every loss (0)",
    )  # fmt: skip
    parser.add_argument(
        "--json", dest="json_file", type=local_file, metavar="FILE", help="write the table there"
    )


def _selftest(a: argparse.Namespace, flags: list[str]) -> int:
    from t5jax.commands.selftest import selftest_command

    if a.kills < 0:
        a.parser.error(f"--kills {a.kills}: 0 or more")
    return call(selftest_command, a, flags)


SELFTEST = Command(
    "selftest", "check hosts, network, disks and numbers before a run", _selftest, None,
    _options, _NOTES,
)  # fmt: skip
