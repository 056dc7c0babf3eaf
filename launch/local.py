#!/usr/bin/env python3
"""Simulates a multi-host job on this machine: N processes, each as one host.

    python launch/local.py -n 2 --devices 4 -- train configs/quickstart.py

Every line of output begins with its process. When a process fails, the others are ended after a
grace period; its exit code becomes that of this program, and no process is left running.
With --kill 1:20 process 1 gets SIGKILL after 20 seconds, with --term "0:step 7" process 0 gets
SIGTERM when it prints "step 7": rehearsals of what happens on a cluster. A signal whose moment
never came, because the process had ended or never printed the text, is said at the end, and where
all ended well the exit code is 64: nothing was rehearsed. The processes have all variables of
this one but proxies; the run says which it lacks of those that T5JAX_ENV names. Needs nothing but
Python.
"""

import argparse
import dataclasses
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TextIO

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOT_REHEARSED = 64  # t5jax's code of a wrong command line


@dataclasses.dataclass(kw_only=True)
class Fault:
    """A signal to one process, so many seconds after the start or when it prints a text."""

    process: int
    signal: int
    when: float | str

    def __str__(self) -> str:
        option = signal.Signals(self.signal).name.removeprefix("SIG").lower()
        when = self.when if isinstance(self.when, str) else f"{self.when:g}"
        return f"--{option} {self.process}:{when}"

    @staticmethod
    def parse(text: str, number: int) -> "Fault":
        process, _, when = text.partition(":")
        if not process.isdecimal() or not when:
            raise argparse.ArgumentTypeError(f"{text!r}: must be PROCESS:SECONDS or PROCESS:TEXT")
        try:
            return Fault(process=int(process), signal=number, when=float(when))
        except ValueError:
            return Fault(process=int(process), signal=number, when=when)


@dataclasses.dataclass(kw_only=True)
class Exit:
    """How one process ended. Killed by signal S counts as code 128 + S, as in a shell."""

    process: int
    code: int
    seconds: float  # since the start


@dataclasses.dataclass(kw_only=True)
class Outcome:
    exits: list[Exit]  # in the order in which they ended
    lines: list[str]  # with their prefixes
    missed: list[Fault]  # signals whose moment never came

    @property
    def code(self) -> int:
        """Of the first process that failed; 64 where none did and a signal was never sent; or 0."""
        failed = next((end.code for end in self.exits if end.code), 0)
        return failed or (NOT_REHEARSED if self.missed else 0)


