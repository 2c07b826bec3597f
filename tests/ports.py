"""Ports of this machine on which nobody listens."""

import itertools
import os
import socket

# Below those that the system hands out for connections, which would take one between its choice and its
# use; two test processes begin at different ones.
_CANDIDATES = itertools.cycle(25000 + (os.getpid() * 50 + number) % 5000 for number in range(5000))


def free_port() -> int:
    """Return another one with every call."""
    for port in itertools.islice(_CANDIDATES, 5000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no free port")
