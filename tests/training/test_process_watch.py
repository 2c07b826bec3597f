"""A process that waits for ever for one that is gone is ended all the same: no backend is involved here."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from byol.rundir import RunDirectory
from byol.training import process_watch
from byol.training.errors import LostProcessError
from byol.training.process_watch import ProcessWatch, StartedProcesses, connect

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# Watches the process that started it, and waits inside a call that never returns.
STUCK = """
import os, sys, time
from byol.training import process_watch
process_watch._SECONDS_TO_LEAVE = 0.1
watch = process_watch.ProcessWatch(1, lambda: os._exit(7))
watch.start(process_watch.inherited_connection())
print("watching", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_watch, "_SECONDS_TO_LEAVE", 0.1)


def watch_over(started: StartedProcesses) -> tuple[ProcessWatch, threading.Event]:
    left = threading.Event()
    watch = ProcessWatch(0, left.set)
    watch.start(started.connections)
    return watch, left


def test_the_first_process_notices_one_that_is_killed() -> None:
    started = StartedProcesses(SLEEP, 3, {})
    watch, left = watch_over(started)
    assert watch.ended_within(0.2) is None
    started.processes[2].kill()
    assert watch.ended_within(30) == 2 and started.fate(2) == "was killed (SIGKILL)"
    assert left.wait(30)  # the main thread, this one, did not leave by itself
    started.kill()
    assert {process.wait(30) for process in started.processes.values()} == {-signal.SIGKILL}


def test_one_that_fails_before_it_has_connected_is_noticed() -> None:
    started = StartedProcesses([sys.executable, "-c", "raise SystemExit(3)"], 2, {})
    watch, left = watch_over(started)
    assert watch.ended_within(30) == 1 and started.fate(1) == "ended with status 3" and left.wait(30)


def test_messages_that_come_together_are_two() -> None:
    """That another process has ended, and that this one is done: in one reading."""
    ours, theirs = socket.socketpair()
    left = threading.Event()
    watch = ProcessWatch(1, left.set)
    theirs.sendall((2).to_bytes(4) + (2**32 - 1).to_bytes(4))
    watch.start({0: ours})
    assert watch.ended_within(30) == 2


def test_one_that_parts_and_lives_on_has_ended_for_the_others() -> None:
    """A script that catches the error of its run keeps the process, and with it the connection, open."""
    ours, theirs = socket.socketpair()
    watch, other = ProcessWatch(0, lambda: None), ProcessWatch(1, lambda: None)
    watch.start({1: ours})
    other.start({0: theirs})
    other.part()
    assert watch.ended_within(30) == 1 and other.ended is None


def test_one_that_is_done_may_end() -> None:
    code = "from byol.training.process_watch import ProcessWatch, inherited_connection as connection\n"
    code += "watch = ProcessWatch(1, print); watch.start(connection()); watch.finish()"
    started = StartedProcesses([sys.executable, "-c", code], 2, {})
    watch, left = watch_over(started)
    assert started.processes[1].wait(30) == 0
    assert watch.ended_within(0.5) is None and not left.is_set()


def test_a_started_process_does_not_outlive_the_first() -> None:
    code = "import sys; from byol.training.process_watch import StartedProcesses\n"
    code += "StartedProcesses([sys.executable, '-c', sys.argv[1]], 2, {}).processes[1].wait()"
    first = subprocess.Popen([sys.executable, "-c", code, STUCK], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "watching\n"
    first.kill()
    first.wait()
    # The end of the pipe, which the other process holds too: it has ended.
    ended = threading.Event()
    threading.Thread(target=lambda: (first.stdout.read(), ended.set()), daemon=True).start()
    assert ended.wait(30)


class Meeting:
    """`broadcast` between threads."""

    def __init__(self) -> None:
        self.said: object = None
        self.ready = threading.Event()

    def __call__(self, value: object) -> object:
        if value is not None:
            self.said = value
            self.ready.set()
        assert self.ready.wait(30)
        return self.said


def test_connected_processes_learn_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes, as threads, over TCP: when one's connection breaks, the first tells the third."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    meeting = Meeting()
    connections: dict[int, dict[int, object]] = {}

    def join(rank: int) -> None:
        connections[rank] = connect(rank, 3, meeting)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert connections[0].keys() == {1, 2} and connections[1].keys() == connections[2].keys() == {0}
    left = [threading.Event() for _ in range(3)]
    watches = [ProcessWatch(rank, left[rank].set) for rank in (0, 1)]
    for watch in watches:
        watch.start(connections[watch.rank])  # type: ignore[arg-type]
    connections[2][0].close()  # type: ignore[attr-defined]
    assert [watch.ended_within(30) for watch in watches] == [2, 2]
    assert left[0].wait(30) and left[1].wait(30)


def test_a_stranger_is_not_taken_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(process_watch, "_SECONDS_TO_CONNECT", 1)

    def broadcast(value: tuple[int, bytes]) -> None:
        with socket.create_connection(("127.0.0.1", value[0])) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")

    assert connect(0, 2, broadcast) == {}


def test_the_message_tells_how_to_go_on(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert str(LostProcessError(1, "was killed (SIGKILL)", run)).endswith("and start again")
    run.checkpoints.mkdir(parents=True)
    run.last_checkpoint.touch()
    assert str(LostProcessError(1, "was killed (SIGKILL)", run)) == (
        "the process of rank 1 was killed (SIGKILL), and with it the run; "
        f"continue: byol pretrain --resume {run.path}"
    )


def test_forked_workers_do_not_keep_connections_open() -> None:
    started = StartedProcesses(SLEEP, 2, {})
    watch, _ = watch_over(started)
    connection = watch.connections[1]
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.write(writer, str(connection.fileno()).encode())
        os._exit(0)
    os.waitpid(worker, 0)
    watch.over = True
    started.kill()
    assert os.read(reader, 10) == b"-1"
