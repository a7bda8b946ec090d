"""Drills on whole sweeps: real processes are killed, stopped, starved and started at once."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from runs import differences, last_step
from sweeps import (
    ASSIGNMENTS,
    CELLS,
    SHORT,
    SHRUNK,
    create_sweep,
    is_begun,
    number_of_wrong,
    start,
    start_cell,
    the_run,
    wait_until,
)

from experiments.launchers import HELD, PREEMPTED
from experiments.report import contents
from experiments.report.data import summary
from experiments.report.formats import FORMATS
from experiments.sweep import manifest
from shufflenet_jax.metrics import read_metrics

pytestmark = pytest.mark.faults

CELL = CELLS[1]
LONG = (*ASSIGNMENTS, "recipe.epochs=24", "intervals.log=1", "intervals.checkpoint=1")
"""A run that is long enough to be killed more than twenty times."""

EVALUATED = (53, 106, 158, 211, 252)
"""The steps of that run at which it is evaluated: of 24 epochs, every fifth, and the last."""


def is_idle(directory):
    return all(run.status != "running" for run in manifest.open_sweep(directory).runs())


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """A run of one cell that nothing happens to."""
    directory = tmp_path_factory.mktemp("whole")
    create_sweep(directory, *LONG)
    assert start_cell(directory).wait() == 0
    return the_run(directory)


class Moments:
    """Moments in the life of a run's process, and whether one of them has come."""

    def __init__(self, run):
        self._run = run
        self._attempts = run.num_attempts
        self._rows = len(read_metrics(run.directory))

    def start(self):
        return True

    def compiling(self):
        return self._run.num_attempts > self._attempts

    def step(self):
        return len(read_metrics(self._run.directory)) > self._rows + 2

    def saving(self):
        folder = self._run.directory / "checkpoints"
        return folder.exists() and any("tmp" in path.name for path in folder.iterdir())

    def evaluation(self):
        """The last step before an evaluation has a row, and the evaluation has none."""
        rows = read_metrics(self._run.directory)
        return (
            len(rows) > self._rows
            and rows[-1]["split"] == "train"
            and rows[-1]["step"] in EVALUATED
        )

    def marker(self):
        """The last row is written, and how the run ended is not."""
        rows = read_metrics(self._run.directory)
        return bool(rows) and rows[-1]["split"] == "test" and rows[-1]["step"] == EVALUATED[-1]


PAUSES = {
    "start": 2.0,
    "compiling": 3.0,
    "step": 0.3,
    "saving": 0.05,
    "evaluation": 0.02,
    "marker": 0,
}
"""The longest random pause between a moment and the kill, in seconds."""


def test_sigkill_at_random_moments(tmp_path, long_run, drill):
    """Also while it compiles: every third process finds nothing that was compiled before."""
    create_sweep(tmp_path / "sweep", *LONG)
    run = the_run(tmp_path / "sweep")
    random = np.random.default_rng(0)
    order = ["start", "compiling", "step", "saving", "evaluation"] * 5
    killed = Counter()
    for number, moment in enumerate([*order, "marker"]):
        environment = dict(os.environ)
        if number % 3 == 1:
            environment["XDG_CACHE_HOME"] = str(tmp_path / f"cache{number}")
        moments = Moments(run)
        process = start_cell(tmp_path / "sweep", env=environment)
        reached = wait_until(getattr(moments, moment), process)
        time.sleep(random.uniform(0, PAUSES[moment]))
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed[moment] += reached
        if run.result:  # it was too quick for the last of them
            break
    assert min(killed[moment] for moment in PAUSES if moment != "marker") >= 3, killed
    assert start_cell(tmp_path / "sweep").wait() == 0
    wrong = differences(long_run.directory, run.directory)
    tried = killed.total()
    assert tried >= 20, killed
    assert killed["marker"] == 1
    drill("SIGKILL of a run at random moments", tried=tried, wrong=len(wrong))
    same = ("status", "step", "top1_error", "top5_error", "loss", "examples")
    assert {key: run.result[key] for key in same} == {key: long_run.result[key] for key in same}


