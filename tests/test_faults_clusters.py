"""Drills on clusters: whatever is lost of one, a sweep ends as it does on one machine."""

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from sweeps import CELLS, SHORT, is_begun, number_of_wrong, start, the_run, wait_until

LONGER = "--config.recipe.epochs=20"
"""Of runs that have to be met while they train."""


def parent(process_id):
    """Of a process: of a run on Ray a worker, and of that the raylet."""
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])


def is_training(directory, cell):
    run = the_run(directory, cell)
    return run.num_attempts > 0 and run.progress["step"] > 0


def worker_of(process_id):
    return parent(process_id)


def raylet_of(process_id):
    return parent(parent(process_id))


@pytest.mark.ray
@pytest.mark.parametrize("victim", [worker_of, raylet_of])
def test_a_part_of_ray_is_killed(victim, tmp_path, short_sweep, drill):
    """The runs that went with it are tried again; if it was the raylet, on a cluster begun anew."""
    pytest.importorskip("ray")
    directory = tmp_path / "sweep"
    launcher = start("run", "table3", "--workdir", directory, *SHORT, "--launcher", "ray")
    assert wait_until(partial(is_begun, directory, CELLS[0]), launcher)
    (attempt,) = the_run(directory, CELLS[0]).attempts
    os.kill(victim(attempt["pid"]), signal.SIGKILL)
    assert launcher.wait() == 0
    attempts = [the_run(directory, cell).attempts for cell in CELLS]
    ended = [[attempt.get("ended") for attempt in each].count("done") for each in attempts]
    assert len(attempts[0]) == 2
    drill(
        f"Ray: SIGKILL of a {victim.__name__.removesuffix('_of')}",
        tried=1,
        lost=ended.count(0),
        duplicated=sum(number > 1 for number in ended),
        wrong=number_of_wrong(directory, short_sweep),
    )


@pytest.mark.ray
def test_a_sweep_begun_with_ray_is_finished_here(tmp_path, short_sweep, drill):
    pytest.importorskip("ray")
    directory = tmp_path / "sweep"
    launcher = start("run", "table3", "--workdir", directory, *SHORT, "--launcher", "ray")
    assert wait_until(partial(is_begun, directory, CELLS[0]), launcher)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=120) == 130
    assert the_run(directory, CELLS[-1]).num_attempts == 0
    assert start("run", "table3", "--workdir", directory, *SHORT).wait() == 0
    wrong = number_of_wrong(directory, short_sweep)
    drill("Begun with Ray, finished by processes of this machine", tried=1, wrong=wrong)


def slurm(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def numbers_of_jobs():
    """The numbers of the elements of a job array, in the order of the runs that they train."""
    listed = slurm("squeue", "--noheader", "--array", "--format=%i").split()
    return sorted(listed, key=lambda number: int(number.partition("_")[2]))


@pytest.mark.slurm
def test_jobs_are_requeued_and_cancelled(tmp_path, slurm_cluster, drill):
    """One is requeued, and ends as if it had not been; one is cancelled, and can be continued."""
    whole, directory = tmp_path / "whole", tmp_path / "sweep"
    arguments = ("run", "table3", *SHORT, LONGER)
    assert start(*arguments, "--workdir", whole).wait() == 0
    launcher = start(*arguments, "--workdir", directory, "--launcher", "slurm")
    for cell in CELLS:
        assert wait_until(partial(is_begun, directory, cell), launcher)
    for cell in CELLS[:2]:
        assert wait_until(partial(is_training, directory, cell), launcher)
    requeued, cancelled, *_ = numbers_of_jobs()
    slurm("scontrol", "requeue", requeued)
    slurm("scancel", cancelled)
    assert launcher.wait(timeout=600) == 1
    states = [the_run(directory, cell).status for cell in CELLS]
    assert states == ["done", "preempted", "done", "done"]
    ended = [attempt.get("ended") for attempt in the_run(directory, CELLS[0]).attempts]
    assert ended == ["preempted", "done"]
    assert start(*arguments, "--workdir", directory).wait() == 0
    ended = [[a.get("ended") for a in the_run(directory, cell).attempts] for cell in CELLS]
    drill(
        "Slurm: scontrol requeue, scancel, finished here",
        tried=2,
        duplicated=sum(each.count("done") != 1 for each in ended),
        wrong=number_of_wrong(directory, whole),
    )
