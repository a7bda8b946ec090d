"""Commands as jobs of Slurm: on a real cluster where the marker asks for it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from slurm_cluster import run, wait_until

from experiments.launchers import Command, slurm
from experiments.launchers.slurm import Slurm
from experiments.sweep.launch import COMMAND_LINE
from shufflenet_jax.errors import InputError

SAVES = """
import os, signal, sys, time

def save(*_):
    print('saved', flush=True)
    sys.exit(75)

signal.signal(signal.SIGTERM, save)
print('begun', flush=True)
"""
"""A command that behaves as a cell does; what follows is its work."""

ONCE = f"{SAVES}if 'SLURM_RESTART_COUNT' not in os.environ: time.sleep(300)\nprint('done')"
"""Ends at once when it runs the second time."""


def command(tmp_path, code, name="x", **environment):
    return Command(name, (sys.executable, "-c", code), environment, tmp_path / f"{name}.log")


# Without a cluster


def test_without_sbatch_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no sbatch on the PATH: .*slurm-client"):
        Slurm()


def test_without_submitit_the_error_says_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'shufflenet-jax\[slurm\]'"):
        Slurm()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"minutes": 4}, "slurm.minutes must be at least 5, not 4"),
        ({"gpus": -1}, "slurm.gpus must be at least 0, not -1"),
        ({"cpus": 0}, "slurm.cpus must be at least 1, not 0"),
        ({"memory_gb": -2.0}, "slurm.memory_gb must be at least 0, not -2"),
        ({"memory_gb": float("nan")}, "slurm.memory_gb must be at least 0, not nan"),
        ({"memory_gb": float("inf")}, "slurm.memory_gb must be at least 0, not inf"),
        ({"gpus": float("nan")}, "slurm.gpus must be at least 0, not nan"),
        ({"cpus": float("inf")}, "slurm.cpus must be at least 1, not inf"),
        ({"nodes": 2, "tasks": 3}, "3 slurm.tasks do not divide among 2 nodes"),
    ],
)
def test_what_makes_no_sense_is_refused(values, said):
    with pytest.raises(InputError, match=f"^{said}$"):
        Slurm(**values)


@pytest.mark.parametrize("mode", [0o750, 0o703])
def test_a_folder_for_pickles_that_others_can_enter_is_refused(tmp_path, mode):
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(mode)
    with pytest.raises(InputError, match="own must be yours alone: chmod 700"):
        slurm._private(tmp_path / "own")
    assert slurm._private(tmp_path / "new" / "own").stat().st_mode & 0o777 == 0o700


def start_task(tmp_path, code, rank=0):
    """Starts what a job runs, as a job starts it, without Slurm."""
    task = (
        "import sys, pathlib\n"
        "from experiments.launchers import Command, slurm_task\n"
        "assert 'jax' not in sys.modules  # it takes seconds, and memory\n"
        "directory, code = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "run = Command('x', (sys.executable, '-c', code), {}, directory / 'x.log')\n"
        "slurm_task.run(run, directory / 'x.status')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", task, str(tmp_path), code],
        env=os.environ | {"SLURM_PROCID": str(rank), "SLURM_JOB_ID": "1", "PATH": str(tmp_path)},
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("code", "status", "exit_status"),
    [
        ("print('hello')", "0", 0),
        ("raise SystemExit(3)", "3", 3),
        ("import os; os.kill(os.getpid(), 9)", "-9", 137),
    ],
)
def test_a_job_ends_as_its_command_does(tmp_path, code, status, exit_status):
    (tmp_path / "x.log").write_text("before\n")
    assert start_task(tmp_path, code).wait() == exit_status
    assert (tmp_path / "x.status").read_text() == status
    hello = "hello\n" if status == "0" else ""
    assert (tmp_path / "x.log").read_text() == f"before\n{hello}"


def test_processes_but_the_first_say_nothing(tmp_path):
    assert start_task(tmp_path, "raise SystemExit(3)", rank=1).wait() == 0
    assert not (tmp_path / "x.status").exists()


def test_a_job_needs_nothing_of_this_package_to_load_what_it_runs(tmp_path, elsewhere):
    import cloudpickle

    run = Command("x", (sys.executable, "-c", "print('hello')"), {}, tmp_path / "x.log")
    with slurm._by_value():
        pickled = cloudpickle.dumps((slurm.slurm_task.run, run, tmp_path / "x.status"))
    load = "import pickle, sys; task, *given = pickle.load(sys.stdin.buffer); task(*given)"
    own = {"SLURM_PROCID": "0", "SLURM_JOB_ID": "1", "PYTHONPATH": str(elsewhere)}
    job = subprocess.run(
        [sys.executable, "-c", load], input=pickled, env=os.environ | own, check=False
    )
    assert job.returncode == 0
    assert (tmp_path / "x.status").read_text() == "0"
    assert (tmp_path / "x.log").read_text() == "hello\n"


def test_who_has_no_home_is_told_what_to_set(tmp_path, monkeypatch, homeless):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with pytest.raises(InputError, match="no home directory: set XDG_STATE_HOME"):
        slurm._user_state()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert slurm._user_state() == tmp_path


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/own .*Not a directory.*set XDG_STATE_HOME"):
        slurm._private(tmp_path / "file" / "own")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_command_is_asked_to_save(tmp_path, number):
    (tmp_path / "x.status").write_text("75")
    task = start_task(tmp_path, f"{SAVES}time.sleep(60)")
    log = tmp_path / "x.log"
    wait_until(lambda: log.exists() and "begun" in log.read_text())
    assert not (tmp_path / "x.status").exists()  # that of an earlier time
    os.killpg(task.pid, number)  # as Slurm does
    assert task.wait() == 75
    assert (tmp_path / "x.status").read_text() == "75"
    assert log.read_text() == "begun\nsaved\n"


# On a cluster


@pytest.fixture
def cluster(slurm_cluster):
    yield slurm_cluster
    slurm_cluster.clear()
    shutil.rmtree(slurm_cluster.directory / "home", ignore_errors=True)


def folders(cluster):
    """Those in which submitit keeps its pickles."""
    return sorted((cluster.directory / "home/shufflenet_jax/slurm/tests").iterdir())


def wait(jobs, seconds=120):
    """Exit statuses, when all have ended."""
    wait_until(lambda: all(job.poll() is not None for job in jobs), seconds)
    return [job.poll() for job in jobs]


def last(cluster):
    """The number of the job, or array, that was submitted last."""
    return str(max(int(number.partition("_")[0]) for number in cluster.states()))


def has_begun(job_log, times=1):
    return job_log.exists() and job_log.read_text().count("begun") >= times


@pytest.mark.slurm
def test_commands_are_one_array_and_their_ends_are_told(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWN", "outside")
    prints = "import os; print(os.environ['KNOWN'], os.environ['NEW'], os.environ['SLURM_JOB_ID'])"
    codes = [prints, "raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)", prints]
    commands = [
        command(tmp_path, code, str(number), KNOWN="inside", NEW="new")
        for number, code in enumerate(codes)
    ]
    (tmp_path / "0.log").write_text("before\n")
    before = set(cluster.states())
    engine = Slurm()
    jobs = engine.submit(commands)
    added = set(cluster.states()) - before
    assert len({number.partition("_")[0] for number in added}) == 1
    assert len(added) == 4
    assert wait(jobs) == [0, 1, -9, 0]
    # Slurm says the same.
    said = [cluster.states()[f"{last(cluster)}_{number}"] for number in range(4)]
    assert said == ["COMPLETED", "FAILED", "FAILED", "COMPLETED"]
    assert (tmp_path / "0.log").read_text().startswith("before\noutside new ")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.log" for n in range(4)]
    (folder,) = folders(cluster)
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert list(folder.glob("*.pkl"))
    engine.close()
    assert folders(cluster) == []


@pytest.mark.slurm
def test_jobs_find_this_code_wherever_they_are_submitted(cluster, tmp_path, elsewhere, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    engine = Slurm()
    argv = (*COMMAND_LINE, "list", "--json")
    assert wait(engine.submit([Command("x", argv, {}, tmp_path / "x.log")])) == [0]
    assert '"name": "table1"' in (tmp_path / "x.log").read_text()
    engine.close()


@pytest.mark.slurm
def test_jobs_get_what_was_configured(cluster, tmp_path):
    engine = Slurm(partition="urgent", minutes=7, gpus=2, cpus=3, memory_gb=2.5, requeue=False)
    code = "import os; print(*(os.environ[f'SLURM_{each}'] for each in "
    code += "('CPUS_PER_TASK', 'STEP_NUM_TASKS', 'GPUS_ON_NODE')))"
    (job,) = engine.submit([command(tmp_path, code)])
    shown = run("scontrol", "show", "job", last(cluster))
    wanted = ("Partition=urgent", "TimeLimit=00:07:00", "MinMemoryNode=2.50G", "Requeue=0")
    for each in wanted:
        assert each in shown
    assert wait([job]) == [0]
    assert (tmp_path / "x.log").read_text() == "3 1 2\n"
    engine.close()


@pytest.mark.slurm
def test_what_the_cluster_cannot_give_is_refused(cluster, tmp_path):
    engine = Slurm(memory_gb=1e6)
    with pytest.raises(InputError, match=r"Slurm refuses the jobs: .*Memory specification"):
        engine.submit([command(tmp_path, "")])
    engine.close()
    assert folders(cluster) == []


@pytest.mark.slurm
def test_a_requeued_job_has_not_ended(cluster, tmp_path):
    engine = Slurm()
    (job,) = engine.submit([command(tmp_path, ONCE)])
    number = last(cluster)
    wait_until(lambda: has_begun(tmp_path / "x.log"))
    run("scontrol", "requeue", number)
    seen = set()

    def is_done():
        seen.add((job.poll(), cluster.states()[number]))
        return job.poll() is not None

    wait_until(is_done, 120)
    assert job.poll() == 0
    assert {state for exit_status, state in seen if exit_status is None} >= {"PENDING"}
    assert (tmp_path / "x.log").read_text() == "begun\nsaved\nbegun\ndone\n"
    engine.close()


@pytest.mark.slurm
def test_a_preempted_job_runs_again(cluster, tmp_path):
    (job,) = (engine := Slurm(cpus=16)).submit([command(tmp_path, ONCE)])
    wait_until(lambda: has_begun(tmp_path / "x.log"))
    (urgent,) = (other := Slurm(cpus=16, partition="urgent")).submit(
        [command(tmp_path, "print('urgent')", "urgent")]
    )
    assert wait([urgent]) == [0]
    assert job.poll() is None
    assert wait([job]) == [0]
    assert (tmp_path / "x.log").read_text() == "begun\nsaved\nbegun\ndone\n"
    engine.close()
    other.close()


@pytest.mark.slurm
@pytest.mark.parametrize("requeue", [True, False])
def test_a_job_whose_time_is_up_saves(cluster, tmp_path, requeue):
    engine = Slurm(minutes=5, requeue=requeue)
    (job,) = engine.submit([command(tmp_path, ONCE)])
    number = last(cluster)
    wait_until(lambda: has_begun(tmp_path / "x.log"))
    run("scontrol", "update", f"job={number}", "TimeLimit=2")  # so, 90 s before, in 30 s at most
    assert wait([job], 180) == [0 if requeue else 75]
    again = "begun\ndone\n" if requeue else ""
    assert (tmp_path / "x.log").read_text() == f"begun\nsaved\n{again}"
    engine.close()


@pytest.mark.slurm
def test_one_that_is_cancelled_stops_no_other(cluster, tmp_path):
    code = f"{SAVES}while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.1)"
    engine = Slurm()
    jobs = engine.submit([command(tmp_path, code, str(number)) for number in range(20)])
    wait_until(lambda: all(has_begun(tmp_path / f"{number}.log") for number in range(16)), 60)
    array = last(cluster)
    run("scancel", f"{array}_3")
    run("scancel", f"{array}_18")
    assert wait([jobs[3], jobs[18]]) == [-15, -15]
    assert (tmp_path / "3.log").read_text() == "begun\nsaved\n"
    others = [job for number, job in enumerate(jobs) if number not in (3, 18)]
    assert {job.poll() for job in others} == {None}
    (tmp_path / "go").touch()
    assert wait(others) == [0] * 18
    engine.close()


@pytest.mark.slurm
def test_jobs_are_stopped_and_killed(cluster, tmp_path):
    code = f"{SAVES}while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.1)"
    engine = Slurm()
    jobs = engine.submit([command(tmp_path, code, str(number)) for number in range(20)])
    wait_until(lambda: all(has_begun(tmp_path / f"{number}.log") for number in range(16)), 60)
    for stopped in (2, 5, 17):
        jobs[stopped].stop()
    for killed in (7, 18):
        jobs[killed].kill()
    asked = [jobs[each] for each in (2, 5, 17, 7, 18)]
    assert wait(asked) == [75, 75, -15, -15, -15]
    assert not (tmp_path / "17.log").exists()
    others = [job for job in jobs if job not in asked]
    assert {job.poll() for job in others} == {None}
    (tmp_path / "go").touch()
    assert wait(others) == [0] * 15
    engine.close()


@pytest.mark.slurm
def test_more_commands_than_an_array_may_have(cluster, tmp_path):
    run("scontrol", "update", "partition=main", "State=DOWN")  # nothing starts
    try:
        engine = Slurm()
        before = set(cluster.states())
        jobs = engine.submit([command(tmp_path, "", str(number)) for number in range(1200)])
        added = set(cluster.states()) - before
        assert len(jobs) == len(added) == 1200
        arrays = [int(number.partition("_")[0]) for number in added]
        assert sorted(map(arrays.count, set(arrays))) == [199, 1001]
        assert {job.poll() for job in jobs} == {None}
        for job in jobs:
            job.stop()
        assert set(wait(jobs)) == {-15}
        engine.close()
    finally:
        run("scontrol", "update", "partition=main", "State=UP")
    assert folders(cluster) == []


@pytest.mark.slurm
@pytest.mark.parametrize("requeue", [True, False])
def test_a_node_is_lost(cluster, tmp_path, requeue):
    engine = Slurm(requeue=requeue)
    (job,) = engine.submit([command(tmp_path, ONCE)])
    wait_until(lambda: has_begun(tmp_path / "x.log"))
    cluster.lose_node()
    assert wait([job]) == [0 if requeue else -9]
    log = (tmp_path / "x.log").read_text()
    if requeue:
        assert log == "begun\nbegun\ndone\n"
    else:
        assert log.startswith("begun\nSlurm job ")
        assert "ended as NODE_FAIL" in log
    engine.close()


@pytest.mark.slurm
def test_a_command_that_cannot_start_is_explained(cluster, tmp_path):
    engine = Slurm()
    log = tmp_path / "x.log"
    (job,) = engine.submit([Command("x", ("/nowhere/python",), {}, log)])
    assert wait([job]) == [-9]
    assert "ended as FAILED, without an exit status" in log.read_text()
    assert "FileNotFoundError" in log.read_text()
    engine.close()


@pytest.mark.slurm
def test_jobs_outlive_a_controller_that_is_away(cluster, tmp_path):
    engine = Slurm()
    sleeping, lasting = engine.submit(
        [command(tmp_path, f"{SAVES}time.sleep({seconds})", str(seconds)) for seconds in (5, 300)]
    )
    wait_until(lambda: has_begun(tmp_path / "5.log") and has_begun(tmp_path / "300.log"))
    late = []
    with cluster.controller_away():
        assert (sleeping.poll(), lasting.poll()) == (None, None)
        lasting.stop()
        assert lasting.poll() is None
        submission = threading.Thread(
            target=lambda: late.extend(engine.submit([command(tmp_path, "", "late")]))
        )
        submission.start()
        submission.join(12)  # Slurm itself tries for 9 seconds
        assert submission.is_alive()
    submission.join(60)
    assert wait([sleeping, lasting, *late]) == [0, 75, 0]
    engine.close()


@pytest.mark.slurm
def test_jobs_that_could_not_be_stopped_are_named(cluster, tmp_path):
    engine = Slurm()
    (job,) = engine.submit([command(tmp_path, "import time; time.sleep(300)")])
    number = last(cluster)
    with cluster.controller_away():
        job.kill()
        with pytest.raises(InputError, match=f"jobs may go on: scancel {number}$"):
            engine.close()
        with pytest.raises(InputError, match="Slurm does not answer"):
            Slurm()


@pytest.mark.slurm
def test_processes_of_one_run_form_a_cluster(cluster, tmp_path):
    code = """
