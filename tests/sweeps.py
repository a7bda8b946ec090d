"""Small sweeps for tests, and their processes."""

import subprocess
import sys
import time
from pathlib import Path

from runs import differences

from experiments import tables
from experiments.report import contents
from experiments.report.table import as_markdown
from experiments.sweep import configuration as configs
from experiments.sweep import manifest
from experiments.sweep.plan import freeze
from shufflenet_jax.metrics import write_metrics

ASSIGNMENTS = (
    "network.repeats=1,1,1",
    "recipe.epochs=1",
    "recipe.batch_size=128",
    "recipe.preprocessing.image_size=16",
    "intervals.log=2",
)
"""What makes a run of digits take seconds."""

SHRUNK = tuple(f"--config.{assignment}" for assignment in ASSIGNMENTS)
"""The same for the command line."""


SHORT = ("--cells", "0.25x-*", *SHRUNK)
CELLS = ("0.25x-g3-noshuffle", "0.25x-g3", "0.25x-g8-noshuffle", "0.25x-g8")
"""A sweep of four runs, and the names of its cells."""


ATTEMPT = {
    "pid": 1,
    "processor": "none",
    "device": "cpu",
    "cores": 1,
    "python": "3",
    "versions": {"jax": "0"},
    "commit": None,
}
"""What is recorded of a process that has started on a run."""


def configured(*assignments):
    """The configuration of table 3 with changes."""
    config = tables.load("table3").get_config("digits")
    configs.override(config, assignments)
    return config


def create_sweep(directory, *assignments, name="table3", dry=False, **options):
    """Creates a sweep without running it; options are of `plan.freeze`."""
    chosen = tables.load(name) if isinstance(name, str) else name
    sweep = freeze(chosen, "digits", configured(*assignments), directory, **options)
    return manifest.begin(sweep, dry=dry)


def markdown_of(sweep):
    """The report of a sweep in Markdown."""
    return as_markdown(contents.of_sweep(sweep))


def ended(sweep, name, seed, *errors, generation=None, **attempt):
    """Leaves what a run leaves that is done: errors after its epochs, and how it was made."""
    run = sweep.run(sweep.cell(name), seed)
    run.directory.mkdir(parents=True, exist_ok=True)
    known = {} if generation is None else {"generation": generation}
    run.record_attempt(1, ATTEMPT | {"ended": "done"} | known | attempt)
    rows = [
        {"step": step, "split": "test", "top1_error": error} for step, error in enumerate(errors, 1)
    ]
    write_metrics(run.directory, rows)
    counts = {"macs": 1_000_000, "macs_without_head": 999_000, "params": 67_534}
    network = {"widths": [12, 60, 120, 240], **counts}
    result = {"status": "done", "step": len(errors), "top1_error": errors[-1], "network": network}
    run.end(result)
    return run


def start(*arguments, **options):
    """Starts a command of the project's command line in a process of its own."""
    command = [sys.executable, "-m", "experiments", *map(str, arguments)]
    options = {"cwd": Path(__file__).parents[1]} | options
    return subprocess.Popen(command, **options)


def start_cell(directory, *arguments, name="0.25x-g3", **options):
    """Starts the process that trains one run of a sweep."""
    return start("cell", name, "--workdir", directory, *arguments, **options)


def the_run(directory, cell=CELLS[1], seed=0):
    sweep = manifest.open_sweep(directory)
    return sweep.run(sweep.cell(cell), seed)


def wait_until(condition, process=None, seconds=120):
    """Waits for something to be true; False if the process ended before it was."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.002)
    return True


def number_of_wrong(directory, whole):
    """How many runs of a sweep differ from those of one that nothing happened to."""
    pairs = ([the_run(each, cell).directory for each in (whole, directory)] for cell in CELLS)
    return sum(bool(differences(*pair)) for pair in pairs)


def is_begun(directory, cell):
    return (directory / "sweep.json").exists() and the_run(directory, cell).num_attempts > 0
