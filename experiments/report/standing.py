"""How a run stands, as plain data and in words."""

from collections.abc import Mapping
from typing import Any

from experiments.sweep.run import Run


def as_data(states: Mapping[Run, str]) -> list[dict[str, Any]]:
    """Of each run its state, step, loss, rate, time left and so on."""
    return [described(run, state) for run, state in states.items()]


def outcome(run: Run) -> str:
    """How a run ended, in a few words; empty if it has not."""
    result = run.result
    if result is None:
        return run.damage or ""
    if result["status"] == "done":
        return f"{result['top1_error']:.2f}% error"
    return f"{result['reason']} ({run.directory / 'output.log'})"


def described(run: Run, state: str) -> dict[str, Any]:
    """How a run stands; loss, rate, waiting and seconds left only while it is running.

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
