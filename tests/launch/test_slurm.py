"""The Slurm script with stand-ins for Slurm's programs: what it asks for, and when it requeues."""

import os
import pathlib
import re
import subprocess

import pytest

pytestmark = pytest.mark.usefixtures("default_signals")
SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm" / "train.sbatch"


@pytest.fixture
def slurm(tmp_path, stand_in):
    """slurm(...) runs the script as Slurm does and returns (exit code, [lines of calls])."""
    calls = tmp_path / "calls"
    stand_in("scontrol", f'printf "%s\\n" "scontrol $*" >>"{calls}"\n')
    # With HIGHEST_OF two processes are run, of which these are the codes.
    stand_in(
        "srun",
        f'printf "%s\\n" "srun $*" >>"{calls}"\n'
        '[ -n "$HIGHEST_OF" ] || exit "${CODE_OF_srun:-0}"\n'
        'while [ "${1#--}" != "$1" ]; do shift; done\n'
        "highest=0\n"
        "for CODE in $HIGHEST_OF; do\n"
        '    export CODE; "$@"; code=$?\n'
        '    [ "$code" -le "$highest" ] || highest=$code\n'
        'done\nexit "$highest"\n',
    )
    stand_in("t5jax", 'exit "$CODE"\n')
    stand_in("squeue", 'echo "${COMMENT:-(null)}"\n')
    stand_in("sleep", "exit 0\n")

    def run(*arguments, **variables):
        calls.unlink(missing_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "T5JAX"))}
        environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"} | variables
        result = subprocess.run(
            ["bash", SCRIPT, *(arguments or ("a config.py",))],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return result.returncode, calls.read_text().splitlines()

    return run


def test_slurm_asks_for_whole_nodes_and_requeue():
    options = re.findall(r"^#SBATCH (\S+)$", SCRIPT.read_text(), re.MULTILINE)
    assert {"--exclusive", "--mem=0", "--requeue", "--ntasks-per-node=1"} <= set(options)


@pytest.mark.parametrize(
    ("variables", "cpus"),
    [
        ({"SLURM_JOB_CPUS_PER_NODE": "96(x2)"}, 96),
        ({"SLURM_JOB_CPUS_PER_NODE": "128(x3),9,64(x2)"}, 9),  # the smallest, as a number
        ({"SLURM_JOB_CPUS_PER_NODE": "96(x2)", "SLURM_NTASKS_PER_NODE": "8"}, 12),
        ({"SLURM_JOB_CPUS_PER_NODE": "4", "SLURM_NTASKS_PER_NODE": "8"}, 1),
        ({"SLURM_JOB_CPUS_PER_NODE": "96(x2)", "SLURM_CPUS_PER_TASK": "5"}, 5),
    ],
)
def test_slurm_every_process_gets_its_share_of_a_nodes_cpus(slurm, variables, cpus):
    _, (srun,) = slurm(**variables)
    assert f" --cpus-per-task={cpus} " in srun
    assert srun.startswith("srun --export=ALL ")
    assert srun.endswith(" t5jax train a config.py")


@pytest.mark.parametrize(
    ("code", "comment", "failures"),
    [
        (0, "(null)", None),
        (64, "(null)", None),
        (73, "t5jax failures=1", None),
        (143, "t5jax failures=2", 0),
        (70, "(null)", 1),
        (75, "t5jax failures=1", 2),
        (137, "t5jax failures=2", None),  # the third in a row
    ],
)
def test_slurm_requeues_what_a_restart_may_fix(slurm, code, comment, failures):
    ended, calls = slurm(CODE_OF_srun=str(code), COMMENT=comment)
    assert ended == code
    again = [f"scontrol update jobid=7 comment=t5jax failures={failures}", "scontrol requeue 7"]
    assert calls[1:] == ([] if failures is None else again)


@pytest.mark.parametrize(
    ("codes", "expected", "requeues"),
    [
        ("143 64", 64, False),  # the other process had not begun when it got SIGTERM
        ("73 143", 73, False),
        ("65 66", 66, False),
        ("70 143", 143, True),
        ("0 0", 0, False),
    ],
)
def test_slurm_what_no_restart_can_mend_decides(slurm, codes, expected, requeues):
    ended, calls = slurm(HIGHEST_OF=codes)
    assert ended == expected
    assert ("scontrol requeue 7" in calls) == requeues


def test_slurm_does_not_requeue_for_ever(slurm):
    _, calls = slurm(CODE_OF_srun="143", SLURM_RESTART_COUNT="4", T5JAX_MAX_RESTARTS="4")
    assert len(calls) == 1
