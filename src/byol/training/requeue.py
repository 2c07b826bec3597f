"""SLURM's requeue: a batch job that runs out of time asks to be started again."""

import os
import subprocess

_SECONDS = 60
_INTERACTIVE = ("bash", "interactive")
"""Names that SLURM gives jobs in which a person types; they cannot be requeued."""


def requeue() -> str | None:
    """Ask SLURM to start this batch job again.

    Returns:
        What came of it, in words; None outside a batch job, where nothing is asked.
    """
    job = _job()
    if job is None or os.environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    command = ["scontrol", "requeue", job]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split()) or f"status {error.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    else:
        return f"SLURM will start job {job} again"
    return f"'{' '.join(command)}' failed ({reason})"


def _job() -> str | None:
    """Return the job's number; that of the first task of an array would stand for the whole array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")
