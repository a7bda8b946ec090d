"""Times, compile times and peak memory of one workload, in a process that does nothing else."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, TypeVar, TypeVarTuple

import numpy as np

from experiments.bench import inputs, peer_jax
from experiments.bench.peers import Peer, Prepared
from experiments.bench.workloads import Net, Workload
from experiments.sweep.launch import MALLOC
from shufflenet_jax.models.skeleton import Network

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing:
    """What one peer took for one workload.

    Attributes:
      workload, peer: In words, and by name.
      milliseconds: Of each turn that it took.
      others: Processors that other processes kept busy meanwhile, on average.
      failure: Why it was not timed, if it was not.
    """

    workload: Workload
    peer: str
    milliseconds: tuple[float, ...] = ()
    others: float = 0.0
    failure: str = ""

    @property
    def median(self) -> float:
        """Median over the turns, in ms."""
        return median(self.milliseconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile over the turns, in ms."""
        low, _, high = quantiles(self.milliseconds, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Cost:
    """What else one peer takes for one workload.

    Attributes:
      workload, peer: In words, and by name.
      build_seconds: From the weights to the end of the first step, less one step: compilation.
      peak_mib: Most memory of the process, less what it had before the step was built.
      failure: Why it was not measured, if it was not.
    """

    workload: Workload
    peer: str
    build_seconds: float = 0.0
    peak_mib: float = 0.0
    failure: str = ""


def in_fresh_process(
    threads: int, function: Callable[[*Arguments], Result], *arguments: *Arguments
) -> Result:
    """Calls a function in a new process that has that many processors, and returns its result.

    Raises:
      BrokenProcessPool: The process died, of lack of memory for example.
    """
    with fresh_process(sorted(os.sched_getaffinity(0))[:threads]) as executor:
        return executor.submit(function, *arguments).result()


def fresh_process(processors: Sequence[int]) -> ProcessPoolExecutor:
    """Returns a pool of one new process that has these processors, and memory as a run has it."""
    os.environ.update(MALLOC | os.environ)
    # XLA sizes its pool by the processors that it sees first, so they are bound before anything
    # of ours is imported there.
    return ProcessPoolExecutor(1, get_context("spawn"), os.sched_setaffinity, (0, processors))


def in_turns(
    runs: Mapping[str, Callable[[], Any]], rounds: int, seconds: float = 0.0, least: int = 1
) -> dict[str, list[float]]:
    """Runs each in turns, and returns the time in ms of each turn.

    A turn is 0.2 s of runs and at least one, of which it is the median without the first if there
    are others: the first finds the caches, and the processors, as the one before left them.

    Args:
      runs: What to run, by name.
      rounds, seconds: Turns of each, and time of all together, at least.
      least: Runs in a turn, at least.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, start = list(runs), perf_counter()
    while len(times[order[0]]) < rounds or perf_counter() - start < seconds:
        for name in order:
            times[name].append(_turn(runs[name], least))
        # Nobody always follows the same one, whose threads may still be spinning.
        order = [*order[1:], order[0]]
    return times


def time_workload(
    workload: Workload, peers: Sequence[Peer], rounds: int, seconds: float
) -> list[Timing]:
    """Times all peers that can do a workload, in turns, after comparing what they compute.

    Args:
      workload: What to time.
      peers: Ours first.
      rounds, seconds: Turns of each peer, and time of all together, at least.
    """
    able = [peer for peer in peers if peer.can(workload)]
    try:
        return in_fresh_process(workload.threads, _time, workload, able, rounds, seconds)
    except BrokenProcessPool:
        return [Timing(workload, peer.name, failure="the process died") for peer in able]


def cost_of(workload: Workload, peer: Peer) -> Cost:
    """Measures compile time and peak memory of one peer alone."""
    try:
        return in_fresh_process(workload.threads, _cost, workload, peer)
    except BrokenProcessPool:
        return Cost(workload, peer.name, failure="the process died")


def tolerance(workload: Workload, precision: str) -> float:
    """How far a peer's results may be from ours, relative to the largest value of ours."""
    if precision == "bfloat16":
        return 0.1
    return 1e-3 if workload.mode == "train" else 1e-4


def difference(results: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """The largest difference of any value, relative to the largest value of its array."""
    return max(
        float(np.abs(mine - theirs).max() / np.abs(mine).max())
        for mine, theirs in zip(results, others, strict=True)
    )


def first_results(prepared: Prepared) -> list[np.ndarray]:
    """The results of three runs: the losses of three training steps, or three times the same."""
    return [array for _ in range(3) for array in prepared.result(prepared.run())]


def _time(workload: Workload, peers: Sequence[Peer], rounds: int, seconds: float) -> list[Timing]:
    allowed = tolerance(workload, str(peer_jax.precision()))
    ready: dict[str, Prepared] = {}
    failures: dict[str, str] = {}
    ours: list[np.ndarray] = []
    network = _network(workload)
    for peer in peers:
        try:
            prepared = peer.prepare(workload, network)
            results = first_results(prepared)
        except Exception as error:  # whatever another framework may raise
            if peer.name == "ours":
                raise
            failures[peer.name] = _line(error)
            continue
        ours = ours or results
        if (apart := difference(ours, results)) > allowed:
            failures[peer.name] = f"its results are {apart:.1g} from ours, more than {allowed:g}"
        else:
            ready[peer.name] = prepared
    start, others_before = perf_counter(), _busy_others()
    runs = {name: prepared.run for name, prepared in ready.items()}
    times = in_turns(runs, rounds, seconds)
    others = (_busy_others() - others_before) / (perf_counter() - start)
    return [
        Timing(workload, peer.name, failure=failures[peer.name])
        if peer.name in failures
        else Timing(workload, peer.name, tuple(times[peer.name]), others)
        for peer in peers
    ]


def _network(workload: Workload) -> Network | None:
    return inputs.network(workload.subject) if isinstance(workload.subject, Net) else None


def _line(error: Exception) -> str:
    first, *_ = [*str(error).strip().splitlines(), ""]
    return f"{type(error).__name__}: {first}"


def _turn(run: Callable[[], Any], least: int) -> float:
    times: list[float] = []
    start = perf_counter()
    while len(times) < least or perf_counter() - start < 0.2:
        began = perf_counter()
        run()
        times.append(1000 * (perf_counter() - began))
    return median(times[1:] or times)


def _busy_others() -> float:
    """Seconds that processors were not idle and did not work for this process (`man proc_stat`)."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().split()[1:11]
    )
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def _cost(workload: Workload, peer: Peer) -> Cost:
    # Else PyTorch finds on disk what it compiled before.
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    peer.load()
    network = _network(workload)
    before = _memory("VmRSS")
    start = perf_counter()
    try:
        run = peer.prepare(workload, network).run
        run()
        built = perf_counter()
        run()
        once = perf_counter() - built
    except Exception as error:  # whatever another framework may raise
        return Cost(workload, peer.name, failure=_line(error))
    return Cost(workload, peer.name, built - start - once, _memory("VmHWM") - before)


def _memory(field: str) -> float:
    """VmRSS, what the process has now, or VmHWM, the most it had, in MiB (`man proc_status`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")
