#!/usr/bin/env bash
# The run as a systemd service of a TPU host: service.sh start|stop|status; systemd calls `ended`.
#
# The service starts ~/t5jax/train.sh, now and whenever the host is booted, until the run has ended by
# itself (train.code holds its exit code) or was stopped. SIGTERM goes to launch/restart.sh alone, which
# hands it to the run; a run that still saves after 300 seconds is killed. tpu_vm.sh starts this file.
#
# Has been run: no; validated: with stand-ins in the tests, the unit by systemd-analyze 252.
set -euo pipefail
folder=$(cd "$(dirname "$0")/../.." && pwd)
cd "$folder"

start() {
    sudo systemctl disable --now t5jax 2>/dev/null || true # one of before: it saves
    rm -f train.code
    chmod 600 train.sh
    cat >t5jax.service <<UNIT
[Unit]
Description=t5jax
Wants=network-online.target
After=network-online.target google-startup-scripts.service remote-fs.target
ConditionPathExists=!$folder/train.code

[Service]
User=$(id -un)
WorkingDirectory=$folder
ExecStart=/bin/bash $folder/train.sh
ExecStopPost=/bin/bash $folder/launch/tpu_vm/service.sh ended
KillMode=mixed
TimeoutStopSec=300

[Install]
WantedBy=multi-user.target
UNIT
    sudo install -m 644 t5jax.service /etc/systemd/system/t5jax.service
    sudo systemctl daemon-reload
    sudo systemctl enable --now t5jax
}

case ${1:-} in
    start) start ;;
    stop) sudo systemctl disable --now t5jax ;;
    status)
        if [[ -e train.code ]]; then
            echo "t5jax-status: $(cat train.code)"
        elif systemctl is-active --quiet t5jax; then
            echo "t5jax-status: active"
        elif systemctl is-enabled --quiet t5jax 2>/dev/null; then
            echo "t5jax-status: booting"
        else
            echo "t5jax-status: stopped"
        fi
        ;;
    ended)
        # 143: stopped, or the host goes down and will start it again.
        code=$EXIT_STATUS
        [[ $EXIT_CODE == exited ]] || code=137
        [[ $code == 143 ]] || echo "$code" >train.code
        ;;
    *)
        echo "usage: $0 start|stop|status" >&2
        exit 64
        ;;
esac
