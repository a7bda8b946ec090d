"""Processes that do nothing else than what is measured, and turns in them."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import Any, TypeVar, TypeVarTuple

from experiments.sweep.launch import MALLOC


@dataclass(frozen=True)
class Spent:
    """What a command took, all processes that it started included.

    Attributes:
      seconds: Of wall-clock time.
      processor_seconds: Of all processors, in the command and in the system.
      peak_mib: The most memory of any one of its processes, in MiB.
      printed: Its output.
    """

    seconds: float
    processor_seconds: float
    peak_mib: float
    printed: str


def timed(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Spent:
    """Runs a command to its end.

    Raises:
      CalledProcessError: Its exit status is not 0.
    """
    with tempfile.TemporaryFile("w+") as printed:
        began = perf_counter()
        process = subprocess.Popen(argv, stdout=printed, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, argv)
        printed.seek(0)
        return Spent(
            seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed.read()
        )


Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    threads: int, function: Callable[[*Arguments], Result], *arguments: *Arguments
) -> Result:
    """Calls a function in a new process that has that many processors, and returns its result.

    Raises:
      BrokenProcessPool: The process died, of lack of memory for example.
    """
    with fresh_process(processors(threads)) as executor:
        return executor.submit(function, *arguments).result()


def fresh_process(processors: Sequence[int]) -> ProcessPoolExecutor:
    """Returns a pool of one new process that has these processors, and memory as a run has it."""
    os.environ.update(MALLOC | os.environ)
    # XLA sizes its pool by the processors that it sees first, so they are bound before anything
    # of ours is imported there.
    return ProcessPoolExecutor(1, get_context("spawn"), os.sched_setaffinity, (0, processors))


def processors(threads: int) -> list[int]:
    """The processors of a process with so many threads, the same for all."""
    return sorted(os.sched_getaffinity(0))[:threads]


def in_turns(
    runs: Mapping[str, Callable[[], Any]], rounds: int, seconds: float = 0.0, least: int = 1
) -> dict[str, list[float]]:
    """Runs each in turns, and returns the time in ms of each turn; see `turn` and `rotate`.

    Args:
      runs: What to run, by name.
      rounds, seconds: Turns of each, and time of all together, at least.
      least: Runs in a turn, at least.
    """
    return rotate({name: partial(turn, run, least) for name, run in runs.items()}, rounds, seconds)


def rotate(
    turns: Mapping[str, Callable[[], Result]], rounds: int, seconds: float = 0.0
) -> dict[str, list[Result]]:
    """Takes turns, and returns what came of those of each.

    Args:
      turns: What takes one turn, by name.
      rounds, seconds: Turns of each, and time of all together, at least.
    """
    taken: dict[str, list[Result]] = {name: [] for name in turns}
    order, start = list(turns), perf_counter()
    while len(taken[order[0]]) < rounds or perf_counter() - start < seconds:
        for name in order:
            taken[name].append(turns[name]())
        # Nobody always follows the same one, whose threads may still be spinning.
        order = [*order[1:], order[0]]
    return taken


def turn(run: Callable[[], Any], least: int = 1) -> float:
    """Runs for 0.2 s and at least so many times, and returns the median time in ms.

    The first is left out if there are others: it finds the caches, and the processors, as the one
    before left them.
    """
    times: list[float] = []
    start = perf_counter()
    while len(times) < least or perf_counter() - start < 0.2:
        began = perf_counter()
        run()
        times.append(1000 * (perf_counter() - began))
    return median(times[1:] or times)


def in_a_line(error: Exception) -> str:
    """What was raised, and the first line of what it says."""
    first, *_ = [*str(error).strip().splitlines(), ""]
    return f"{type(error).__name__}: {first}"
