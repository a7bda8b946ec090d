"""A process that stalls is ended, whatever it hangs in; one that gives signs of life is not."""

import subprocess
import sys

import pytest

from experiments.sweep.limits import Limits, stalled, watch
from shufflenet_jax import InputError

PROGRAM = """
import sys, time
from pathlib import Path
from experiments.sweep.limits import watch
with watch(Path(sys.argv[1]), minutes=2 / 60) as alive:
    for _ in range(int(sys.argv[2])):
        time.sleep(0.6)
        alive()
    {hang}
print("it went on")
"""


def run(path, hang, signs):
    command = [sys.executable, "-c", PROGRAM.format(hang=hang), str(path), str(signs)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(50)",
        # In C, and without ever giving the interpreter's lock back.
        "import ctypes; ctypes.PyDLL(None).sleep(50)",
    ],
)
def test_a_process_that_stalls_is_ended_and_says_where(hang, tmp_path):
    path = tmp_path / "stall.txt"
    ended = run(path, hang, signs=0)
    assert ended.returncode == 1
    assert "it went on" not in ended.stdout
    assert stalled(path)
    assert 'File "<string>", line' in path.read_text()


@pytest.mark.slow
def test_signs_of_life_keep_it_going(tmp_path):
    """For longer than it may stall."""
    path = tmp_path / "stall.txt"
    ended = run(path, "pass", signs=5)
    assert ended.stdout == "it went on\n"
    assert not stalled(path)
    assert not path.exists()


def test_what_an_earlier_process_left_counts_for_nothing(tmp_path):
    path = tmp_path / "stall.txt"
    path.write_text("Timeout!")
    assert stalled(path)
    with watch(path, minutes=1):
        assert not stalled(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("retries", value) for value in (-1, 1.5, "2", None, True)),
        *(("stall_minutes", value) for value in (0.0, -1.0, "30", None, True, float("nan"))),
        *(("stall_minutes", value) for value in (float("inf"), 1e9)),
    ],
)
def test_impossible_limits_are_refused(name, value):
    with pytest.raises(InputError, match=f"^limits.{name} must be .*, not {value!r}$"):
        Limits(**{name: value})


def test_the_longest_time_is_one_that_the_system_takes(tmp_path):
    longest = Limits(stall_minutes=525_600).stall_minutes
    with watch(tmp_path / "stall.txt", longest) as alive:
        alive()
