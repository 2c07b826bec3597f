"""The command `byol` with a witness, in every process of a run: `python traced.py pretrain ...`.

Into the folder that TRACE names go, by rank: `writes-RANK`, every path that Python opened for writing, made,
renamed or removed; `order-RANK`, the images of every micro-batch (of one a step). HOLD=RANK:POSITION makes
that process wait there for ever, having made `held`, so that it can be killed at a known place. SLOW makes a
service for metrics take two seconds when the run ends.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

RANK = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
TRACE = Path(os.environ["TRACE"])
HOLD = os.environ.get("HOLD")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")


def witness_writes() -> None:
    log = os.open(TRACE / f"writes-{RANK}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            for path in arguments[:1] if event == "open" else arguments:
                if isinstance(path, str | bytes | os.PathLike):
                    os.write(log, os.path.abspath(os.fsencode(path)) + b"\n")  # noqa: PTH100 - or bytes

    sys.addaudithook(hook)


def witness_order() -> None:
    from byol.data.batches import BatchPlan

    original = BatchPlan.indices
    log = (TRACE / f"order-{RANK}").open("a")

    def indices(self: BatchPlan, position: int) -> Any:
        if f"{self.rank}:{position}" == HOLD:
            (TRACE / "held").write_text(str(os.getpid()))
            time.sleep(600)
        images = original(self, position)
        log.write(json.dumps([position, self.processes, images.tolist()]) + "\n")
        log.flush()
        return images

    BatchPlan.indices = indices  # type: ignore[method-assign]


def slow_down_the_end() -> None:
    from byol.training.loggers import Loggers

    original = Loggers.finish

    def finish(self: Loggers, status: Any) -> None:
        time.sleep(2)
        original(self, status)

    Loggers.finish = finish  # type: ignore[method-assign]


def trust_small_files() -> None:
    """Take any STL-10 file that exists for the published one."""
    import torchvision.datasets.stl10

    torchvision.datasets.stl10.check_integrity = lambda path, md5=None: Path(path).is_file()


if __name__ == "__main__":
    witness_writes()
    witness_order()
    trust_small_files()
    if "SLOW" in os.environ:
        slow_down_the_end()
    from byol.cli import main

    sys.exit(main())