def test_sigterm_saves_the_present_step(tmp_path, long_run, drill):
    create_sweep(tmp_path, *LONG)
    run = the_run(tmp_path)
    random = np.random.default_rng(1)
    tried = lost = wrong = 0
    for moment in ["step", "evaluation", "saving", "compiling"] * 2:
        moments = Moments(run)
        process = start_cell(tmp_path)
        assert wait_until(getattr(moments, moment), process)
        time.sleep(random.uniform(0, PAUSES[moment]))
        seen = max((row["step"] for row in read_metrics(run.directory)), default=0)
        process.send_signal(signal.SIGTERM)
        wrong += process.wait() != PREEMPTED
        wrong += run.status != "preempted"
        saved = last_step(run.directory) if seen else 0
        lost += saved < seen - 1
        tried += 1
    assert start_cell(tmp_path).wait() == 0
    assert run.num_attempts == tried + 1
    wrong += len(differences(long_run.directory, run.directory))
    drill("SIGTERM of a run", tried=tried, lost=lost, wrong=wrong)


def test_the_launcher_is_killed(tmp_path, short_sweep, drill):
    """What it started ends with it, saved, and the same command goes on."""
    tried = duplicated = 0
    directory = tmp_path / "sweep"
    arguments = ("run", "table3", "--workdir", directory, *SHORT)
    for cell in CELLS:
        launcher = start(*arguments)
        begun = wait_until(partial(is_begun, directory, cell), launcher)
        time.sleep(0.5)
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        tried += bool(begun)
        wait_until(partial(is_idle, directory), seconds=60)
    assert start(*arguments).wait() == 0
    for cell in CELLS:
        ended = [attempt.get("ended") for attempt in the_run(directory, cell).attempts]
        duplicated += ended.count("done") != 1
    drill(
        "SIGKILL of the launcher",
        tried=tried,
        duplicated=duplicated,
        wrong=number_of_wrong(directory, short_sweep),
    )


