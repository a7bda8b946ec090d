"""Times of one workload: every peer in a process of its own, and those in turns.

In one process the peers would share more than the processors: one allocator, one OpenMP for all
that use it, and pools whose threads still look for work when their turn is over (ONNX Runtime's,
OpenVINO's, PyTorch's and XLA's alike). And who runs out of memory, or crashes, would take the
others with it. With processes that wait for their turn all have the same processors and find them
idle, a machine that slows down slows all, and ours is built once, not once for each peer. Measured
at batch 1 and 8 on one and two threads, each peer is then as fast as when it is alone, and as in a
process together with ours only.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, sleep
from typing import Any

import numpy as np

from experiments.bench import inputs, peer_jax
from experiments.bench.forms import Choice, choose, first_results
from experiments.bench.measure import fresh_process, in_a_line, processors, rotate, turn
from experiments.bench.peers import Peer
from experiments.bench.workloads import Workload


@dataclass(frozen=True)
class Timing:
    """What one peer took for one workload.

    Attributes:
      workload, peer: In words, and by name.
      milliseconds: Of each turn that it took.
      others: Processors that other processes kept busy in the turns of all peers, on average.
      failure: Why it was not timed, if it was not.
      choice: The form in which it was timed, and how the others did.
    """

    workload: Workload
    peer: str
    milliseconds: tuple[float, ...] = ()
    others: float = 0.0
    failure: str = ""
    choice: Choice = field(default_factory=Choice)

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
class _Turn:
    """One turn: ms of a run; seconds of the turn, and processor seconds of others meanwhile."""

    milliseconds: float
    seconds: float
    others: float


def time_workload(
    workload: Workload, peers: Sequence[Peer], rounds: int, seconds: float
) -> list[Timing]:
    """Times all peers that can do a workload, each in its fastest form, in turns.

    Args:
      workload: What to time.
      peers: Ours first, with whose results those of the others are compared.
      rounds, seconds: Turns of each peer, and time of all together, at least.
    """
    able = [peer for peer in peers if peer.can(workload)]
    with ExitStack() as stack:
        processes = {
            peer.name: stack.enter_context(fresh_process(processors(workload.threads)))
            for peer in able
        }
        choices = _choices(workload, able, processes)
        turns = {
            name: partial(_turn_of, processes[name])
            for name, choice in choices.items()
            if isinstance(choice, Choice) and choice.form
        }
        taken = rotate(turns, rounds, seconds) if turns else {}
        for process in processes.values():  # all together: each takes a second to end
            process.shutdown(wait=False)
    others = _others([each for of_peer in taken.values() for each in of_peer])
    return [
        _timing(workload, peer.name, choices[peer.name], taken.get(peer.name, ()), others)
        for peer in able
    ]


def tolerance(workload: Workload, precision: str) -> float:
    """How far a peer's results may be from ours, relative to the largest value of ours."""
    if precision == "bfloat16":
        return 0.1
    return 1e-3 if workload.mode == "train" else 1e-4


_DIED = "the process died"

_QUIET = 0.05
"""Seconds before a turn: a pool's threads were seen to look for work 12 ms after their own."""


def _choices(
    workload: Workload, peers: Sequence[Peer], processes: Mapping[str, ProcessPoolExecutor]
) -> dict[str, Choice | str]:
    """Prepares each peer in its process; returns which form is timed, or why none is."""
    # All import together, and to the end: the forms of the first are measured after it.
    wait([processes[peer.name].submit(_load, peer) for peer in peers])
    expected: list[np.ndarray] = []
    choices: dict[str, Choice | str] = {}
    for peer in peers:
        submit = processes[peer.name].submit
        try:
            if peer.name == "ours":
                choices[peer.name], expected = submit(_prepare_ours, workload, peer).result()
            elif not expected:
                choices[peer.name] = "the process of ours died: there is nothing to compare with"
            else:
                choices[peer.name] = submit(_prepare, workload, peer, expected).result()
        except BrokenProcessPool:
            choices[peer.name] = _DIED
    return choices


_run: Callable[[], Any]
"""What the process of one peer runs in its turns."""


def _load(peer: Peer) -> None:
    peer.load()


def _prepare_ours(workload: Workload, peer: Peer) -> tuple[Choice, list[np.ndarray]]:
    """In the process of ours: its only form, and its results. An error of ours is not caught."""
    global _run
    ((form, prepare),) = peer.forms(workload, inputs.network_of(workload)).items()
    prepared = prepare()
    _run = prepared.run
    return Choice(form), first_results(prepared)


def _prepare(workload: Workload, peer: Peer, expected: list[np.ndarray]) -> Choice | str:
    """In the process of another: the form that was chosen, or why there are none."""
    global _run
    try:
        forms = peer.forms(workload, inputs.network_of(workload))
    except Exception as error:  # whatever another framework may raise
        return in_a_line(error)
    choice, prepared = choose(forms, expected, tolerance(workload, str(peer_jax.precision())))
    if prepared:
        _run = prepared.run
    return choice


def _take_turn() -> _Turn | str:
    """In the process of a peer: its turn, or why it could not take it."""
    sleep(_QUIET)
    start, others = perf_counter(), _busy_others()
    try:
        milliseconds = turn(_run)
    except Exception as error:  # whatever another framework may raise
        return in_a_line(error)
    return _Turn(milliseconds, perf_counter() - start, _busy_others() - others)


def _turn_of(process: ProcessPoolExecutor) -> _Turn | str:
    try:
        return process.submit(_take_turn).result()
    except BrokenProcessPool:
        return _DIED


def _timing(
    workload: Workload,
    peer: str,
    choice: Choice | str,
    turns: Sequence[_Turn | str],
    others: float,
) -> Timing:
    if isinstance(choice, str):
        return Timing(workload, peer, failure=choice)
    if not choice.form:
        return Timing(workload, peer, failure="each of its forms failed", choice=choice)
    for each in turns:
        if isinstance(each, str):
            return Timing(workload, peer, failure=each, choice=choice)
    milliseconds = tuple(each.milliseconds for each in turns if isinstance(each, _Turn))
    return Timing(workload, peer, milliseconds, others, choice=choice)


def _others(turns: Sequence[_Turn | str]) -> float:
    """Processors that others than the peer whose turn it was kept busy, on average."""
    taken = [each for each in turns if isinstance(each, _Turn)]
    busy = sum(each.others for each in taken)
    return busy / sum(each.seconds for each in taken) if taken else 0.0


def _busy_others() -> float:
    """Seconds that processors were not idle and did not work for this process (`man proc_stat`)."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().split()[1:11]
    )
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])
