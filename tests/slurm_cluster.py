"""A Slurm cluster of this machine: the real daemons, one node, in a temporary directory.

It needs Debian's packages slurm-wlm and munge, and root. Nothing outside its directory is touched,
and its daemons end with the process that started them.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_DAEMONS = ("munged", "slurmctld", "slurmd")
_PATH = f"{os.environ['PATH']}:/usr/sbin"
_SECONDS = 30

REQUEUE_SECONDS = 5
"""How long a requeued job waits at least; Slurm's default is 120."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster, which `SLURM_CONF` of this process names.

    It has one node, of which Slurm believes that it has 16 cores and 4 GPUs, and two partitions:
    `main`, which is the default, and `urgent`, whose jobs preempt those of `main`.

    Attributes:
      directory: Has the configuration, what the daemons log, and, as `home`, the state directory
        (`XDG_STATE_HOME`) of whoever submits jobs.
      node: The name of its node.
    """

    directory: Path
    node: str = socket.gethostname().partition(".")[0]
    _daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self) -> None:
        """Starts the daemons, on a fresh cluster."""
        _configure(self.directory, self.node)
        self._start("munged", *_munged(self.directory))
        wait_until((self.directory / "munge.socket").exists)
        self._start("slurmctld", "-D", "-c")
        self._start("slurmd", "-D")
        wait_until(lambda: "idle" in run("sinfo", "--noheader", "--format=%T", check=False))

    def end(self) -> None:
        """Ends them."""
        for daemon in reversed(self._daemons.values()):
            _end(daemon)

    @contextlib.contextmanager
    def controller_away(self) -> Iterator[None]:
        """Ends the controller, and starts it again after the block; its jobs run on."""
        _end(self._daemons["slurmctld"])
        try:
            yield
        finally:
            self._start("slurmctld", "-D")
            wait_until(lambda: "UP" in run("scontrol", "ping", check=False))

    def lose_node(self) -> None:
        """Kills all that runs on the node, as if its power failed, and lets it come back."""
        self._daemons["slurmd"].kill()
        self._daemons["slurmd"].wait()
        for pid in _running(f"SLURM_CONF={self.directory}/slurm.conf"):
            os.kill(pid, signal.SIGKILL)
        run("scontrol", "update", f"node={self.node}", "State=DOWN", "Reason=lost")
        self._start("slurmd", "-D")

    def _start(self, program: str, *arguments: str) -> None:
        with (self.directory / f"{program}.out").open("a") as output:
            self._daemons[program] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", program, *arguments],
                env=os.environ | {"PATH": _PATH},
                stdout=output,
                stderr=output,
            )

    def states(self) -> dict[str, str]:
        """The state of each job, or element of an array, that the controller still knows."""
        listed = run("squeue", "--noheader", "--array", "--states=all", "--format=%i %T")
        return dict(line.split() for line in listed.splitlines())

    def clear(self) -> None:
        """Cancels all jobs, and waits until none is left."""
        run("scancel", "--user=root")
        wait_until(lambda: not run("squeue", "--noheader"), seconds=60)


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """A cluster that lives as long as the tests."""
    missing = [name for name in (*_DAEMONS, "sbatch") if shutil.which(name, path=_PATH) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("the daemons of Slurm run jobs of others: they need root")
    pytest.importorskip("submitit")
    # Not pytest's directory, whose name may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="slurm") as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", f"{path}/slurm.conf")
        patch.setenv("XDG_STATE_HOME", f"{path}/home")
        cluster = Cluster(Path(path))
        try:
            cluster.start()
            yield cluster
            cluster.clear()
        finally:
            cluster.end()


def run(*command: str, check: bool = True) -> str:
    """What a command of Slurm prints."""
    completed = subprocess.run(command, capture_output=True, text=True)
    assert not check or completed.returncode == 0, completed.stderr
    return completed.stdout


def wait_until(condition, seconds: float = _SECONDS) -> None:
    """Waits for something that others do; fails if it takes longer than it ever may."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def _running(variable: str) -> list[int]:
    """The processes of jobs: those with a variable, and their ancestor, which names the step."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            variables = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            of_job = any(each.startswith("SLURM_JOB_ID=") for each in variables)
            step = (path / "cmdline").read_bytes().startswith(b"slurmstepd: [")
            if variable in variables and (of_job or step):
                found.append(int(path.name))
    return found


def _end(daemon: subprocess.Popen) -> None:
    daemon.terminate()
    daemon.wait()


def _munged(directory: Path) -> list[str]:
    key = directory / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = {"key-file": key.name, "pid-file": "munge.pid", "seed-file": "munge.seed"}
    files |= {"log-file": "munge.log", "socket": "munge.socket"}
    return ["--foreground", "--force", *(f"--{k}={directory / v}" for k, v in files.items())]


def _configure(directory: Path, node: str) -> None:
    controller_port, node_port = _free_port(), _free_port()
    (directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (directory / "gres.conf").write_text(f"Name=gpu File={directory}/gpu[0-3]\n")
    for number in range(4):
        (directory / f"gpu{number}").touch()
    for name in ("state", "spool"):
        (directory / name).mkdir()
    (directory / "slurm.conf").write_text(f"""\
ClusterName=tests
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthInfo=socket={directory}/munge.socket,cred_expire={REQUEUE_SECONDS}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MaxArraySize=1001
GresTypes=gpu
NodeName={node} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:4
PartitionName=main Nodes={node} Default=YES PriorityTier=1
PartitionName=urgent Nodes={node} PriorityTier=2
""")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
