"""How long a sweep may still take, by what its runs have taken so far."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from statistics import fmean

from experiments.sweep.run import ENDED, Run


class Pace:
    """Estimates what runs take by those that are done: of their cell, of their row, or of all.

    What is done is read once.
    """

    def __init__(self) -> None:
        self._done: dict[Run, float] = {}

    def seconds_left(self, states: Mapping[Run, str]) -> float | None:
        """Seconds until all have ended, with as many at a time as now; None if nothing tells.

        Args:
          states: How each run stands.
        """
        for run in (run for run, state in states.items() if state == "done"):
            if run not in self._done:
                self._done[run] = _seconds(run)
        running = {run: run.progress for run, state in states.items() if state == "running"}
        known = {run: seconds for run, seconds in self._done.items() if seconds} | {
            run: progress["total"] / progress["rate"]
            for run, progress in running.items()
            if progress["rate"]
        }
        waiting = [run for run, state in states.items() if state not in (*ENDED, "running")]
        if not running and not waiting:
            return 0.0
        if not known:
            return None
        means = _means(known)
        left = {
            run: _expected(run, means) * (1.0 if states[run] == "missing" else _share_left(run))
            for run in (*running, *waiting)
        }
        return max(sum(left.values()) / max(1, len(running)), *(left[run] for run in running), 0.0)


def shown(seconds: float | None) -> str:
    """A duration in words of time."""
    if seconds is None:
        return "not known yet"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _seconds(run: Run) -> float:
    taken = (attempt.get("seconds") for attempt in run.attempts)
    return sum(each for each in taken if isinstance(each, int | float))


def _share_left(run: Run) -> float:
    progress = run.progress
    return 1 - min(1.0, progress["step"] / progress["total"]) if progress["total"] else 1.0


Group = tuple[str, str]


def _groups(run: Run) -> Iterator[Group]:
    """What a run has in common with others, the closest first."""
    yield "cell", run.cell.name
    yield "row", run.cell.row
    yield "all", ""


def _means(known: Mapping[Run, float]) -> dict[Group, float]:
    seconds: dict[Group, list[float]] = defaultdict(list)
    for run, each in known.items():
        for group in _groups(run):
            seconds[group].append(each)
    return {group: fmean(each) for group, each in seconds.items()}


def _expected(run: Run, means: Mapping[Group, float]) -> float:
    return next(means[group] for group in _groups(run) if group in means)
