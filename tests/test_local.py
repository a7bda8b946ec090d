"""Commands on this machine: bounded, each on its share of it."""

import signal
import sys
import time

import pytest

from experiments.launchers import PREEMPTED, Command
from experiments.launchers.local import Local, deal


@pytest.mark.parametrize("slots", range(1, 9))
@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_cores_are_dealt_out(slots, cores):
    dealt = [slot.cores for slot in deal(range(cores), [], slots)]
    assert len(dealt) == slots
    every = [core for each in dealt for core in each]
    assert set(every) == set(range(cores))
    if slots <= cores:
        assert len(every) == cores
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    else:
        assert set(map(len, dealt)) == {1}


def test_gpus_are_dealt_out():
    dealt = deal(range(8), ["4", "7"], 4)
    assert [slot.gpu for slot in dealt] == ["4", "7", "4", "7"]
    assert dealt[0].environment() == {
        "CUDA_VISIBLE_DEVICES": "4",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450",
    }
    (alone,) = deal(range(8), ["GPU-8a"], 1)
    assert alone.environment() == {"CUDA_VISIBLE_DEVICES": "GPU-8a"}
    assert deal(range(2), [], 1)[0].environment() == {}


def command(tmp_path, code, name="x", **environment):
    return Command(name, (sys.executable, "-c", code), environment, tmp_path / f"{name}.log")


def ended(job):
    while (exit_status := job.poll()) is None:
        time.sleep(0.01)
    return exit_status


def test_a_command_gets_its_share_its_environment_and_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWN", "outside")
    engine = Local(2)
    code = "import os; print(len(os.sched_getaffinity(0)), os.environ['KNOWN'], os.environ['NEW'])"
    commands = [command(tmp_path, code, name, KNOWN="inside", NEW="new") for name in "ab"]
    (tmp_path / "a.log").write_text("before\n")
    assert [ended(job) for job in engine.submit(commands)] == [0, 0]
    cores = str(len(deal(range(2), [], 2)[0].cores))
    assert (tmp_path / "a.log").read_text() == f"before\n{cores} outside new\n"
    # Both slots were given back.
    assert [ended(job) for job in engine.submit(commands)] == [0, 0]


def test_how_it_ended_is_told(tmp_path):
    engine = Local(3)
    killed = "import os; os.kill(os.getpid(), 9)"
    codes = ["raise SystemExit(75)", killed, "import time; time.sleep(60)"]
    jobs = engine.submit(
        [command(tmp_path, code, str(number)) for number, code in enumerate(codes)]
    )
    assert jobs[2].poll() is None
    jobs[2].stop()
    assert [ended(job) for job in jobs] == [75, -signal.SIGKILL, PREEMPTED]


def test_nothing_that_it_started_outlives_it(tmp_path):
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
    )
    (job,) = Local(1).submit([command(tmp_path, code)])
    assert ended(job) == 0
    child = int((tmp_path / "x.log").read_text())
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
