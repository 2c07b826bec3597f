"""How many bytes of images a run holds on its device."""

import sys

import torch

from byol.config import PretrainConfig
from byol.data.images import LIMIT_BYTES
from byol.machine import machine_memory
from byol.training.processes import launch_of


def memory_limit(config: PretrainConfig) -> int:
    """Return how many bytes of images each process of a run may hold; no limit where it was told to.

    It goes by all the memory there is rather than by what is free, which differs from one start of a command
    to the next, and by the smallest GPU: the processes of a machine choose alike.
    """
    if config.in_memory == "on":
        return sys.maxsize
    gpus = torch.cuda.device_count()
    if config.in_memory == "off" or not gpus:
        return LIMIT_BYTES
    on_device = min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(gpus)) // 4
    # Every process reads the images into the machine's memory, and measures kNN on them there.
    in_machine = machine_memory() // (4 * launch_of(config).devices)
    return min(on_device, max(LIMIT_BYTES, in_machine))
