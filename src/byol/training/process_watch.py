"""The other processes of a run: starting them, and noticing when one of them ends.

A backend cannot be relied on for that: gloo fails at once, NCCL waits for ever. So every process
holds a connection to the first one. The system closes it with the process, however that ends, and
the first process tells the others.
"""

import os
import secrets
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

_CONNECTION_VARIABLE = "BYOL_CONNECTION"
_DONE = 2**32 - 1
"""In place of a rank, of which messages consist."""
_RANK_BYTES = 4
_TOKEN_BYTES = 16
_SECONDS_TO_CONNECT = 60
_SECONDS_TO_LEAVE = 20


class ProcessWatch:
    """Notices that another process has ended before its time, and that this one does not get away from it.

    `ended` is then the rank of that process. Whoever is computing should look at it; a process that
    waits for the other one inside a collective cannot, and after twenty seconds is made to `leave`.
    """

    def __init__(self, rank: int, leave: Callable[[], None]) -> None:
        """Watch for the process of this rank.

        Args:
            rank: of this process among all.
            leave: ends this process; called on a thread of its own.
        """
        self.rank = rank
        self.leave = leave
        self.ended: int | None = None
        self.connections: dict[int, socket.socket] = {}
        self.over = False
        self._noticed = threading.Event()

    def start(self, connections: dict[int, socket.socket]) -> None:
        """Begin to watch the processes of these ranks."""
        self.connections = connections
        for connection in connections.values():
            connection.setblocking(True)
            _close_in_forks(connection)
        threading.Thread(target=self._watch, name="process-watch", daemon=True).start()

    def finish(self) -> None:
        """Tell the others that this process is done: they may end from here on, and so may it."""
        self.over = True
        self._send_all(_DONE)

    def part(self) -> None:
        """Let go of the others, also where this process lives on: to them it has ended."""
        self.over = True
        for connection in self.connections.values():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def ended_within(self, seconds: float) -> int | None:
        """Return `ended`, after waiting for it."""
        if self.connections:
            self._noticed.wait(seconds)
        return self.ended

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, connection in self.connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    message = _received(self.connections[key.data], _RANK_BYTES)
                    rank = int.from_bytes(message) if message else key.data
                    if rank != _DONE and not self.over:
                        self._notice(rank)
                        return
                    selector.unregister(key.fileobj)

    def _notice(self, rank: int) -> None:
        self.ended = rank
        self._noticed.set()
        self._send_all(rank)
        time.sleep(_SECONDS_TO_LEAVE)
        if not self.over:
            self.leave()

    def _send_all(self, rank: int) -> None:
        message = rank.to_bytes(_RANK_BYTES)
        for connection in self.connections.values():
            with suppress(OSError):
                connection.sendall(message)


class StartedProcesses:
    """The other processes of this machine, where the run has started them itself."""

    def __init__(self, command: Sequence[str], count: int, variables: dict[str, str]) -> None:
        """Start a command with LOCAL_RANK 1 to count - 1, and with further environment variables.

        RANK is the same: one that a container's launcher has left would be taken for that of every process.
        """
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.connections: dict[int, socket.socket] = {}
        for rank in range(1, count):
            self.connections[rank], theirs = socket.socketpair()
            number = theirs.fileno()
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), _CONNECTION_VARIABLE: str(number)}
            self.processes[rank] = subprocess.Popen(
                command, env={**os.environ, **variables, **own}, pass_fds=[number]
            )
            theirs.close()

    def wait(self) -> None:
        """Wait for those that still run: they have nothing left to do."""
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_LEAVE)

    def kill(self) -> None:
        """End those that still run."""
        for process in self.processes.values():
            process.kill()

    def fate(self, rank: int) -> str:
        """Return how a process ended, in words."""
        process = self.processes.get(rank)
        status = None
        with suppress(subprocess.TimeoutExpired):
            status = process and process.wait(1)
        if not status:
            return "ended"
        return f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"


def inherited_connection() -> dict[int, socket.socket]:
    """Return the connection to the process that started this one; none where that is not so."""
    number = os.environ.pop(_CONNECTION_VARIABLE, None)
    if number is None:
        return {}
    connection = socket.socket(fileno=int(number))
    _close_in_forks(connection)
    return {0: connection}


def connect(rank: int, count: int, broadcast: Callable[[Any], Any]) -> dict[int, socket.socket]:
    """Connect processes of any number of machines: the first one with each of the others.

    Args:
        rank: of this process.
        count: number of processes.
        broadcast: gives all processes what the first one passes.

    Returns:
        Connections by rank. Whoever cannot be reached within a minute is missing.
    """
    if rank == 0:
        with _server(count) as server:
            token = secrets.token_bytes(_TOKEN_BYTES)
            broadcast((server.getsockname()[1], token))
            return _accepted(server, count, token)
    port, token = broadcast(None)
    try:
        connection = socket.create_connection((os.environ["MASTER_ADDR"], port), _SECONDS_TO_CONNECT)
        connection.sendall(token + rank.to_bytes(_RANK_BYTES))
    except OSError:
        return {}
    return {0: _kept_alive(connection)}


def _close_in_forks(connection: socket.socket) -> None:
    """Leave a connection to this process: the workers that load data are forks, and would keep it open."""
    os.register_at_fork(after_in_child=connection.close)


def _server(backlog: int) -> socket.socket:
    """Listen on a free port, under IPv4 and IPv6 where the machine has both."""
    if not socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), backlog=backlog)
    return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog)


def _accepted(server: socket.socket, count: int, token: bytes) -> dict[int, socket.socket]:
    """Return the connections of those who know the token."""
    connections: dict[int, socket.socket] = {}
    server.settimeout(_SECONDS_TO_CONNECT)
    with suppress(TimeoutError):
        while len(connections) < count - 1:
            connection, _ = server.accept()
            connection.settimeout(_SECONDS_TO_CONNECT)
            greeting = _received(connection, len(token) + _RANK_BYTES)
            if secrets.compare_digest(greeting[:-_RANK_BYTES], token):
                connections[int.from_bytes(greeting[-_RANK_BYTES:])] = _kept_alive(connection)
    return connections


def _kept_alive(connection: socket.socket) -> socket.socket:
    """Let the system notice within half a minute that the machine at the other end is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 4), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _received(connection: socket.socket, size: int) -> bytes:
    """Return a message; nothing where the other end is closed."""
    try:
        return connection.recv(size, socket.MSG_WAITALL)
    except OSError:
        return b""
