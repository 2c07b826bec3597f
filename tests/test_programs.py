"""Programs that hang tell the test where."""

import sys
from pathlib import Path

import pytest

from tests.programs import finished

STUCK = """
import subprocess, sys, time
def waits_for_ever():
    print("waiting", flush=True)
    time.sleep(1000)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, sys.argv[0], "other"], start_new_session=True)
else:
    waits_for_ever()
"""


def test_what_a_program_did() -> None:
    code = "import os, sys; print(os.environ['KEY']); sys.exit('no')"
    done = finished([sys.executable, "-c", code], KEY="value")
    assert (done.returncode, done.stdout, done.stderr) == (1, "value\n", "no\n")


def test_programs_that_do_not_end_say_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    with pytest.raises(AssertionError, match=r"(?s)timed out.*waiting.*in waits_for_ever"):
        finished([sys.executable, tmp_path / "stuck.py"], seconds=3)