import os, sys, jax
jax.distributed.initialize()
print(jax.process_index(), 'of', jax.process_count(), flush=True)
sys.exit(int(os.environ['SLURM_PROCID']) * 3)
"""
    engine = Slurm(tasks=2)
    both, alone = engine.submit(
        [
            command(tmp_path, code, "both"),
            command(tmp_path, "import os; os._exit(4 - int(os.environ['SLURM_PROCID']))", "alone"),
        ]
    )
    assert wait([both, alone]) == [0, 4]  # as the first process ended
    lines = (tmp_path / "both.log").read_text().splitlines()
    assert {"0 of 2", "1 of 2"} <= set(lines)
    engine.close()


@pytest.mark.slurm
def test_what_a_killed_launcher_left_is_removed(cluster, tmp_path):
    ended, waiting = Slurm(), Slurm()
    assert wait(ended.submit([command(tmp_path, "")])) == [0]
    (old,) = folders(cluster)
    (job,) = waiting.submit([command(tmp_path, f"{SAVES}time.sleep(300)")])
    (used,) = set(folders(cluster)) - {old}
    fresh = Slurm()
    assert wait(fresh.submit([command(tmp_path, "")])) == [0]
    assert {old, used} < set(folders(cluster))  # yesterday's may still be looked at
    long_ago = time.time() - 2 * 24 * 3600
    for folder in (old, used):
        os.utime(folder, (long_ago, long_ago))
    fresh.close()
    assert wait(fresh.submit([command(tmp_path, "")])) == [0]
    assert used in folders(cluster)
    assert old not in folders(cluster)
    job.kill()
    assert wait([job]) == [-15]
    waiting.close()
    fresh.close()
    assert folders(cluster) == []
