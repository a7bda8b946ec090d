"""The Ray engine, on real clusters of this machine: what comes back, and what is lost with what."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.launchers import Command, ray
from experiments.launchers.ray import Ray
from experiments.sweep.launch import COMMAND_LINE
from shufflenet_jax.errors import InputError

PATIENCE_SECONDS = 120

CORES = len(os.sched_getaffinity(0))

PRELUDE = """
import os, pathlib, signal, sys, time
from experiments.launchers.parent import end_with_parent

def ask(*_):
    print("saved")
    sys.exit(75)

signal.signal(signal.SIGTERM, ask)
end_with_parent()
"""

WAITS = """
here = pathlib.Path(sys.argv[1])
here.with_suffix(".tmp").write_text(f"{os.getpid()} {os.getppid()}")
here.with_suffix(".tmp").rename(here.with_suffix(".started"))
while not here.with_name("go").exists():
    time.sleep(0.05)
"""
"""A command that says that it has started, and ends when it may."""


def command(directory, code, name="cell", **environment):
    argv = (sys.executable, "-c", PRELUDE + code, str(directory / name))
    return Command(name, argv, environment, directory / f"{name}.log")


def until(reached):
    """Waits until a function returns something other than None or False, and returns it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        value = reached()
        if value is not None and value is not False:
            return value
        time.sleep(0.05)
    raise TimeoutError


def statuses(jobs):
    return [until(job.poll) for job in jobs]


def started(directory, name="cell"):
    """Numbers of the process of a command that waits, and of the worker that started it."""
    path = directory / f"{name}.started"
    until(path.exists)
    return tuple(map(int, path.read_text().split()))


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid):
    """Numbers and command lines of the processes that a process has started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if parent(path.name) == pid:
                found[int(path.name)] = (path / "cmdline").read_bytes().decode()
    return found


def is_gone(pid):
    """Whether a process has ended; whether its parent knows does not matter."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def log(directory, name="cell"):
    return (directory / f"{name}.log").read_text()


def driver(engine):
    """Number of the process that is connected to Ray."""
    return engine._drivers[-1]._process.pid


@contextlib.contextmanager
def engine(*arguments, **options):
    made = Ray(*arguments, **options)
    with contextlib.closing(made):
        yield made


# Without Ray


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "ray.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[1]}")
    with engine() as made, pytest.raises(InputError, match=r"^Ray is not installed: .*\[ray\]'$"):
        made.submit([command(tmp_path, "")])


@pytest.mark.parametrize(("cpus", "gpus"), [(0, 0), (-1, 0), (1, -1)])
def test_what_a_run_takes_must_be_possible(cpus, gpus):
    with pytest.raises(InputError, match=f"not {min(cpus, gpus)}$"):
        Ray("", cpus, gpus)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["cpus", "gpus"])
def test_what_a_run_takes_must_be_finite(name, number):
    with pytest.raises(InputError, match=f"^ray.{name} must be .*not {number}$"):
        Ray(**{name: number})


# With it


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Ray keeps a token in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def local(home):
    """A cluster that the engine starts."""
    with engine() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(home):
    """A cluster that is there already: one node with 2 CPUs and 2 GPUs, as far as Ray knows."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2})
    yield started
    started.shutdown()


@pytest.mark.ray
def test_exit_statuses_come_back(local, tmp_path):
    endings = {
        "": 0,
        "sys.exit(1)": 1,
        "sys.exit(75)": 75,
        "os.kill(os.getpid(), signal.SIGKILL)": -9,
        "os.abort()": -6,
    }
    jobs = local.submit([command(tmp_path, code) for code in endings])
    assert statuses(jobs) == list(endings.values())
    assert [job.poll() for job in jobs] == list(endings.values())


@pytest.mark.ray
def test_the_cluster_finds_this_code_wherever_it_is_started(home, tmp_path, elsewhere, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    argv = (*COMMAND_LINE, "list", "--json")
    with engine() as made:
        assert statuses(made.submit([Command("cell", argv, {}, tmp_path / "cell.log")])) == [0]
    assert '"name": "table1"' in log(tmp_path)


@pytest.mark.ray
def test_a_command_that_cannot_be_started_says_why(local, tmp_path):
    nothing = Command("cell", ("/nowhere/python",), {}, tmp_path / "cell.log")
    assert statuses(local.submit([nothing])) == [127]
    assert "No such file or directory: '/nowhere/python'" in log(tmp_path)


@pytest.mark.ray
def test_log_and_environment_arrive(local, tmp_path):
    (tmp_path / "cell.log").write_text("before\n")
    code = """
print(os.environ["OWN"], os.environ["HOME"], os.getcwd(), flush=True)
print("and errors", file=sys.stderr)
"""
    assert statuses(local.submit([command(tmp_path, code, OWN="added", HOME="not taken")])) == [0]
    expected = f"added {os.environ['HOME']} {os.getcwd()}"
    assert log(tmp_path).splitlines() == ["before", expected, "and errors"]


@pytest.mark.ray
def test_no_more_run_at_a_time_than_the_cluster_has_cpus_for(cluster, tmp_path):
    code = """
