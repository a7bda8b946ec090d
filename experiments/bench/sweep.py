"""What the runner costs: ten thousand cells on disk, and one cell more or less.

The cells of the large sweep are written as ended runs leave them, and then read by the commands
that a user gives. What a cell costs beside its training is what one more takes in a sweep, less
what a script takes that trains the same with `shufflenet_jax.fit` alone.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from experiments.bench import machine, whole
from experiments.bench.measure import timed
from experiments.report import markdown
from experiments.sweep import manifest, provenance
from experiments.sweep.budgets import budget
from experiments.sweep.experiment import Experiment
from experiments.sweep.grid import grid
from experiments.sweep.launch import COMMAND_LINE
from experiments.sweep.plan import freeze

CELLS = 10_008
"""As many as 834 tables of 12 networks."""

_NETWORKS = 12
"""Those of Table 3."""

ROUNDS = 3
_MORE = 3
"""Cells that the longer of two small sweeps has more."""

_SMALL = {
    "network.repeats": "1,1,1",
    "recipe.epochs": "1",
    "recipe.batch_size": "128",
    "recipe.preprocessing.image_size": "16",
}

_SCRIPT = """
import sys
from pathlib import Path
from experiments.sweep import budgets, compile_cache, configuration
from experiments.sweep.build import build
from shufflenet_jax import data, fit
chosen = budgets.budget("digits")
configuration.override(chosen, sys.argv[2:])
compile_cache.enable()
values = {**configuration.settings(chosen), **configuration.identity(chosen)}
made = build(values, 0, data.load("digits"))
fit.fit(
    made.network, made.dataset, made.recipe, seed=0, directory=Path(sys.argv[1]),
    intervals=made.intervals,
)
"""
_CELL = "0.25x-g3"


def table(against: str | None = None) -> str:
    """Measures both, and a whole table of small networks; Markdown tables.

    Args:
      against: A commit whose code takes turns with this one in the last; see `whole.table`.
    """
    with tempfile.TemporaryDirectory() as directory:
        large = of_many(Path(directory, "large"), CELLS)
        small = _small(Path(directory))
    return (
        f"{large}\n\nWall-clock time and peak memory of one command, imports included; the first "
        f"is the planning alone.\n\n{small}\n\nMedians of {ROUNDS} rounds, in turns, one process "
        f"at a time, everything compiled before.\n\n{whole.table(against)}\n\nMedians of "
        f"{whole.ROUNDS} rounds, in turns. {machine.processor()}, {os.cpu_count()} cores."
    )


def of_many(directory: Path, count: int) -> str:
    """What commands take on a sweep of so many cells, a multiple of 12, that have ended."""
    made = markdown.table(f"{count:,} cells", "seconds", "peak memory, MiB")
    call = f"begin({str(directory)!r}, {count})"
    spent = timed([sys.executable, "-c", f"from {__name__} import begin; {call}"])
    made.add_row("planned and written", spent.printed.strip(), f"{spent.peak_mib:.0f}")
    _fill(directory)
    seeds = count // _NETWORKS
    commands = {
        f"run table3 --seeds {seeds} --dry-run": ["--workdir", str(directory.with_name("dry"))],
        "status": ["--workdir", str(directory)],
        "status --json": ["--workdir", str(directory)],
        "report": ["--workdir", str(directory)],
        "report --format json": ["--workdir", str(directory)],
    }
    for command, where in commands.items():
        argv = [*COMMAND_LINE, *command.split(), *where]
        spent = timed(argv)
        made.add_row(command, f"{spent.seconds:.1f}", f"{spent.peak_mib:.0f}")
        if command == "status --json":
            states = [cell["status"] for cell in json.loads(spent.printed)["cells"]]
            assert states == ["done"] * count
    return markdown.render(made)


def begin(directory: str, count: int) -> None:
    """Plans a sweep of so many cells, and prints the seconds that it took."""
    axes = {
        "recipe.weight_decay": [number * 1e-6 for number in range(count // _NETWORKS)],
        "network.width": (1.0, 0.5, 0.25),
        "network.groups": (3, 8),
        "network.shuffle": (False, True),
    }
    chosen = Experiment("scale", "Many cells", "", budget, grid(axes))
    config = budget("digits")
    began = perf_counter()
    sweep = manifest.begin(freeze(chosen, "digits", config, Path(directory)))
    todo = [run for run in sweep.runs() if run.status == "missing"]
    print(f"{perf_counter() - began:.1f}")
    assert len(todo) == count


def _fill(directory: Path) -> None:
    """Leaves each run of a sweep as if it had ended."""
    attempt = {
        "versions": provenance.versions(("jax",)),
        "commit": None,
        "ended": "done",
        "processor": "none",
        "device": "cpu",
        "cores": 1,
        "python": "3",
        "pid": 1,
    }
    network = {"widths": [12, 60, 120, 240], "macs": 1, "macs_without_head": 1, "params": 1}
    result = {"status": "done", "step": 1, "top1_error": 50.0, "network": network}
    progress = {"step": 1, "total": 1, "loss": 1.0, "rate": 1.0}
    for run in manifest.open_sweep(directory).runs():
        (run.directory / "attempts").mkdir(parents=True)
        for name, value in (
            ("attempts/0001.json", attempt),
            ("result.json", result),
            ("progress.json", progress),
        ):
            (run.directory / name).write_text(json.dumps(value))


def _small(directory: Path) -> str:
    """What one more cell takes in a sweep, and its training alone."""
    assignments = [f"{key}={value}" for key, value in _SMALL.items()]

    def sweep(cells: int, name: str) -> float:
        argv = ["run", "table3", "--cells", _CELL, "--seeds", str(cells), "--jobs", "1"]
        options = [f"--config.{each}" for each in assignments]
        where = ["--workdir", str(directory / name)]
        return timed([*COMMAND_LINE, *argv, *options, *where]).seconds

    def script(name: str) -> float:
        return timed([sys.executable, "-c", _SCRIPT, str(directory / name), *assignments]).seconds

    sweep(1, "compiles")
    script("compiles too")
    times: dict[str, list[float]] = {"sweep": [], "script": []}
    for number in range(ROUNDS):
        few, many = sweep(1, f"few{number}"), sweep(1 + _MORE, f"many{number}")
        times["sweep"].append((many - few) / _MORE)
        times["script"].append(script(f"script{number}"))
    each, alone = median(times["sweep"]), median(times["script"])
    made = markdown.table("one cell", "seconds")
    made.add_row("more in a sweep", f"{each:.2f}")
    made.add_row("its training by a script", f"{alone:.2f}")
    made.add_row("the runner's part", f"{each - alone:.2f}")
    return markdown.render(made)
