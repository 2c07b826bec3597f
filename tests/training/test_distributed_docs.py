"""docs/distributed.md: its commands and its batch script run as they stand there, but for sizes and paths."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from byol.bundle import load_backbone
from byol.rundir import RunDirectory
from byol.training.checkpoint import load
from tests.ports import free_port
from tests.programs import Program, said, start
from tests.training.test_processes import wait_for

DOCS = Path(__file__).parents[2] / "docs" / "distributed.md"
SMALL = "--image-size 32 --projection-size 16 --projection-hidden-size 32 --optimizer adamw --knn-every 0"
SMALL += " --log-every 1st --num-workers 1"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def block(start: str) -> str:
    """Return the fenced block that begins with these words."""
    blocks: list[str] = re.findall(r"^```bash\n(.*?)^```", DOCS.read_text(), flags=re.DOTALL | re.MULTILINE)
    return next(text for text in blocks if text.startswith(start)).replace("\\\n", " ")


def shrunk(text: str, steps: str, run: Path, data: Path) -> str:
    """Replace paths and sizes; each of them must be there."""
    changes = {
        "/shared/runs/first": str(run),
        "/shared/images": str(data),
        "resnet50": "resnet8_16",
        "--batch-size 4096": "--batch-size 8",
        "--epochs 300": f"--epochs {steps} {SMALL}",
    }
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


@pytest.fixture
def machines() -> Iterator[list[list[str]]]:
    """Two machines, 10.0.0.1 and 10.0.0.2: what to put before a command to run it there.

    Where namespaces cannot be made, [] stands for two addresses of the loopback network; there not even a
    program that takes 127.0.0.1 for the first machine would fail.
    """
    names = [f"byol{os.getpid()}{letter}" for letter in "ab"]
    made = [f"ip netns add {name}" for name in names]
    made.append(f"ip link add eth0 netns {names[0]} type veth peer name eth0 netns {names[1]}")
    for number, name in enumerate(names, start=1):
        made += [f"ip -n {name} addr add 10.0.0.{number}/24 dev eth0", f"ip -n {name} link set eth0 up"]
        made.append(f"ip -n {name} link set lo up")
    try:
        for command in made:
            subprocess.run(shlex.split(command), capture_output=True, check=True)
        found = [["ip", "netns", "exec", name] for name in names]
    except (OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"no network namespaces here ({error}): two loopback addresses do", stacklevel=2)
        found = []
    try:
        yield found
    finally:
        for name in names if shutil.which("ip") else ():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def on_machine(number: int, command: str, machines: list[list[str]], port: int) -> list[str]:
    """Return a command for machine 0 or 1: a namespace, or an address of the loopback network."""
    words = shlex.split(command.replace("--node-rank 0", f"--node-rank {number}"))
    assert words[0] == "torchrun" and f"--node-rank {number}" in " ".join(words)
    words[0] = str(BIN / "torchrun")
    if machines:
        return [*machines[number], *words]
    changed = {"10.0.0.1": "127.0.0.1", "29500": str(port)}
    words = [changed.get(word, word) for word in words]
    return [words[0], "--local-addr", f"127.0.0.{number + 1}", *words[1:]]


def test_two_machines_complete_a_run(machines: list[list[str]], photographs: Path, tmp_path: Path) -> None:
    command = shrunk(block("torchrun"), "4st", tmp_path / "run", photographs)
    command = command.replace("--nproc-per-node 8", "--nproc-per-node 1")
    port = free_port()
    environment = {"GLOO_SOCKET_IFNAME": "eth0"} if machines else {}
    agents = []
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        words = on_machine(number, command, machines, port)
        agents.append(start(words, tmp_path / str(number), **environment))
    told = said(*agents, seconds=200)
    assert [agent.returncode for agent in agents] == [0, 0], told
    assert told[0][0].count("run directory: ") == 1 and told[1][0] == ""
    assert "images to train on" in told[0][1] and "images to train on" not in told[1][1]
    run = RunDirectory(tmp_path / "run")
    assert [record["step"] for record in run.metrics() if "loss" in record] == [1, 2, 3, 4]
    assert load(run.last_checkpoint)["step"] == 4 and load_backbone(run.path).num_features == 64
    assert [list((tmp_path / str(number)).iterdir()) for number in (0, 1)] == [[], []]


SRUN = """#!/bin/bash
# Starts TASKS tasks with the variables that srun gives them.
[[ $1 == --kill-on-bad-exit=1 ]] && shift
export SLURM_STEP_ID=0 SLURM_NTASKS=$TASKS SLURM_NTASKS_PER_NODE=$TASKS SLURM_NNODES=1 SLURM_NODEID=0
for ((task = 0; task < TASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    tasks+=($!)
done
echo "${tasks[@]}" > tasks
status=0
for task in "${tasks[@]}"; do wait "$task" || status=$?; done
exit $status
"""


class Slurm:
    """A batch job of the documented script: `srun`, `scontrol` and `byol` on the PATH."""

    def __init__(self, folder: Path, photographs: Path) -> None:
        self.folder = folder
        self.run = RunDirectory(folder / "run")
        self.script = shrunk(block("#!/bin/bash"), "100000st", self.run.path, photographs)
        scontrol = f'#!/bin/sh\necho "$*" >> {folder}/asked\n'
        commands = {
            "srun": SRUN,
            "scontrol": scontrol,
            "byol": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m byol "$@"\n',
        }
        for name, text in commands.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.job = self._job_with_a_free_port()

    def start(self, tasks: int) -> Program:
        (self.folder / "tasks").unlink(missing_ok=True)
        variables = {"SLURM_JOB_ID": str(self.job), "SLURM_JOB_NAME": "byol", "SLURM_NODELIST": "127.0.0.1"}
        # A batch script is a first task by its variables.
        variables |= {
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "SLURM_NTASKS": str(tasks),
            "TASKS": str(tasks),
        }
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        return start(["bash", "-c", self.script], self.folder, **variables, PATH=path)

    def signal_after(self, step: int, number: signal.Signals, process: Program) -> str:
        """Send a signal to every task once a step is logged; return what the job wrote."""
        wait_for(lambda: any(record["step"] > step for record in self.run.metrics()), process)
        for task in (self.folder / "tasks").read_text().split():
            os.kill(int(task), number)
        return said(process, seconds=100)[0][1]

    def asked(self) -> list[str]:
        """Return what `scontrol` was asked for."""
        return (self.folder / "asked").read_text().splitlines()

    @staticmethod
    def _job_with_a_free_port() -> int:
        """Tasks meet at port 15000 + the last four digits of the job's number."""
        for job in range(os.getpid() % 5000, 10000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", 15000 + job)):
                    return 70000 + job
        raise AssertionError("no free port")


def test_batch_script_starts_requeues_and_resumes(photographs: Path, tmp_path: Path) -> None:
    slurm = Slurm(tmp_path, photographs)
    process = slurm.start(tasks=2)
    errors = slurm.signal_after(2, signal.SIGUSR1, process)
    assert process.returncode == 138, errors
    assert f"stopped by SIGUSR1; SLURM will start job {slurm.job} again" in errors
    assert errors.count("images to train on") == 1 and "Traceback" not in errors
    assert slurm.asked() == [f"requeue {slurm.job}"]
    step = load(slurm.run.last_checkpoint)["step"]
    assert step >= 3
    # Again, with one task. SIGTERM: someone cancelled the job.
    process = slurm.start(tasks=1)
    errors = slurm.signal_after(step, signal.SIGTERM, process)
    assert process.returncode == 143, errors
    assert f"stopped by SIGTERM; continue: byol pretrain --resume {slurm.run.path}" in errors
    assert slurm.asked() == [f"requeue {slurm.job}"]
    later = load(slurm.run.last_checkpoint)["step"]
    assert later > step
    assert [record["step"] for record in slurm.run.metrics()] == list(range(1, later + 1))
