"""Failure detection between hosts: a socket to process 0 that closes when a process dies.

A collective does not reliably fail when a peer dies: measured, gloo with two devices per process
hangs until the heartbeat of jax times out, and NCCL hangs by design. But the kernel closes the
sockets of a dead process at once. So every process holds one connection to process 0. Only one byte
is sent on it: the exit code of a process that ends (0: its work is complete); a connection that
closes without it means a dead process. Either way the others end too, with the same code or 70.
"""

import atexit
import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable

from t5jax.runtime.agreement import gather_texts
from t5jax.runtime.lease import release_all

_CONNECT_SECONDS = 30.0  # without a connection jax's heartbeats must do
_OWN_ERROR_SECONDS = 1.0  # for a process to print its own error, if all hosts fail alike
_UNKNOWN_EXIT_CODE = 70  # where a peer ended without one

_line: "_Lifeline | None" = None


def connect(coordinator: str | None) -> None:
    """Connects this process to process 0; all call it, once, after jax.distributed has started.

    Args:
      coordinator: name or address of process 0; None: its own host names.
    """
    global _line
    import jax

    token = secrets.token_bytes(16)
    if jax.process_index() == 0:
        local = coordinator in ("127.0.0.1", "localhost")
        server = _listen(local)
        names = [coordinator] if coordinator else _host_names()
        gather_texts(" ".join([token.hex(), str(server.getsockname()[1]), *names]))
        peers = _accept(server, token, jax.process_count() - 1)
    else:
        token_hex, port, *names = gather_texts("")[0].split()
        identity = bytes.fromhex(token_hex) + jax.process_index().to_bytes(4)
        peers = _connect_to_host_0(names, int(port), identity)
    _line = _Lifeline(peers)
    atexit.register(announce_exit, 0)  # runs before jax's own, which waits for the peers


def announce_exit(code: int) -> None:
    """Sends the exit code of this process to the others; without it they end with 70."""
    if _line is not None:
        _line.send_exit(code)


def run_with_timeout(seconds: float, function: Callable[[], object]) -> None:
    """Stops waiting after `seconds`: a stuck thread may hold the lock of the stream to flush."""
    helper = threading.Thread(target=function, daemon=True)
    helper.start()
    helper.join(seconds)


class _Lifeline:
    def __init__(self, peers: dict[int, socket.socket]):
        self._peers = peers
        self._leaving = threading.Event()
        # A forked child (a data worker) would keep the connections of a dead parent open.
        os.register_at_fork(after_in_child=self._close)
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def send_exit(self, code: int) -> None:
        if self._leaving.is_set():
            return
        self._leaving.set()
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # gone already: it does not need to know
                peer.send(bytes([code & 0xFF]))

    def _close(self) -> None:
        for peer in self._peers.values():
            peer.close()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for host, peer in self._peers.items():
                selector.register(peer, selectors.EVENT_READ, host)
            while selector.get_map():
                for key, _ in selector.select():
                    selector.unregister(key.fileobj)
                    code = _read_exit_code(self._peers[key.data])
                    if code != 0 and not self._leaving.is_set():
                        self._follow(key.data, code)

    def _follow(self, host: int, code: int | None) -> None:
        if self._leaving.wait(_OWN_ERROR_SECONDS):
            return
        how = "died" if code is None else f"left with exit code {code}"
        code = code or _UNKNOWN_EXIT_CODE
        message = f"error: host {host} {how}; leaving with {code}"
        run_with_timeout(2.0, lambda: print(message, file=sys.stderr, flush=True))
        self.send_exit(code)
        run_with_timeout(2.0, sys.stdout.flush)
        run_with_timeout(2.0, release_all)
        os._exit(code)


def _read_exit_code(peer: socket.socket) -> int | None:
    try:
        data = peer.recv(1)
    except OSError:
        return None
    return data[0] if data else None


def _listen(local: bool) -> socket.socket:
    if local:
        return socket.create_server(("127.0.0.1", 0), backlog=1024)
    if socket.has_dualstack_ipv6():
        family = socket.AF_INET6
        return socket.create_server(("", 0), family=family, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", 0), backlog=1024)


def _host_names() -> list[str]:
    names = dict.fromkeys([socket.gethostname(), socket.getfqdn()])
    with contextlib.suppress(OSError):  # no address for the own name: then the names must do
        names |= dict.fromkeys(socket.gethostbyname_ex(socket.gethostname())[2])
    return list(names)


def _accept(server: socket.socket, token: bytes, number: int) -> dict[int, socket.socket]:
    """Connections by host; a connection without the token is closed."""
    peers: dict[int, socket.socket] = {}
    deadline = time.monotonic() + _CONNECT_SECONDS
    with server:
        while len(peers) < number and time.monotonic() < deadline:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            with contextlib.suppress(OSError):  # a timeout, or a peer that gave up: others may come
                peer, _ = server.accept()
                peer.settimeout(5)
                identity = peer.recv(len(token) + 4, socket.MSG_WAITALL)
                known = secrets.compare_digest(identity[:-4], token)
                if len(identity) < len(token) + 4 or not known:
                    peer.close()
                    continue
                peer.settimeout(None)
                peers[int.from_bytes(identity[-4:])] = peer
    if missing := sorted(set(range(1, number + 1)) - set(peers)):
        _warn(f"no connection from host {', '.join(map(str, missing))}")
    return peers


def _connect_to_host_0(names: list[str], port: int, identity: bytes) -> dict[int, socket.socket]:
    for name in names:
        try:
            peer = socket.create_connection((name, port), timeout=_CONNECT_SECONDS / len(names))
            peer.sendall(identity)
        except OSError:
            continue  # the next name of the same host
        peer.settimeout(None)
        return {0: peer}
    _warn(f"cannot reach host 0 as {', '.join(names)} on port {port}")
    return {}


def _warn(what: str) -> None:
    print(
        f"warning: lifeline: {what}; the death of a host will be noticed only after "
        "runtime.heartbeat_timeout_seconds",
        file=sys.stderr,
        flush=True,
    )
