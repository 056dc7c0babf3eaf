#!/usr/bin/env bash
# A run on Cloud TPU VMs: one slice or several, from a queued resource.
#
#   export T5JAX_TPU_TYPE=v6e-64 T5JAX_TPU_RUNTIME=v2-alpha-tpuv6e T5JAX_TPU_OPTIONS=--spot
#   launch/tpu_vm.sh run NAME ZONE configs/CONFIG.py --workdir /mnt/shared/runs/NAME
#
# run does everything and stays until the run has ended: it creates the queued resource and waits for
# it, installs t5jax, starts the run, and looks at it once a minute. When the resource is preempted it
# is deleted and created anew, and the run is resumed from its work directory. run itself may be
# killed and started again, here or elsewhere: it goes on with what is there. Its steps alone:
#   create, setup, delete NAME ZONE        train NAME ZONE CONFIG [...]
#   status, log, stop NAME ZONE            stop: every process gets SIGTERM, saves and leaves
#
# setup copies this checkout (what git tracks, as it is here) to ~/t5jax on every host and installs
# the versions of requirements.lock there, with Python 3.11, which uv brings where the image has an
# older one. train makes the run a systemd service: it outlives this connection, a host that is booted
# again starts its process again, and launch/restart.sh does so after failures that this may fix.
# JAX finds the other hosts and slices by itself; the variables that T5JAX_ENV names are carried
# (launch/environment.sh), in a file of the hosts that only the user reads.
#
# T5JAX_COMMAND=selftest  with train: hosts, network and disks are tried, log shows the table
# T5JAX_TPU_SLICES=2      slices (default 1); the mesh's dcn_data or dcn_fsdp goes over them
# T5JAX_TPU_OPTIONS=...   more options of `gcloud compute tpus queued-resources create`, as --spot,
#                         --reserved, --network=N, --metadata-from-file=startup-script=MOUNT.sh: what
#                         mounts the shared work directory on a new host, before the run starts
# T5JAX_TPU_SSH=...       more options of its ssh and scp, as --tunnel-through-iap
# T5JAX_TPU_GROUP=tpu-vm  a single slice made with `gcloud compute tpus tpu-vm create`: without
#                         create, delete and run
# T5JAX_MAX_FAILURES      failures in a row, of gcloud or of the run, after which run gives up (3)
# Needs: gcloud, logged in, with a project set and the key in ssh-agent; git; a work directory that all
# hosts share and that outlives them.
#
# Has been run: no; validated: with a stand-in for gcloud and systemd in the tests, and every gcloud
# command line against gcloud 528's own parser. No TPU was at hand.
set -uo pipefail

case ${1:-} in
    create | setup | status | log | stop | delete) needed=3 ;;
    train | run) needed=4 ;;
    *) needed= ;;
