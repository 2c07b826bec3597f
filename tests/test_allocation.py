"""Memory stays with the process between steps; afterwards the program is as fast as before."""

import json
import subprocess
import sys
from mmap import PAGESIZE
from statistics import median

import pytest
import torch

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux's C library"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is done beside a GPU"),
]

# In a process of its own: what was allocated before decides.
PROGRAM = """
import json, resource, sys
from contextlib import nullcontext
import torch
from torch import nn
from byol.allocation import memory_kept

torch.set_num_threads(1)

def page_faults(warm_up=2, steps=2):
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    images = torch.randn(16, 8, 272, 272)  # 36 MiB, as every activation: always a new block, of itself
    for step in range(warm_up + steps):
        if step == warm_up:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        net(images).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

with memory_kept() if sys.argv[1] == "kept" else nullcontext():
    with memory_kept() if sys.argv[1] == "kept" else nullcontext():
        torch.zeros(1)
    during = page_faults()
    held = resident()
print(json.dumps({"during": during, "given_back": held - resident(), "afterwards": page_faults()}))
"""


def found(how: str) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    values: dict[str, int] = json.loads(done.stdout)
    return values


def test_blocks_are_used_again_and_given_back() -> None:
    plain, kept = found("plain"), found("kept")
    assert 3 * kept["during"] < plain["during"]  # nearly none; how early the heap has stopped growing differs
    assert kept["given_back"] > 2**25
    assert kept["afterwards"] < 1.5 * plain["afterwards"]


FIT = """
import json, resource
import torch
import torch.nn.functional as F
from torch import nn
from byol.evaluation.supervised import descend

torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(2), nn.AvgPool1d(272 * 272), nn.Flatten())
images, labels = torch.randn(16, 8, 272, 272), torch.zeros(16, dtype=torch.int64)  # activations of 36 MiB
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
faults = []

def batches(epoch):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    yield images, labels

descend(net, optimizer, batches, F.cross_entropy, 0.1, epochs=12, steps=1, seed=0)
print(json.dumps([later - earlier for earlier, later in zip(faults, faults[1:])]))
"""


def test_a_fit_uses_blocks_again() -> None:
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=True)
    one_block = 36 * 2**20 // PAGESIZE
    # Each step needs several blocks; the heap grows in the first ones, and now and then in another.
    assert median(json.loads(done.stdout)) < one_block


EXTRACTION = """
import json, resource
import torch
from torch import nn
from byol.augment.evaluation import Preprocess
from byol.data.images import TensorImages
from byol.evaluation.features import extract

torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
faults = []
net.register_forward_pre_hook(lambda *_: faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt))
images = TensorImages(torch.zeros(36 * 12, 3, 128, 128, dtype=torch.uint8))  # maps of 36 MiB a batch
extract(net, Preprocess(128, mean=(0.0,) * 3, std=(1.0,) * 3), images, batch_size=36)
print(json.dumps([later - earlier for earlier, later in zip(faults, faults[1:])]))
"""


def test_extraction_uses_blocks_again() -> None:
    done = subprocess.run([sys.executable, "-c", EXTRACTION], capture_output=True, text=True, check=True)
    assert median(json.loads(done.stdout)) < 36 * 2**20 // PAGESIZE
