"""What a process may use of its machine, in containers and jobs of both versions of control groups."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from byol import machine
from byol.machine import available_cores, machine_memory, shared_memory


def write(root: Path, groups: str, limits: dict[str, str]) -> None:
    files = {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/memory.max": "4096\n", "job/step/memory.max": "max\n"}, 4096),
        ("0::/job/step\n", {"job/memory.max": "8192\n", "job/step/memory.max": "4096\n"}, 4096),
        ("5:cpu:/x\n4:memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "4096\n"}, 4096),
        ("0::/\n", {"memory.max": "4096"}, 4096),
        ("0::/job\n", {"job/memory.max": "max\n"}, None),
        ("0::/job\n", {}, None),
    ],
)
def test_a_container_s_memory_is_the_machine_s(
    groups: str, limits: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    write(tmp_path, groups, limits)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine_memory(tmp_path) == (expected or whole)
    assert machine_memory(tmp_path / "elsewhere") == whole


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/cpu.max": "400000 100000\n", "job/step/cpu.max": "max 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        (
            "3:cpu,cpuacct:/pod\n4:cpuset:/other\n0::/\n",
            {"cpu,cpuacct/pod/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "3:cpuacct,cpu:/pod\n",
            {"cpu/pod/cpu.cfs_quota_us": "300000\n", "cpu/pod/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("3:cpu:/pod\n", {"cpu/pod/cpu.cfs_quota_us": "-1\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}, 16),
        ("", {}, 16),
    ],
)
def test_a_container_s_time_is_worth_so_many_cores(
    groups: str, limits: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    write(tmp_path, groups, limits)
    assert available_cores(tmp_path) == expected


def test_shared_memory_is_what_its_file_system_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_SHARED_MEMORY", tmp_path)
    words = ["df", "--block-size=1", "--output=size", tmp_path]
    assert shared_memory() == int(subprocess.check_output(words, text=True).split()[-1])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=0))  # tmpfs without a limit
    assert shared_memory() == sys.maxsize
    monkeypatch.setattr(machine, "_SHARED_MEMORY", tmp_path / "none")
    assert shared_memory() == sys.maxsize


def test_files_that_cannot_be_read_limit_nothing(tmp_path: Path) -> None:
    write(tmp_path, "0::/\n", {"cpu.max/text": ""})  # a folder in its place
    assert available_cores(tmp_path) == machine.visible_cores()
