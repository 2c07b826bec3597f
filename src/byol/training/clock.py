"""How long training takes, how fast it is, and how much of its time goes into waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds of training; images per second, and the share of time spent waiting, since the last reading.

    Training is all from before the first batch to behind the last step: steps, waiting for data, logging.
    Time set aside (measuring on the hold-out, saving) is left out, and so is what comes before `start`
    (reading the data, compiling). Rates are over the time that passed, so that they hold where a step is
    only queued when its call returns.

    Args:
        trained: seconds before this start of the program.
    """

    def __init__(self, trained: float = 0.0) -> None:
        self.trained = trained
        self.start()

    def start(self) -> None:
        """Begin to count."""
        self.began = self.mark = time.perf_counter()
        self.images, self.waiting, self.aside = 0, 0.0, 0.0

    def batch_starts(self) -> None:
        """The batch has arrived."""
        self.waiting += time.perf_counter() - self.mark

    def batch_ends(self, images: int) -> None:
        """The step is done (on a GPU: queued)."""
        self.images += images

    def loop_continues(self) -> None:
        """Everything between two steps is done; what follows is waiting."""
        self.mark = time.perf_counter()

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Leave what happens inside out of the count; steps that are queued before it count."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began

    def seconds(self) -> float:
        """Return the seconds of training so far."""
        return self.trained + self._since_reading()

    def read(self) -> dict[str, float]:
        """Return seconds of training, images per second and the share of time spent waiting; start anew."""
        passed = self._since_reading()
        self.trained += passed
        passed = max(passed, 1e-9)
        rates = {"images_per_second": self.images / passed, "data_wait": self.waiting / passed}
        self.start()
        return {"seconds": self.trained, **rates}

    def _since_reading(self) -> float:
        return time.perf_counter() - self.began - self.aside
