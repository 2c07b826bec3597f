"""Programs that tests start. One that does not end says where it is, and so do those that it has started."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

Program = subprocess.Popen[str]


def start(words: Sequence[str | Path], cwd: Path | None = None, **environment: str) -> Program:
    """Start a program in a session of its own: a signal to its process group reaches no test."""
    return subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(
    words: Sequence[str | Path], seconds: float = 300, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it did."""
    program = start(words, cwd, **environment)
    ((output, errors),) = said(program, seconds=seconds)
    return subprocess.CompletedProcess(words, program.returncode, output, errors)


def said(*programs: Program, seconds: float) -> list[tuple[str, str]]:
    """Wait for programs and return what each wrote to stdout and stderr.

    Raises:
        AssertionError: one did not end in time; with the stacks of all processes.
    """
    try:
        return [program.communicate(timeout=seconds) for program in programs]
    except subprocess.TimeoutExpired as error:
        abort(programs)
        texts = "\n".join("".join(program.communicate(timeout=30)) for program in programs)
        raise AssertionError(f"{error}\n{texts}") from None
    finally:
        abort(programs)


def abort(programs: Sequence[Program]) -> None:
    """End programs and all that they have started; Python prints the stack of each thread before it ends."""
    for program in programs:
        if program.poll() is None:
            for one in psutil.Process(program.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGABRT)
                time.sleep(0.3)  # one after the other, or their lines mix
        with suppress(ProcessLookupError):  # also those that a program has left behind
            os.killpg(program.pid, signal.SIGABRT)
