"""How fast training is, and how much of its time goes into waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Images per second, and the share of time spent waiting for the next batch, since the last reading.

    The rate is images over the time that passed, so that it holds where a step is only queued when
    its call returns; time set aside (kNN, saving) is left out.
    """

    def __init__(self) -> None:
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
        """Leave what happens inside out of the count."""
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began

    def read(self) -> dict[str, float]:
        """Return images per second and the share of time spent waiting, and start anew."""
        seconds = max(time.perf_counter() - self.began - self.aside, 1e-9)
        rates = {"images_per_second": self.images / seconds, "data_wait": self.waiting / seconds}
        self.start()
        return rates