room = pathlib.Path(sys.argv[1]).with_name("room")
room.mkdir()
time.sleep(0.3)
room.rmdir()
"""
    with engine(cluster.address, cpus=2) as made:
        jobs = made.submit([command(tmp_path, code, f"cell{i}") for i in range(5)])
        assert statuses(jobs) == [0] * 5


@pytest.mark.ray
def test_a_run_sees_the_gpus_that_it_takes(cluster, tmp_path):
    code = 'print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)' + WAITS
    with engine(cluster.address, cpus=0.5, gpus=1) as made:
        jobs = made.submit([command(tmp_path, code, name) for name in "ab"])
        until((tmp_path / "a.started").exists)
        until((tmp_path / "b.started").exists)
        (tmp_path / "go").touch()
        assert statuses(jobs) == [0, 0]
    assert sorted(log(tmp_path, "a") + log(tmp_path, "b")) == ["\n", "\n", "0", "1"]
    with engine(cluster.address) as made:
        assert statuses(made.submit([command(tmp_path, code, "none")])) == [0]
    assert log(tmp_path, "none") == "\n"


@pytest.mark.ray
def test_jax_keeps_to_what_a_run_takes(cluster, tmp_path):
    code = """
print(os.environ["PJRT_NPROC"], os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION"))
"""
    with engine(cluster.address, cpus=2, gpus=0.5) as made:
        assert statuses(made.submit([command(tmp_path, code)])) == [0]
    with engine(cluster.address, cpus=0.5, gpus=1) as made:
        assert statuses(made.submit([command(tmp_path, code)])) == [0]
    assert log(tmp_path) == "2 0.450\n1 None\n"


# Ends that were asked for


@pytest.mark.ray
def test_stop_asks_a_command_to_end_and_takes_others_out_of_the_queue(cluster, tmp_path):
    with engine(cluster.address, cpus=2) as made:
        running, waiting = made.submit([command(tmp_path, WAITS, name) for name in "ab"])
        started(tmp_path, "a")
        waiting.stop()
        assert until(waiting.poll) == -signal.SIGTERM
        assert running.poll() is None
        running.stop()
        assert until(running.poll) == 75
        assert not (tmp_path / "b.started").exists()
        running.stop()  # has ended
        assert running.poll() == 75
    assert log(tmp_path, "a") == "saved\n"


@pytest.mark.ray
def test_kill_ends_a_command_that_does_not_listen(local, tmp_path):
    (job,) = local.submit([command(tmp_path, "signal.signal(signal.SIGTERM, print)" + WAITS)])
    pid, _ = started(tmp_path)
    job.kill()
    assert until(job.poll) == -signal.SIGKILL
    until(lambda: is_gone(pid))


@pytest.mark.ray
def test_a_worker_passes_sigterm_on(local, tmp_path):
    (job,) = local.submit([command(tmp_path, WAITS)])
    os.kill(started(tmp_path)[1], signal.SIGTERM)
    assert until(job.poll) == 75
    assert log(tmp_path) == "saved\n"


@pytest.mark.ray
def test_close_has_what_runs_save_and_ends_its_own_cluster_only(cluster, tmp_path):
    with engine(cluster.address, cpus=2) as made:
        made.submit([command(tmp_path, WAITS, name) for name in "ab"])
        pid, worker = started(tmp_path, "a")
        raylet = parent(worker)
    assert is_gone(pid)
    assert log(tmp_path, "a") == "saved\n"
    assert not (tmp_path / "b.log").exists()
    assert not is_gone(raylet)
    with engine() as made:
        made.submit([command(tmp_path, WAITS)])
        raylet = parent(started(tmp_path)[1])
    assert is_gone(raylet)


# Ends that were not


@pytest.mark.ray
def test_a_killed_worker_takes_only_its_command_with_it(cluster, tmp_path):
    with engine(cluster.address) as made:
        lost, other = made.submit([command(tmp_path, WAITS, name) for name in "ab"])
        (pid, worker), _ = started(tmp_path, "a"), started(tmp_path, "b")
        os.kill(worker, signal.SIGKILL)
        assert until(lost.poll) == -signal.SIGKILL
        until(lambda: is_gone(pid))
        (tmp_path / "go").touch()
        assert until(other.poll) == 0
    first, second = sorted(log(tmp_path, "a").splitlines())
    assert first.startswith("Ray: WorkerCrashedError: ")
    assert second == "saved"


@contextlib.contextmanager
def on_two_nodes(cluster, directory):
    """A command on the node of a cluster, and one on a second that joins it while that runs.

    The value is the job of the first, the job of the second, and the numbers of the second's
    process, worker and raylet.
    """
    with engine(cluster.address, cpus=2) as made:
        (first,) = made.submit([command(directory, WAITS, "first")])
        started(directory, "first")
        node = cluster.add_node(num_cpus=2)
        try:
            (second,) = made.submit([command(directory, WAITS, "second")])
            pid, worker = started(directory, "second")
            raylet = node.all_processes["raylet"][0].process.pid
            assert parent(worker) == raylet
            yield first, second, (pid, worker, raylet)
        finally:
            cluster.remove_node(node)
            cluster.wait_for_nodes()  # until the others know, too


@pytest.mark.ray
def test_a_lost_node_takes_only_its_commands_with_it(cluster, tmp_path):
    with on_two_nodes(cluster, tmp_path) as (other, lost, processes):
        for each in reversed(processes):  # so that nobody is left to tell
            os.kill(each, signal.SIGKILL)
        assert until(lost.poll) == -signal.SIGKILL
        assert other.poll() is None
        (tmp_path / "go").touch()
        assert until(other.poll) == 0


@pytest.mark.ray
def test_commands_of_a_node_that_left_its_cluster_save_and_end(cluster, tmp_path):
    with on_two_nodes(cluster, tmp_path) as (other, left, (pid, _, raylet)):
        os.kill(raylet, signal.SIGKILL)
        assert until(left.poll) == 75
        assert is_gone(pid)
        assert other.poll() is None
        (tmp_path / "go").touch()
        assert until(other.poll) == 0


@pytest.mark.ray
def test_a_cluster_of_its_own_that_lost_its_raylet_is_started_again(home, tmp_path):
    with engine(cpus=CORES) as made:
        running, waiting = made.submit([command(tmp_path, WAITS, name) for name in "ab"])
        _, worker = started(tmp_path, "a")
        os.kill(parent(worker), signal.SIGKILL)
        assert until(running.poll) == 75
        assert until(waiting.poll) == -signal.SIGKILL
        (tmp_path / "go").touch()
        again = [statuses(made.submit([command(tmp_path, WAITS, "c")])) for _ in range(2)]
        assert again in ([[0], [0]], [[-signal.SIGKILL], [0]])


@pytest.mark.ray
@pytest.mark.parametrize("victim", ["driver", "gcs_server"])
def test_a_lost_connection_ends_all_and_the_next_command_connects_again(
    victim, home, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    with engine() as made:
        (job,) = made.submit([command(tmp_path, WAITS)])
        pid, _ = started(tmp_path)
        victims = [each for each, line in children(driver(made)).items() if victim in line]
        os.kill(*(victims or [driver(made)]), signal.SIGKILL)
        assert until(job.poll) == -signal.SIGKILL
        until(lambda: is_gone(pid))
        job.stop()
        job.kill()
        (tmp_path / "go").touch()
        assert statuses(made.submit([command(tmp_path, WAITS, "again")])) == [0]
    assert "Ray: " in log(tmp_path)


DIES = """
import sys, time
from pathlib import Path
from experiments.launchers import Command
from experiments.launchers.ray import Ray

argv = sys.argv[2:]
engine = Ray(sys.argv[1])
engine.submit([Command("cell", (sys.executable, "-c", *argv[1:]), {}, Path(argv[0]))])
time.sleep(600)
"""


@pytest.mark.ray
@pytest.mark.parametrize("own", [True, False])
def test_a_sweep_that_is_killed_leaves_no_command_behind(own, cluster, tmp_path):
    address = "" if own else cluster.address
    given = command(tmp_path, WAITS)
    arguments = [address, given.log, *given.argv[2:]]
    with subprocess.Popen([sys.executable, "-c", DIES, *map(str, arguments)]) as sweep:
        pid, worker = started(tmp_path)
        raylet = parent(worker)
        sweep.kill()
    until(lambda: is_gone(pid))
    assert log(tmp_path) == "saved\n"
    if own:
        until(lambda: is_gone(raylet))
    else:
        assert not is_gone(raylet)


# Clusters that cannot be used


@pytest.mark.ray
@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:1", "127.0.0.1:{port}"])
def test_an_address_without_a_cluster_is_refused(address, home, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "CONNECT_SECONDS", 5.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = address.format(port=closed.getsockname()[1])
        with engine(address) as made, pytest.raises(InputError) as refused:
            made.submit([command(tmp_path, "")])
    assert address in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.ray
@pytest.mark.parametrize(("cpus", "gpus"), [(64, 0), (1, 3)])
def test_what_no_node_has_is_refused_unless_the_cluster_can_grow(cpus, gpus, cluster, tmp_path):
    import ray
    from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

    told = rf"takes {cpus} CPUs and {gpus} GPUs .* have 2 CPUs and 2 GPUs$"
    with engine(cluster.address, cpus, gpus) as made, pytest.raises(InputError, match=told):
        made.submit([command(tmp_path, WAITS)])
    group = NodeGroupConfig(resources={"CPU": 64, "GPU": 4}, max_count=1)
    client = ray._raylet.GcsClient(address=cluster.address)  # as an autoscaler says what it can add
    client.report_cluster_config(ClusterConfig(node_group_configs=[group]).SerializeToString())
    with engine(cluster.address, cpus, gpus) as made:
        (job,) = made.submit([command(tmp_path, WAITS)])
        assert job.poll() is None
    client.report_cluster_config(ClusterConfig().SerializeToString())
