"""Small sweeps for tests, and their processes."""

import subprocess
import sys
from pathlib import Path

from experiments import config as configs
from experiments import experiment, workdir

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


def configured(*assignments):
    """The configuration of table 3 with changes."""
    config = experiment.load("table3").get_config("digits")
    configs.override(config, assignments)
    return config


def create_sweep(directory, *assignments, name="table3", **options):
    """Creates a sweep without running it."""
    chosen = experiment.load(name)
    return workdir.create(chosen, "digits", configured(*assignments), directory, **options)


def start(*arguments, **options):
    """Starts a command of the project's command line in a process of its own."""
    command = [sys.executable, "-m", "experiments", *map(str, arguments)]
    options = {"cwd": Path(__file__).parents[1]} | options
    return subprocess.Popen(command, **options)


def start_cell(directory, *arguments, name="0.25x-g3", **options):
    """Starts the process that trains one run of a sweep."""
    return start("cell", name, "--workdir", directory, *arguments, **options)
