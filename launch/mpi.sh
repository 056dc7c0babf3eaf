#!/usr/bin/env bash
# A run under MPI's launcher; MPI itself is not used.
#
#   launch/mpi.sh -np 4 --hostfile HOSTS -- configs/CONFIG.py --workdir /shared/runs/NAME
#   T5JAX_COORDINATOR=HOST:PORT launch/mpi.sh ...          # Open MPI 5, MPICH
#   T5JAX_COMMAND=selftest launch/mpi.sh ...               # before the run: hosts, network, disks
#
# What stands before -- goes to mpirun. Needs: t5jax at the same path on every host
# (T5JAX=/path/to/venv/bin/t5jax, default: the one in PATH) and a shared work directory. On GPUs start
# one process per GPU.
# Open MPI 4: JAX finds the other processes by itself, through mpirun's own address; so rank 0 must
# run on the host on which mpirun does (put it first in the hosts file), or the run ends with 64.
# Open MPI 5, MPICH: name the host of rank 0 and a free port on it, T5JAX_COORDINATOR=HOST:PORT; this
# is right for Open MPI 4 too, wherever rank 0 runs.
# The coordinator and the variables that T5JAX_ENV names (launch/environment.sh) reach every process,
# also of hosts that begin with an empty environment: with -x under Open MPI; MPICH carries all.
# When one process fails, the others end, and the exit code is that of the first; under MPICH, which
# adds codes up bit by bit, the one that a restart cannot mend, else 137, 70, 143. Interrupting the
# script, or SIGTERM to it, stops the run in order: every process gets SIGTERM, saves and leaves.
#
# Has been run: with Open MPI 4.1.4, two and three CPU processes on one machine: to the end, killed
# process, SIGTERM. With Open MPI 5.0.11 and MPICH 5.0.2 the same over ssh to two "hosts" of one
# machine, which begin with an empty environment (tests/launch/test_engines.py): every loss is that of
# an undisturbed process, bit for bit. Not on several machines, not on GPUs.
set -euo pipefail

mpirun_options=()
while (($# > 0)) && [[ $1 != -- ]]; do
    mpirun_options+=("$1")
    shift
done
if (($# < 2)); then
    echo "usage: $0 [MPIRUN OPTIONS] -- CONFIG [--section.field value ...]" >&2
    exit 64
fi
shift

export PYTHONUNBUFFERED=1
names=$("$(dirname "$0")/environment.sh" names)
# Open MPI gives the processes of other hosts nothing of this environment but what -x names.
if version=$(mpirun --version 2>&1) && [[ $version == *"Open MPI"* ]]; then
    for name in PYTHONUNBUFFERED ${T5JAX_COORDINATOR:+T5JAX_COORDINATOR} $names; do
        mpirun_options+=(-x "$name")
    done
    one_bit=
else
    one_bit=yes # hydra, of MPICH and its kin, returns the bitwise or of all exit codes
fi

# Seconds between SIGTERM and SIGKILL to the rest, after one process has ended badly. mpirun sits
# them out even if nobody is left, so they must be few, and too few for a save: hence SIGUSR1.
export OMPI_MCA_odls_base_sigkill_timeout=5 PRTE_MCA_odls_base_sigkill_timeout=5 # Open MPI 4 and 5

# Rank and size have other names in every MPI. SIGUSR1 is a signal that mpirun passes on, to all
# processes of a rank, so the run itself must ignore it.
# shellcheck disable=SC2016  # expanded on the hosts
process='
    leave() {
        local code=$1
        if [[ -n $one_bit ]]; then # a bit for each code, which the launcher reads again
            case $code in
                0) ;;
                143) code=2 ;;
                70 | 75) code=4 ;;
                134 | 137 | 139) code=8 ;;
                64) code=16 ;;
                65) code=32 ;;
                66) code=64 ;;
                73) code=128 ;;
                *) code=1 ;;
            esac
        fi
        exit $code
    }
    if [[ -n ${T5JAX_COORDINATOR:-} ]]; then
        export T5JAX_PROCESS_ID=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-}}
        export T5JAX_NUM_PROCESSES=${OMPI_COMM_WORLD_SIZE:-${PMI_SIZE:-}}
        local_rank=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-}}
        if [[ -n $local_rank ]]; then export JAX_LOCAL_DEVICE_IDS=$local_rank; fi
    elif [[ -z ${OMPI_MCA_orte_hnp_uri:-} ]]; then
        echo "this is not Open MPI 4: set T5JAX_COORDINATOR=HOST:PORT of the first host" >&2
        leave 64
    fi
    stopped=
    trap stopped=yes USR1
    (trap "" USR1; exec "$@") & run=$!
    trap "kill -TERM $run" USR1
    if [[ -n $stopped ]]; then kill -TERM $run; fi # it came while the run was starting
    trap : TERM
    wait $run
    code=$?
    while kill -0 $run 2>/dev/null; do # a trapped signal ends wait early
        wait $run
        code=$?
    done
    leave $code'

# In a session of its own, out of reach of the terminal: mpirun answers an interrupt by killing.
setsid mpirun --bind-to none "${mpirun_options[@]}" \
    bash -c "one_bit=$one_bit$process" process "${T5JAX:-t5jax}" "${T5JAX_COMMAND:-train}" "$@" &
mpirun=$!
trap 'kill -USR1 "$mpirun"' INT TERM HUP
code=0
wait "$mpirun" || code=$?
while kill -0 "$mpirun" 2>/dev/null; do
    code=0
    wait "$mpirun" || code=$?
done
if [[ -n $one_bit ]] && ((code != 255)); then # 255: mpirun itself, or ssh
    bits=$code
    for pair in 16:64 32:65 64:66 128:73 8:137 4:70 1:1 2:143; do
        if ((bits & ${pair%:*})); then
            code=${pair#*:}
            break
        fi
    done
fi
exit "$code"
