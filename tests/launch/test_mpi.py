"""launch/mpi.sh on two hosts that begin with an empty environment.

With Open MPI 5 and MPICH where they are installed, and with stand-ins that carry what these do.
"""

import os
import pathlib
import signal
import subprocess
import time

import pytest

from t5jax import runtime
from t5jax.errors import ConfigError
from t5jax.runtime import RuntimeConfig, distributed
from tests.launch import engines

pytestmark = pytest.mark.usefixtures("default_signals")
LAUNCH = pathlib.Path(__file__).parents[2] / "launch"

# As mpirun of Open MPI, -np N and -x NAME: the ranks have what -x names and nothing else of here.
MPIRUN = """
if [[ $1 == --version ]]; then echo "mpirun (Open MPI) 5.0.0"; exit; fi
carried=()
while [[ $1 != bash ]]; do
    case $1 in
        -np) size=$2; shift ;;
        -x) [[ -v $2 ]] && carried+=("$2=${!2}"); shift ;;
        -host | --map-by | --bind-to) shift ;;
    esac
    shift
done
ranks=()
trap 'kill -USR1 "${ranks[@]}"' USR1
for ((rank = 0; rank < size; rank++)); do
    env -i PATH="$PATH" "${carried[@]}" OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_SIZE=$size \
        OMPI_COMM_WORLD_LOCAL_RANK=0 "$@" &
    ranks+=($!)
done
code=0
for rank in "${ranks[@]}"; do
    wait "$rank"; ended=$?
    while kill -0 "$rank" 2>/dev/null; do wait "$rank"; ended=$?; done
    ((code)) || code=$ended
done
exit "$code"
"""
# As hydra's: no -x, the ranks have all of here, and their codes are added up bit by bit.
HYDRA = MPIRUN.replace("(Open MPI) 5.0.0", "HYDRA build details").replace("env -i", "env")
HYDRA = HYDRA.replace("((code)) || code=$ended", "((code |= ended))")
HYDRA = HYDRA.replace(
    "        -x)", '        -x) echo "unknown option -x"; exit 1 ;;\n        --x)'
)
# As ssh to a host: its last arguments are a command line, of which nothing here is seen.
AGENT = """
while [[ $1 == -* ]]; do shift; done
shift
exec env -i HOME="$HOME" PATH=/usr/bin:/bin bash -c "$*"
"""
RUN = """
trap 'echo saved; exit 143' TERM
echo "process $T5JAX_PROCESS_ID of $T5JAX_NUM_PROCESSES at $T5JAX_COORDINATOR: $*"
echo "flags <$XLA_FLAGS> <${NOT_NAMED-not there}> unbuffered <$PYTHONUNBUFFERED>"
[[ -z $CODE ]] && for ((i = 0; i < 600; i++)); do sleep 0.1; done
codes=($CODE $CODE) # one for all ranks, or one for each
exit "${codes[T5JAX_PROCESS_ID]}"
"""
FLAGS = "--xla_a='two words' --xla_b=\"$q\""


REAL = {"Open MPI 5": "openmpi", "MPICH": "mpich"}


@pytest.fixture(
    params=["stand-in", "hydra", *(pytest.param(n, marks=pytest.mark.slow) for n in REAL)]
)
def mpi(request, stand_in, monkeypatch):
    """mpi(CODE): mpi.sh with two processes that end with CODE, or wait."""
    options = ["-np", "2", "-host", "alpha:1,beta:1"]
    if request.param in REAL:
        mpirun = engines.mpirun(REAL[request.param])
        monkeypatch.setenv("PATH", f"{mpirun.parent}:{os.environ['PATH']}")
        agent = str(stand_in("agent", AGENT))
        if request.param == "MPICH":
            options += ["-launcher-exec", agent]
        else:
            monkeypatch.setenv("PRTE_MCA_plm_ssh_agent", agent)
            options += ["--map-by", "node"]
            options += ["--allow-run-as-root"] if os.getuid() == 0 else []
    else:
        stand_in("mpirun", MPIRUN if request.param == "stand-in" else HYDRA)
    variables = {
        "T5JAX": str(stand_in("t5jax_run", RUN)),
        "T5JAX_COORDINATOR": "alpha:8476",
        "T5JAX_ENV": "XLA_FLAGS CODE MISSING",
        "XLA_FLAGS": FLAGS,
        "NOT_NAMED": "there",
    }
    expected = "there" if request.param in ("hydra", "MPICH") else "not there"

    def start(code):
        process = subprocess.Popen(
            [LAUNCH / "mpi.sh", *options, "--", "a config.py", "--train.batch-size", "7"],
            env=os.environ | variables | {"CODE": code},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return process, [
            f"process {rank} of 2 at alpha:8476: train a config.py --train.batch-size 7"
            for rank in range(2)
        ] + [f"flags <{FLAGS}> <{expected}> unbuffered <1>"]

    return start


def test_mpi_every_process_has_coordinator_rank_and_named_variables(mpi):
    process, expected = mpi("0")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    lines = output.splitlines()
    assert set(expected) <= set(lines)
    assert lines.count(expected[-1]) == 2
    assert "T5JAX_ENV names MISSING: no such variable is set here" in output


def test_mpi_a_failures_code_is_that_of_the_script(mpi):
    process, _ = mpi("65")
    process.communicate(timeout=30)
    assert process.returncode == 65


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ("70 137", 137),  # 207 bit by bit
        ("70 143", 70),
        ("75 75", 70),
        ("0 143", 143),
        ("64 70", 64),  # what a restart cannot mend, whoever ended first
        ("137 73", 73),
        ("66 65", 65),
        ("0 3", 1),
    ],
)
@pytest.mark.parametrize(
    "mpi", ["hydra", pytest.param("MPICH", marks=pytest.mark.slow)], indirect=True
)
def test_mpich_has_one_code_of_several(mpi, codes, code):
    process, _ = mpi(codes)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == code, output


def test_mpi_sigterm_lets_every_process_save(mpi):
    process, expected = mpi("")
    seen = []
    deadline = time.monotonic() + 20
    while not set(expected) <= set(seen) and time.monotonic() < deadline:
        seen.append(process.stdout.readline().rstrip("\n"))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert output.splitlines().count("saved") == 2
    assert process.returncode == 143


def test_open_mpi_4_rank_0_elsewhere_than_mpirun_is_refused(monkeypatch):
    uri = "1531576320.0;tcp://{},10.0.0.1:34911"
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", uri.format("198.51.100.7"))  # no machine's
    with pytest.raises(ConfigError, match=r"mpirun on 198\.51\.100\.7: under Open MPI 4 both"):
        runtime.start_distributed(RuntimeConfig())
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", uri.format("127.0.0.1"))
    distributed._check_open_mpi_4()
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", uri.format("198.51.100.7"))
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")  # may be anywhere
    distributed._check_open_mpi_4()


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_processes_of_an_undetected_mpi_do_not_train_each_alone(monkeypatch, name):
    for variable in ("OMPI_MCA_orte_hnp_uri", "T5JAX_COORDINATOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, "4")
    with pytest.raises(ConfigError, match="mpirun started 4 processes"):
        runtime.start_distributed(RuntimeConfig())
    assert runtime.start_distributed(RuntimeConfig(detect_cluster=False)) == 1
    monkeypatch.setenv(name, "1")
    assert runtime.start_distributed(RuntimeConfig()) == 1
