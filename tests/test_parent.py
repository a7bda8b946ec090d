"""A process ends with its parent, if it was told which that is."""

import os
import signal
import subprocess
import sys

import pytest

from experiments.launchers.parent import ENDS_WITH_PARENT

CHILD = """
import signal, sys, time
from experiments.launchers.parent import end_with_parent
signal.signal(signal.SIGTERM, lambda *_: sys.exit("SIGTERM"))
end_with_parent()
print("waits", file=sys.stderr, flush=True)
time.sleep(20)
sys.exit("outlived it")
"""

PARENT = f"""
import os, subprocess, sys, time
environment = os.environ | {{{ENDS_WITH_PARENT!r}: str(os.getpid())}}
subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=environment)
time.sleep(60)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process")


@linux
def test_a_process_is_asked_to_end_when_its_parent_is_killed():
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr.readline() == "waits\n"
        parent.kill()
        assert parent.stderr.read() == "SIGTERM\n"


def of_parent(parent):
    """What becomes of a process that takes `parent` for its parent."""
    environment = dict(os.environ)
    environment.pop(ENDS_WITH_PARENT, None)
    if parent is not None:
        environment[ENDS_WITH_PARENT] = str(parent)
    code = "from experiments.launchers.parent import end_with_parent; end_with_parent()"
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


@linux
def test_a_process_whose_parent_has_ended_before_ends_at_once():
    assert of_parent(parent=1) == -signal.SIGTERM


def test_a_process_with_a_live_parent_or_none_named_goes_on():
    assert of_parent(parent=os.getpid()) == 0
    assert of_parent(parent=None) == 0
