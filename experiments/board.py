"""The progress board of a sweep: a live table on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from experiments.workdir import Run

_STYLES = {"done": "green", "running": "cyan", "diverged": "red", "failed": "red"}


class Board:
    """Shows how the runs of a sweep stand; use as a context manager and call `update`."""

    def __init__(self, runs: Sequence[Run]):
        self._runs = runs
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._began = time.monotonic()
        self._shown: dict[Run, str] = {run: run.status for run in runs}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        self._live.stop()

    def update(self) -> None:
        """Shows what has changed."""
        states = {run: run.status for run in self._runs}
        if self._console.is_terminal:
            self._live.update(self.table(states), refresh=True)
            return
        for run, state in states.items():
            if state != self._shown[run]:
                self._shown[run] = state
                self._console.print(self._line(run, state, states), highlight=False, soft_wrap=True)

    def _line(self, run: Run, state: str, states: dict[Run, str]) -> str:
        ended = sum(other in ("done", "diverged", "failed") for other in states.values())
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        text = f"[{minutes}:{seconds:02}] {ended}/{len(states)}  {_label(run)}  {state}"
        return f"{text}  {outcome(run)}".rstrip().replace("[", r"\[", 1)

    @staticmethod
    def table(states: Mapping[Run, str]) -> Table:
        """How runs stand, given the status of each."""
        counts = Counter(states.values())
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        table = Table(title=summary, box=None, title_justify="left")
        for heading in ("cell", "seed", "state", "step", "loss", "steps/s", "left", ""):
            justify = "left" if heading in ("cell", "state", "") else "right"
            table.add_column(heading, justify=justify, no_wrap=heading != "")
        for run, state in states.items():
            table.add_row(*_row(run, state), style=_STYLES.get(state, "dim"))
        return table


def outcome(run: Run) -> str:
    """How a run ended, in a few words; empty if it has not."""
    result = run.result
    if result is None:
        return ""
    if result["status"] == "done":
        return f"{result['top1_error']:.2f}% error"
    return f"{result['reason']} ({run.directory / 'output.log'})"


def _label(run: Run) -> str:
    return f"{run.cell.name} seed {run.seed}"


def _row(run: Run, state: str) -> list[str]:
    name = [run.cell.name, str(run.seed), state]
    progress = run.progress
    if state != "running" or not progress["step"]:
        return [*name, "", "", "", "", outcome(run)]
    left = int((progress["total"] - progress["step"]) / progress["rate"])
    return [
        *name,
        f"{progress['step']}/{progress['total']}",
        f"{progress['loss']:.3f}",
        f"{progress['rate']:.1f}",
        f"{left // 60}:{left % 60:02}",
        "",
    ]