def test_one_sweep_launched_four_times_at_once(tmp_path, short_sweep, drill):
    directory = tmp_path / "sweep"
    launchers = [
        start("run", "table3", "--workdir", directory, "--jobs", 1, *SHORT, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    printed = [launcher.communicate()[0].decode() for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0] * 4
    tables = {text[text.index("## Table 3") :] for text in printed}
    assert len(tables) == 1
    attempts = [the_run(directory, cell).num_attempts for cell in CELLS]
    drill(
        "One sweep launched 4 times at once",
        tried=4,
        lost=attempts.count(0),
        duplicated=sum(number > 1 for number in attempts),
        wrong=number_of_wrong(directory, short_sweep),
    )


def test_a_run_that_is_trained_elsewhere_is_left_alone(tmp_path):
    create_sweep(tmp_path, *LONG)
    owner = start_cell(tmp_path)
    assert wait_until(lambda: the_run(tmp_path).status == "running", owner)
    other = start_cell(tmp_path, stderr=subprocess.PIPE, text=True)
    _, said = other.communicate()
    assert other.returncode == HELD
    assert f":{owner.pid}) is training {CELL}-seed0" in said
    owner.kill()
    owner.wait()


def test_stop_ends_a_sweep_and_it_goes_on(tmp_path, short_sweep, drill):
    directory = tmp_path / "sweep"
    arguments = ("run", "table3", "--workdir", directory, *SHORT)
    launcher = start(*arguments, stderr=subprocess.PIPE, text=True)
    wait_until(partial(is_begun, directory, CELLS[0]), launcher)
    time.sleep(1)
    assert start("stop", "--workdir", directory).wait() == 0
    _, said = launcher.communicate(timeout=90)
    assert launcher.returncode == 1
    assert "stopped: the same command continues" in said
    states = Counter(the_run(directory, cell).status for cell in CELLS)
    assert states.keys() <= {"done", "preempted", "missing"}
    assert states["missing"] >= 1
    assert start(*arguments).wait() == 0
    wrong = number_of_wrong(directory, short_sweep)
    drill("A sweep stopped, and started again", tried=1, wrong=wrong)


def starve(process_id):
    """Leaves a process a little more memory than it has: a real allocation fails soon."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2**20
    resource.prlimit(process_id, resource.RLIMIT_AS, (most, most))


def each_attempt(run, act, until):
    """Acts on every process that trains a run, as it starts to; returns how often."""
    seen = set()
    while until.poll() is None:
        attempt = run.last_attempt
        if attempt and attempt["pid"] not in seen and run.status == "running":
            seen.add(attempt["pid"])
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                act(attempt["pid"])
        time.sleep(0.01)
    return len(seen)


def children(process_id):
    found = []
    for thread in Path(f"/proc/{process_id}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # threads come and go
            found += map(int, (thread / "children").read_text().split())
    return found


def hang(process_id):
    """Stops the processes that prepare a run's images: it waits for them until it is ended."""
    while True:  # until there is no such process any more
        for worker in children(process_id):
            os.kill(worker, signal.SIGSTOP)
        time.sleep(0.01)


CALAMITIES = {
    "A process that is killed each time": (
        lambda pid: os.kill(pid, signal.SIGKILL),
        (),
        "killed by signal 9",
    ),
    # It surfaces as many things, also as an error of a library that swallows the real one. Such an
    # error is not known as one that may pass, and ends the run at once. And a library may wait for
    # a thread that could not start, for ever.
    "Out of memory, each time": (starve, ("--config.limits.stall_minutes=0.75",), ""),
    "A run that hangs, each time": (
        hang,
        # Images that stay on the device need no processes beside the run for long.
        (
            "--config.data.workers=1",
            "--config.data.memory_gb=0",
            "--config.limits.stall_minutes=0.75",
        ),
        "no step was taken",
    ),
}


@pytest.mark.parametrize("name", CALAMITIES)
def test_a_calamity_takes_one_run_and_a_bounded_number_of_tries(name, tmp_path, drill):
    """It befalls seed 1 of 3, each time that is tried; the table is of the others and says so."""
    act, options, reason = CALAMITIES[name]
    directory = tmp_path / "sweep"
    launcher = start(
        "run", "table3", "--workdir", directory, "--cells", CELL, "--seeds", 3, *SHRUNK,
        "--config.limits.retries=1", *options, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until((directory / "sweep.json").exists, launcher)
    run = the_run(directory, seed=1)
    tried = each_attempt(run, act, launcher)
    printed = launcher.stdout.read()
    launcher.stdout.close()
    assert launcher.wait() == 1
    result = run.result
    assert result["status"] == "failed"
    assert result["transient"] or act is starve, result
    assert reason in result["reason"]
    assert run.num_attempts == tried
    assert tried == 2 or (act is starve and tried == 1 and not result["transient"])
    others = [the_run(directory, seed=seed).result["status"] for seed in (0, 2)]
    assert "(2 of 3 seeds, others failed) [55.0]" in printed
    found = summary(contents.of_sweep(manifest.open_sweep(directory)))
    (cell,) = (cell for cell in found["cells"] if cell["name"] == CELL)
    assert len(cell["errors"]) == 2
    drill(name, tried=tried, lost=others.count("failed"), wrong=others.count("diverged"))


def test_what_would_fail_again_is_not_tried_again(tmp_path, drill):
    """A loss that is not finite, and an error in the code or in what it finds."""
    wrong = 0
    assert start(
        "run", "table3", "--workdir", tmp_path / "nan", *SHORT, "--config.recipe.learning_rate=1e30"
    ).wait() == 1  # fmt: skip
    for cell in CELLS:
        run = the_run(tmp_path / "nan", cell)
        wrong += run.status != "diverged"
        wrong += run.num_attempts != 1
    directory = tmp_path / "error"
    create_sweep(directory, *ASSIGNMENTS)
    broken = the_run(directory)
    broken.directory.mkdir(parents=True)
    (broken.directory / "checkpoints").write_text("a file where a folder should be")
    assert start("run", "table3", "--workdir", directory, *SHORT).wait() == 1
    wrong += broken.status != "failed" or broken.num_attempts != 1
    wrong += sum(the_run(directory, cell).status != "done" for cell in CELLS if cell != CELL)
    drill("NaN, or an exception", tried=5, wrong=wrong)


def test_a_changed_configuration_is_refused(tmp_path, drill):
    """On the command line, in the manifest, and in a run's own directory; each names the key."""
    create_sweep(tmp_path, *LONG)
    process = start_cell(tmp_path)
    assert wait_until(Moments(the_run(tmp_path)).step, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == PREEMPTED
    wrong = 0

    def refuses(command, *named):
        done = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        _, said = done.communicate()
        return done.returncode == 2 and said.count("\n") == 1 and all(n in said for n in named)

    changed = [f"--config.{each}" for each in (*LONG, "recipe.epochs=25")]
    command = ("run", "table3", "--workdir", tmp_path, "--cells", CELL, *changed)
    wrong += not refuses(command, "recipe.epochs: 24, now 25")
    manifest = tmp_path / "sweep.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"recipe.epochs": 24', '"recipe.epochs": 25'))
    wrong += not refuses(("cell", CELL, "--workdir", tmp_path), "configuration of", "was changed")
    manifest.write_text(text)
    config = the_run(tmp_path).directory / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"recipe.epochs": 24', '"recipe.epochs": 25'))
    wrong += not refuses(("cell", CELL, "--workdir", tmp_path), "recipe.epochs: 25, now 24")
    config.write_text(text)
    drill("Another configuration on resume", tried=3, wrong=wrong)


def test_another_version_of_the_code_goes_on_and_is_recorded(tmp_path, long_run, drill):
    code = tmp_path / "code"
    root = Path(__file__).parents[1]
    subprocess.run(["git", "clone", "-q", root, code], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(
        ["git", *identity, "-C", code, "commit", "-q", "--allow-empty", "-m", "Next"], check=True
    )
    create_sweep(tmp_path / "sweep", *LONG)
    run = the_run(tmp_path / "sweep")
    process = start_cell(tmp_path / "sweep")
    assert wait_until(Moments(run).step, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == PREEMPTED
    environment = os.environ | {"PYTHONPATH": str(code)}
    assert start_cell(tmp_path / "sweep", cwd=code, env=environment).wait() == 0
    commits = [attempt["commit"] for attempt in run.attempts]
    assert len(set(commits)) == 2
    wrong = differences(long_run.directory, run.directory)
    drill("Another version of the code on resume", tried=1, wrong=len(wrong))


def test_a_workdir_that_was_moved_goes_on(tmp_path, long_run, drill):
    create_sweep(tmp_path / "here", *LONG)
    process = start_cell(tmp_path / "here")
    assert wait_until(Moments(the_run(tmp_path / "here")).step, process)
    process.kill()
    process.wait()
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert start_cell(tmp_path / "there").wait() == 0
    wrong = differences(long_run.directory, the_run(tmp_path / "there").directory)
    drill("A workdir moved between two attempts", tried=1, wrong=len(wrong))


def test_what_is_shown_to_others_names_no_place(short_sweep):
    """TensorBoard's files, metrics, results, and reports in every format."""
    run = the_run(short_sweep)
    shown = [*run.directory.glob("*.json*"), *(run.directory / "events").iterdir()]
    assert len(shown) >= 5
    sweep = manifest.open_sweep(short_sweep)
    texts = [path.read_bytes() for path in shown]
    texts += [write(contents.of_sweep(sweep, curves=True)).encode() for write in FORMATS.values()]
    assert [text for text in texts if str(short_sweep.parent).encode() in text] == []


def test_a_link_out_of_the_workdir_is_refused(tmp_path):
    create_sweep(tmp_path / "sweep", *LONG)
    run = the_run(tmp_path / "sweep")
    run.directory.parent.mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    run.directory.symlink_to(tmp_path / "outside")
    process = start_cell(tmp_path / "sweep", stderr=subprocess.PIPE, text=True)
    _, said = process.communicate()
    assert process.returncode == 2
    assert "is a symbolic link" in said
    assert list((tmp_path / "outside").iterdir()) == []


def test_names_cannot_leave_the_workdir(tmp_path):
    create_sweep(tmp_path / "sweep", *LONG)
    manifest = tmp_path / "sweep" / "sweep.json"
    content = json.loads(manifest.read_text())
    content["cells"]["../../x"] = content["cells"].pop(CELL)
    manifest.write_text(json.dumps(content))
    process = start_cell(tmp_path / "sweep", name="../../x", stderr=subprocess.PIPE, text=True)
    _, said = process.communicate()
    assert process.returncode == 2
    assert "cannot be the name of a cell" in said


def test_two_processes_of_one_cell(tmp_path, drill):
    """Over gloo; they are one run, with one lock and one record, and end together when asked to."""
    import socket

    create_sweep(tmp_path, *LONG)
    run = the_run(tmp_path)

    def begin():
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            port = listener.getsockname()[1]
        together = ("--coordinator", f"localhost:{port}", "--num-processes", 2, "--process-id")
        return [start_cell(tmp_path, *together, index) for index in range(2)]

    processes = begin()
    assert wait_until(Moments(run).step, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    wrong = [each.wait(timeout=120) for each in processes] != [PREEMPTED, PREEMPTED]
    wrong += run.status != "preempted"
    wrong += [each.wait() for each in begin()] != [0, 0]
    wrong += [attempt.get("ended") for attempt in run.attempts] != ["preempted", "done"]
    drill("SIGTERM of one of two processes of a run", tried=1, wrong=wrong)
