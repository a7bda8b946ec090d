"""What a sweep starts, and that it is of this code, whatever lies where it is started."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from sweeps import SHRUNK, create_sweep, the_run

import experiments
from experiments.launchers import Command
from experiments.launchers.local import Local
from experiments.sweep.launch import COMMAND_LINE, argv_of, launch, options_of


def ended(job):
    while (exit_status := job.poll()) is None:
        time.sleep(0.01)
    return exit_status


def test_a_process_of_this_machine_is_of_this_code(tmp_path, elsewhere, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    sweep = create_sweep(tmp_path / "sweep", dry=True)
    run = sweep.run(sweep.cell("0.25x-g3"), 0)
    (job,) = Local(1).submit([Command("x", tuple(argv_of(sweep, run)), {}, tmp_path / "x.log")])
    assert ended(job) == 2
    said = f"error: {sweep.directory} holds no sweep: start one with `run NAME --workdir`\n"
    assert (tmp_path / "x.log").read_text() == said


def test_nor_does_it_help_to_come_first_on_the_path(elsewhere):
    (elsewhere / "jax.py").unlink()
    listed = subprocess.run(
        [*COMMAND_LINE, "list", "--json"],
        env=os.environ | {"PYTHONPATH": str(elsewhere)},
        capture_output=True,
        text=True,
    )
    assert listed.stderr == ""
    assert json.loads(listed.stdout)[0]["name"] == "table1"


@pytest.mark.slow
def test_a_run_and_the_processes_that_prepare_its_images_are_of_this_code(tmp_path, elsewhere):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    options = ["--cells", "0.25x-g3", "--config.data.workers=1", *SHRUNK]
    trained = subprocess.run(
        [*COMMAND_LINE, "run", "table3", *options],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert trained.returncode == 0, trained.stderr
    assert the_run(elsewhere / "runs" / "table3").status == "done"


class Immediate:
    """An engine whose commands have ended before anyone asks, each with a result."""

    slots = None
    distributed = False

    def __init__(self, runs):
        self.runs = {run.name: run for run in runs}
        self.names = []

    def submit(self, commands):
        for command in commands:
            self.names.append(command.name)
            self.runs[command.name].reopen()
            self.runs[command.name].end({"status": "done", "step": 1, "top1_error": 5.0})
        return [self] * len(commands)

    def poll(self):
        return 0

    def close(self):
        pass


def test_a_damaged_run_is_trained_again_and_no_other(tmp_path):
    sweep = create_sweep(tmp_path, seeds=2)
    whole, damaged, *_ = runs = sweep.runs()[:4]
    for each in runs:
        each.directory.mkdir(parents=True)
        each.end({"status": "done", "step": 1, "top1_error": 5.0})
    (damaged.directory / "result.json").write_text("null")
    engine = Immediate(runs)
    launch(engine, sweep, runs, lambda: None, options_of(engine, sweep))
    assert engine.names == [damaged.name]
    assert [each.status for each in runs] == ["done"] * 4
    assert (damaged.directory / "result.json.damaged").read_text() == "null"
    assert not (whole.directory / "result.json.damaged").exists()


def test_the_command_line_is_that_of_this_package():
    program, option, place = COMMAND_LINE
    assert os.path.isabs(program)
    assert option == "-P"
    assert Path(place).parent == Path(experiments.__file__).parent
