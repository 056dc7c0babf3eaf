"""A connection between hosts that says at once when one of them has gone.

A collective does not reliably fail when a peer dies: measured, gloo with two devices per process
hangs until the heartbeat of jax times out, and NCCL hangs by design. But the kernel closes the
sockets of a dead process at once. So every process holds one connection to process 0. What travels
on it is one byte, the exit code of a process that leaves (0: its work is complete); a connection
that closes without it means a dead process. Either way the others leave too, with the same code
or 70.
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

_PATIENCE = 30.0  # seconds to connect; without a connection heartbeats must do
_OWN_WORDS = 1.0  # seconds for a process to say itself what went wrong on all hosts alike
_UNKNOWN = 70  # exit code for the end of a peer that gave none

_line: "_Lifeline | None" = None


def connect(coordinator: str | None) -> None:
    """Ties this process to the others; all call it, once, after jax.distributed has started.

    Args:
      coordinator: name or address of process 0, or None to use the names it has for itself.
    """
    global _line
    import jax

    token = secrets.token_bytes(16)
    if jax.process_index() == 0:
        local = coordinator in ("127.0.0.1", "localhost")
        server = _listen(local)
        names = [coordinator] if coordinator else _own_names()
        gather_texts(" ".join([token.hex(), str(server.getsockname()[1]), *names]))
        peers = _accept(server, token, jax.process_count() - 1)
    else:
        token_hex, port, *names = gather_texts("")[0].split()
        identity = bytes.fromhex(token_hex) + jax.process_index().to_bytes(4)
        peers = _dial(names, int(port), identity)
    _line = _Lifeline(peers)
    atexit.register(announce, 0)  # runs before jax's own, which waits for the peers


def announce(code: int) -> None:
    """Tells the others that this process ends, and why; without it they leave with 70."""
    if _line is not None:
        _line.say(code)


def within(seconds: float, act: Callable[[], object]) -> None:
    """Runs `act`, but no longer: a stuck thread may hold the lock of the stream to flush."""
    helper = threading.Thread(target=act, daemon=True)
    helper.start()
    helper.join(seconds)


class _Lifeline:
    def __init__(self, peers: dict[int, socket.socket]):
        self._peers = peers
        self._leaving = threading.Event()
        # A forked child (a data worker) would keep the connections of a dead parent open.
        os.register_at_fork(after_in_child=self._close)
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def say(self, code: int) -> None:
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
                    code = _last_word(self._peers[key.data])
                    if code != 0 and not self._leaving.is_set():
                        self._follow(key.data, code)

    def _follow(self, host: int, code: int | None) -> None:
        if self._leaving.wait(_OWN_WORDS):
            return
        how = "died" if code is None else f"left with exit code {code}"
        code = code or _UNKNOWN
        message = f"error: host {host} {how}; leaving with {code}"
        within(2.0, lambda: print(message, file=sys.stderr, flush=True))
        self.say(code)
        within(2.0, sys.stdout.flush)
        os._exit(code)


def _last_word(peer: socket.socket) -> int | None:
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


def _own_names() -> list[str]:
    names = dict.fromkeys([socket.gethostname(), socket.getfqdn()])
    with contextlib.suppress(OSError):  # no address for the own name: then the names must do
        names |= dict.fromkeys(socket.gethostbyname_ex(socket.gethostname())[2])
    return list(names)


def _accept(server: socket.socket, token: bytes, number: int) -> dict[int, socket.socket]:
    """Connections by host; strangers, who do not know the token, are sent away."""
    peers: dict[int, socket.socket] = {}
    deadline = time.monotonic() + _PATIENCE
    with server:
        while len(peers) < number and time.monotonic() < deadline:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            with contextlib.suppress(OSError):  # a timeout, or one that gave up: the rest may come
                peer, _ = server.accept()
                peer.settimeout(5)
                said = peer.recv(len(token) + 4, socket.MSG_WAITALL)
                if len(said) < len(token) + 4 or not secrets.compare_digest(said[:-4], token):
                    peer.close()
                    continue
                peer.settimeout(None)
                peers[int.from_bytes(said[-4:])] = peer
    if missing := sorted(set(range(1, number + 1)) - set(peers)):
        _warn(f"no connection from host {', '.join(map(str, missing))}")
    return peers


def _dial(names: list[str], port: int, identity: bytes) -> dict[int, socket.socket]:
    for name in names:
        try:
            peer = socket.create_connection((name, port), timeout=_PATIENCE / len(names))
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
