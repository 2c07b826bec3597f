"""One line that tells how the run is doing; plain lines where the output is no terminal."""

import sys
import time
from typing import Any, TextIO

_QUIET_SECONDS = 600


class Progress:
    """Shows loss, kNN, images per second, share of time spent waiting for data, and time to go.

    Args:
        total_steps: of the run.
        stream: where to write (standard error by default); on a terminal the line is rewritten in place.
        plain_lines: about this many lines in a whole run where it is no terminal, or one every ten minutes
            where that is more.
    """

    def __init__(self, total_steps: int, stream: TextIO | None = None, plain_lines: int = 20) -> None:
        self.total_steps = total_steps
        self.stream = stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self.every = max(1, total_steps // plain_lines)
        self.next_line = 0
        self.line_time = 0.0
        self.knn = ""
        self.started: tuple[float, int] | None = None

    def show(self, record: dict[str, Any]) -> None:
        """Show a record of metrics.jsonl."""
        for metric, name in (("knn", "kNN"), ("patch_knn", "patch kNN")):
            if metric in record:
                self.knn = f"  {name} {record[metric]:.1%}"
        step = record["step"]
        if self.started is None:
            self.started = (time.monotonic(), step)
        if "loss" not in record:
            return
        if self.on_terminal:
            self.stream.write("\r\x1b[K" + self._line(record))
        elif step >= self.next_line or step == self.total_steps or self._quiet():
            self.line_time = time.monotonic()
            self.next_line = (step // self.every + 1) * self.every
            self.stream.write(self._line(record) + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """Write a line of its own."""
        self.stream.write(("\r\x1b[K" if self.on_terminal else "") + text + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Leave the last line standing."""
        if self.on_terminal:
            self.stream.write("\n")

    def _quiet(self) -> bool:
        return time.monotonic() - self.line_time > _QUIET_SECONDS

    def _line(self, record: dict[str, Any]) -> str:
        return (
            f"step {record['step']}/{self.total_steps}  epoch {record['epoch']:.1f}  "
            f"loss {record['loss']:.3f}{self.knn}  {record['images_per_second']:.0f} images/s  "
            f"waiting for data {record['data_wait']:.0%}  {self._to_go(record['step'])}"
        )

    def _to_go(self, step: int) -> str:
        assert self.started is not None
        start_time, start_step = self.started
        if step == self.total_steps:
            return "done"
        if step == start_step:
            return "..."
        seconds = int((time.monotonic() - start_time) / (step - start_step) * (self.total_steps - step))
        minutes, hours = seconds // 60, seconds // 3600
        long = f"{hours}:{minutes % 60:02d}" if hours else f"{minutes}"
        return f"{long}:{seconds % 60:02d} to go"
