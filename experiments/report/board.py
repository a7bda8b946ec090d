"""The progress board of a sweep: a live table on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.sweep.run import Run

_STYLES = {
    "done": "green",
    "running": "cyan",
    "diverged": "red",
    "failed": "red",
    "damaged": "red",
}

# What a terminal shows that is too low for all.
_BY_INTEREST = (
    "running",
    "failed",
    "diverged",
    "damaged",
    "preempted",
    "interrupted",
    "missing",
    "done",
)


class Board:
    """Shows how the runs of a sweep stand; use as a context manager and call `update`."""

    def __init__(self, runs: Sequence[Run]):
        self._runs = runs
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._began = time.monotonic()
        self._due = 0.0
        self._shown = self.states = {run: run.status for run in runs}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._show()
        self._live.stop()

    def update(self) -> None:
        """Shows what has changed, unless that would take much of the time."""
        began = time.monotonic()
        if began >= self._due:
            self._show()
            took = time.monotonic() - began
            self._due = began + max(0.5, 20 * took)

    def _show(self) -> None:
        self.states = {
            run: state if state in ("done", "diverged") else run.status
            for run, state in self.states.items()
        }
        if self._console.is_terminal:
            most = max(1, self._console.height - 3)
            self._live.update(table(self.states, most), refresh=True)
            return
        for run, state in self.states.items():
            if state != self._shown[run]:
                # A reason may have brackets, which are no markup.
                line = self._line(run, state)
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._shown = self.states

    def _line(self, run: Run, state: str) -> str:
        ended = sum(other in ("done", "diverged", "failed") for other in self.states.values())
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        label = f"{run.cell.name} seed {run.seed}"
        text = f"[{minutes}:{seconds:02}] {ended}/{len(self.states)}  {label}  {state}"
        return f"{text}  {outcome(run)}".rstrip()


def table(states: Mapping[Run, str], most: int = 200) -> Table:
    """How runs stand, given the state of each; if more than ``most``, those of most interest."""
    counts = Counter(states.values())
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    if len(states) > most:
        summary += f"; {most} of {len(states)} listed (status --json lists all)"
    made = Table(title=summary, box=None, title_justify="left")
    headings = (
        "cell",
        "seed",
        "state",
        "step",
        "loss",
        "steps/s",
        "waits",
        "left",
        "tries",
        "owner",
        "",
    )
    for heading in headings:
        justify: JustifyMethod = "left" if heading in ("cell", "state", "owner", "") else "right"
        made.add_column(heading, justify=justify, no_wrap=heading != "")
    for run, state in _of_interest(states, most):
        made.add_row(*map(Text, _row(run, state)), style=_STYLES.get(state, "dim"))
    return made


def as_data(states: Mapping[Run, str]) -> list[dict[str, Any]]:
    """The same as plain data: of each run its state, step, loss, rate, time left and so on."""
    return [_described(run, state) for run, state in states.items()]


def outcome(run: Run) -> str:
    """How a run ended, in a few words; empty if it has not."""
    result = run.result
    if result is None:
        return run.damage or ""
    if result["status"] == "done":
        return f"{result['top1_error']:.2f}% error"
    return f"{result['reason']} ({run.directory / 'output.log'})"


def _of_interest(states: Mapping[Run, str], most: int) -> Iterable[tuple[Run, str]]:
    if len(states) <= most:
        return states.items()
    ranked = sorted(states.items(), key=lambda item: _BY_INTEREST.index(item[1]))
    return ranked[:most]


def _described(run: Run, state: str) -> dict[str, Any]:
    """How a run stands; loss, rate and so on only while it is running.

    The rate is in steps a second; waiting is the share of the time spent waiting for images.
    """
    begun = state != "missing"
    result = run.result if begun else None
    progress = {"step": 0, "total": 0} if not begun else run.progress
    described = {
        "name": run.cell.name,
        "seed": run.seed,
        "status": state,
        "step": (result or progress)["step"],
        "steps": progress["total"] or None,
        "loss": None,
        "rate": None,
        "waiting": None,
        "seconds_left": None,
        "attempts": run.num_attempts if begun else 0,
        "owner": None,
    }
    if state == "running":
        described["owner"] = run.owner
        if progress["rate"]:
            left = (progress["total"] - progress["step"]) / progress["rate"]
            described |= {name: progress[name] for name in ("loss", "rate", "waiting")}
            described["seconds_left"] = round(left, 1)
    return described


def _row(run: Run, state: str) -> list[str]:
    described = _described(run, state)
    steps = f"{described['step']}/{described['steps']}" if described["steps"] else ""
    row = [run.cell.name, str(run.seed), state, steps, "", "", "", ""]
    if described["rate"]:
        left = int(described["seconds_left"])
        row[4:] = [f"{described['loss']:.3f}", f"{described['rate']:.1f}"]
        row.append(f"{described['waiting']:.0%}")
        row.append(f"{left // 60}:{left % 60:02}")
    return [*row, str(described["attempts"] or ""), described["owner"] or "", outcome(run)]