class Job:
    """N processes of one command, started together and ended together."""

    def __init__(self, command: list[str], num_processes: int, *, devices: int | None = None,
                 faults: tuple[Fault, ...] = (), output: TextIO | None = None):  # fmt: skip
        self._faults = list(faults)
        self._missed: list[Fault] = []
        self._output = output
        self._lines: list[str] = []
        self._exits: list[Exit] = []
        self._lock = threading.RLock()
        self._start = time.monotonic()
        self._processes: list[subprocess.Popen] = []
        self._readers: list[threading.Thread] = []
        address = f"127.0.0.1:{_free_port()}"
        try:
            for index in range(num_processes):
                environment = _environment(address, num_processes, index, devices)
                self._start_process(command, index, environment)
        except BaseException:
            self.kill()
            raise

    def wait(self, *, grace_seconds: float = 15.0, timeout_seconds: float | None = None) -> Outcome:
        """Waits for all; the first failure or the timeout leaves the others the grace period."""
        deadline = None if timeout_seconds is None else self._start + timeout_seconds
        failed = False
        try:
            while len(self._exits) < len(self._processes):
                self._send_due()
                self._collect()
                now = time.monotonic()
                if not failed and any(end.code for end in self._exits):
                    failed, deadline = True, now + grace_seconds
                if deadline is not None and now > deadline:
                    self._say("launcher: time is up, killing what is left")
                    self.kill()
                time.sleep(0.02)
        finally:
            self.kill()
        for reader in self._readers:
            reader.join()
        self._missed += self._faults
        for fault in self._missed:
            self._say(f"launcher: {fault} was never sent: {_why_missed(fault)}")
        return Outcome(exits=self._exits, lines=self._lines, missed=self._missed)

    def send(self, number: int) -> None:
        """A signal to every process that still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def kill(self) -> None:
        """Ends all processes and what they started: a group may outlive its first process."""
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self._processes:
            process.wait()
        self._collect()

    def _start_process(self, command: list[str], index: int, environment: dict[str, str]) -> None:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._processes.append(process)
        reader = threading.Thread(target=self._read, args=(index, process), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, index: int, process: subprocess.Popen) -> None:
        for line in process.stdout or ():
            self._say(f"[{index}] {line.rstrip()}")
            with self._lock:
                due = [f for f in self._faults if f.process == index and str(f.when) in line]
                self._strike(fault for fault in due if isinstance(fault.when, str))

    def _send_due(self) -> None:
        passed = time.monotonic() - self._start
        with self._lock:
            timed = [f for f in self._faults if isinstance(f.when, float) and f.when <= passed]
            self._strike(timed)

    def _strike(self, faults) -> None:
        for fault in faults:
            self._faults.remove(fault)
            process = self._processes[fault.process]
            if process.poll() is not None:
                self._missed.append(fault)
                continue
            self._say(f"launcher: {signal.Signals(fault.signal).name} to {fault.process}")
            process.send_signal(fault.signal)

    def _collect(self) -> None:
        known = {end.process for end in self._exits}
        for index, process in enumerate(self._processes):
            if index in known or process.poll() is None:
                continue
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            seconds = time.monotonic() - self._start
            self._exits.append(Exit(process=index, code=code, seconds=seconds))
            self._say(f"launcher: process {index} ended with {code} after {seconds:.1f} s")

    def _say(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)
            if self._output is not None:
                print(line, file=self._output, flush=True)


def _why_missed(fault: Fault) -> str:
    if isinstance(fault.when, str):
        return f"process {fault.process} did not print {fault.when!r} while it ran"
    return f"process {fault.process} had ended before {fault.when:g} s"


def _environment(address: str, num_processes: int, index: int, devices: int | None):
    # Proxies make jax's processes miss one another, and nothing here leaves this machine.
    environment = {k: v for k, v in os.environ.items() if "_proxy" not in k.lower()}
    environment["T5JAX_COORDINATOR"] = address
    environment["T5JAX_NUM_PROCESSES"] = str(num_processes)
    environment["T5JAX_PROCESS_ID"] = str(index)
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    )
    if devices is not None:
        environment["JAX_PLATFORMS"] = "cpu"
        environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    return environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=2, help="processes")
    parser.add_argument("--devices", type=int, help="virtual CPU devices of each process")
    parser.add_argument("--program", default=f"{shlex.quote(sys.executable)} -m t5jax")
    parser.add_argument("--grace", type=float, default=15.0, help="seconds after the first failure")
    parser.add_argument("--timeout", type=float, help="seconds for the whole job")
    for name, number in (("kill", signal.SIGKILL), ("term", signal.SIGTERM)):
        parser.add_argument(
            f"--{name}", dest="faults", action="append", default=[], metavar="PROCESS:WHEN",
            type=lambda text, number=number: Fault.parse(text, number),
            help=f"SIG{name.upper()} to a process after WHEN seconds, or when it prints WHEN",
        )  # fmt: skip
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="after --: for the program")
    options = parser.parse_args(argv)
    if options.n < 1 or any(fault.process >= options.n for fault in options.faults):
        parser.error("-n must be at least 1, and --kill and --term name processes below it")
    return options


def main(argv: list[str] | None = None) -> int:
    options = _arguments(argv)
    rest = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    jobs: list[Job] = []
    early = threading.Event()

    def leave(*_) -> None:
        """A notice to this program is one to the job, which then saves and leaves by itself."""
        for job in jobs:
            job.send(signal.SIGTERM)
        if not jobs:
            early.set()

    # Before anything starts: a signal that came in between would end this program alone.
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
    try:
        job = Job(
            [*shlex.split(options.program), *rest],
            options.n,
            devices=options.devices,
            faults=tuple(options.faults),
            output=sys.stdout,
        )
        jobs.append(job)
        if early.is_set():
            job.send(signal.SIGTERM)
        return job.wait(grace_seconds=options.grace, timeout_seconds=options.timeout).code
    except KeyboardInterrupt:
        return 130  # the job has killed everything


if __name__ == "__main__":
    sys.exit(main())
