"""The progress board of a sweep: it stays in place on a terminal, and is plain lines elsewhere."""

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live

from experiments.report import pace
from experiments.report.overview import overview
from experiments.report.standing import outcome
from experiments.sweep.run import Run


class Board:
    """Shows how the runs of a sweep stand; use as a context manager and call `update`."""

    def __init__(self, runs: Sequence[Run]):
        self._runs = runs
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._pace = pace.Pace()
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
            left = self._pace.seconds_left(self.states)
            width, height = self._console.width, self._console.height - 1
            shown = overview(self.states, left, width=width, height=height)
            self._live.update(shown, refresh=True)
            return
        changed = [run for run, state in self.states.items() if state != self._shown[run]]
        left = self._pace.seconds_left(self.states) if changed else None
        for run in changed:
            # A reason may have brackets, which are no markup.
            line = self._line(run, self.states[run], left)
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._shown = self.states

    def _line(self, run: Run, state: str, left: float | None) -> str:
        ended = sum(other in ("done", "diverged", "failed") for other in self.states.values())
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        label = f"{run.cell.name} seed {run.seed}"
        text = f"[{minutes}:{seconds:02}] {ended}/{len(self.states)}  {label}  {state}"
        still = f"  (left: {pace.shown(left)})" if left and state == "done" else ""
        return f"{text}  {outcome(run)}".rstrip() + still