esac
if [[ -z $needed ]] || (($# < needed)); then
    echo "usage: $0 run|train NAME ZONE CONFIG [--section.field value ...]" >&2
    echo "       $0 create|setup|status|log|stop|delete NAME ZONE" >&2
    exit 64
fi
action=$1 name=$2 zone=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
group=${T5JAX_TPU_GROUP:-queued-resources}
slices=${T5JAX_TPU_SLICES:-1}
poll=${T5JAX_TPU_POLL_SECONDS:-60}
limit=${T5JAX_MAX_FAILURES:-3}
read -ra create_options <<<"${T5JAX_TPU_OPTIONS:-}"
read -ra ssh_options <<<"${T5JAX_TPU_SSH:-}"
everywhere=(--zone="$zone" --worker=all)
if [[ $group == queued-resources ]]; then
    everywhere+=(--node=all)
elif [[ $action =~ ^(create|delete|run)$ ]]; then
    echo "$0: $action needs a queued resource, not T5JAX_TPU_GROUP=$group" >&2
    exit 64
fi
if [[ $action =~ ^(create|run)$ ]] && [[ -z ${T5JAX_TPU_TYPE:-} || -z ${T5JAX_TPU_RUNTIME:-} ]]; then
    echo "$0: set T5JAX_TPU_TYPE and T5JAX_TPU_RUNTIME, for example v6e-64 and v2-alpha-tpuv6e" >&2
    exit 64
fi
exports=$("$here/environment.sh" exports) || exit
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() { echo "$(date '+%F %T') $name: $*" >&2; }

on_all_hosts() {
    gcloud compute tpus "$group" ssh "$name" "${everywhere[@]}" "${ssh_options[@]}" --command="$1"
}

to_all_hosts() {
    gcloud compute tpus "$group" scp "$1" "$name:$2" "${everywhere[@]}" "${ssh_options[@]}"
}

# The queued resource's state, NONE where there is none, UNKNOWN where gcloud could not say.
state() {
    local answer
    if answer=$(gcloud compute tpus queued-resources describe "$name" --zone="$zone" \
        --format='value(state.state)' 2>"$scratch/error") && [[ -n $answer ]]; then
        echo "$answer"
    elif grep -qiE 'NOT_FOUND|not found|404' "$scratch/error"; then
        echo NONE
    else
        cat "$scratch/error" >&2
        echo UNKNOWN
    fi
}

create() {
    local nodes=(--node-id="$name")
    ((slices == 1)) || nodes=(--node-count="$slices" --node-prefix="$name")
    gcloud compute tpus queued-resources create "$name" --zone="$zone" "${nodes[@]}" \
        --accelerator-type="$T5JAX_TPU_TYPE" --runtime-version="$T5JAX_TPU_RUNTIME" \
        "${create_options[@]}"
}

delete() {
    gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet
}

setup() {
    if ! git -C "$here" ls-files -z --full-name ":/" >"$scratch/files"; then return 64; fi
    (
        cd "$here/.." || exit
        while read -r -d '' file; do # one that git tracks may have been deleted here
            if [[ -e $file ]]; then printf '%s\0' "$file"; fi
        done <"$scratch/files" | tar --null -czf "$scratch/t5jax.tar.gz" -T -
    ) || return
    to_all_hosts "$scratch/t5jax.tar.gz" t5jax.tar.gz &&
        on_all_hosts 'mkdir -p t5jax && tar -xzf t5jax.tar.gz -C t5jax && bash t5jax/launch/tpu_vm/install.sh'
}

# The command is a file of the hosts, so that nothing need be quoted for several shells in a row.
train() {
    (umask 077 && : >"$scratch/train.sh")
    {
        printf '%s\nexport PYTHONUNBUFFERED=1\n' "$exports"
        # shellcheck disable=SC2016  # expanded on the hosts
        echo 'cd "$(dirname "$0")" && exec >>train.log 2>&1'
        printf 'exec launch/restart.sh .venv/bin/t5jax'
        printf ' %q' "${T5JAX_COMMAND:-train}" "$@"
        echo
    } >"$scratch/train.sh"
    to_all_hosts "$scratch/train.sh" t5jax/train.sh && on_all_hosts 'bash t5jax/launch/tpu_vm/service.sh start'
}

# One word a host: active, stopped (in order), or the exit code with which its process has ended.
status() {
    on_all_hosts '[ ! -e t5jax/train.sh ] || bash t5jax/launch/tpu_vm/service.sh status' | sed -n 's/^t5jax-status: //p'
}

# Waits for the end of the run or of the resource. Sets `ended`: an exit code, or nothing when the
# resource was lost.
follow() {
    local words silent=0
    while true; do
        ended=
        case $(state) in
            ACTIVE) ;;
            UNKNOWN) sleep "$poll" && continue ;;
            *) return ;;
        esac
        words=$(status | sort -u)
        # What trying again cannot mend is the cause, whichever host says it.
        ended=$(grep -xE '64|65|66|73' <<<"$words" | head -n 1)
        [[ -z $ended ]] || return
        case $words in
            0) ended=0 && return ;;
            "") ((++silent < limit)) || { ended=255 && return; } ;;
            *active* | *booting*) silent=0 ;; # the others' processes end too, or start again
            *)
                ended=$(grep -vxE '0|stopped' <<<"$words" | head -n 1) || ended=143
                return
                ;;
        esac
        sleep "$poll"
    done
}

# Sets the run up and follows it, on a resource that is there.
attend() {
    local begun=$SECONDS
    ended=
    if ! status | grep -qxE 'active|booting' && ! { setup && train "$@"; }; then
        ended=70
        sleep "$poll"
    else
        follow
    fi
    if ((SECONDS - begun > ${T5JAX_GOOD_SECONDS:-1800})); then failures=0; fi
    say "${ended:+ended with }${ended:-lost}"
}

run() {
    local failures=0 known='' ended=70 found
    while ((failures < limit)); do
        found=$(state)
        say "$found"
        case $found in
            ACTIVE)
                attend "$@"
                case $ended in
                    "") failures=0 ended=70 ;;
                    0 | 64 | 65 | 66 | 73 | 143) return "$ended" ;;
                    *) failures=$((failures + 1)) ;;
                esac
                known=yes
                continue
                ;;
            NONE) create || failures=$((failures + 1)) ;;
            SUSPENDED) delete || failures=$((failures + 1)) ;; # preempted
            FAILED)
                failures=$((failures + 1))
                delete
                ;;
            UNKNOWN) [[ -n $known ]] || failures=$((failures + 1)) ;; # later the network may come back
        esac
        [[ $found == UNKNOWN ]] || known=yes
        sleep "$poll"
    done
    say "$failures failures in a row: giving up"
    return "$ended"
}

case $action in
    create | setup | delete) "$action" ;;
    train | run) "$action" "$@" ;;
    status)
        if [[ $group == queued-resources ]]; then state; fi
        status
        ;;
    log) on_all_hosts "tail -n ${LINES_OF_LOG:-20} t5jax/train.log" ;;
    stop) on_all_hosts 'bash t5jax/launch/tpu_vm/service.sh stop' ;;
esac
