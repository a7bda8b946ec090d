"""A run on disk: what is damaged of it is told, and ends no one else's report."""

import io
import json

import pytest
from rich.console import Console
from sweeps import ATTEMPT, create_sweep, markdown_of

from experiments.report import standing
from experiments.report.overview import overview
from experiments.sweep import launch
from experiments.sweep.run import Run

NETWORK = {"widths": [1, 2, 3, 4], "macs": 1, "macs_without_head": 1, "params": 1}
DONE = {"status": "done", "step": 10, "top1_error": 5.0, "network": NETWORK}
FAILED = {"status": "failed", "step": 3, "reason": "killed", "transient": True}
PROGRESS = {"step": 5, "total": 10, "loss": 1.5, "rate": 2.0}

NO_JSON = [b"", b"\0" * 99, b"\xff" * 9, b'{"status": "do', b"[" * 100_000]
ANOTHER = ["null", "[]", "3", '"done"', "{}"]
"""What a file may hold that is not what belongs into it."""


def without(content, *keys):
    return [{k: v for k, v in content.items() if k != key} for key in keys]


def others(content, **values):
    return [content | {key: value} for key, each in values.items() for value in each]


HUGE = 10**400  # JSON has such integers, and no float is as large
NO_NUMBER = (None, "5", [5], True, float("nan"), float("inf"), HUGE)
RESULTS = [
    *without(DONE, "status", "step", "top1_error"),
    *without(FAILED, "status", "step", "reason"),
    *others(DONE, status=("ended", "missing", "running", None, 3, ["done"])),
    *others(DONE, top1_error=(*NO_NUMBER, -1.0, 100.5), step=(None, "5", -1, 1.5, True, HUGE)),
    *others(DONE, network=([], "x", {}, *without(NETWORK, *NETWORK))),
    *others(DONE, network=others(NETWORK, widths=(None, 3, ["a"]), macs=(None, 1.5, "1", HUGE))),
    *others(FAILED, reason=(None, 3, ["x"]), step=(None, "5"), transient=(None, "yes")),
]
ATTEMPTS = [
    *without(ATTEMPT, *ATTEMPT),
    *others(ATTEMPT, pid=("1", None), cores=("1", None), processor=(None, 3), device=(None,)),
    *others(ATTEMPT, versions=(None, [], {"jax": 3}), commit=(3, []), ended=(3,), diff=(3,)),
]
PROGRESSES = [
    *without(PROGRESS, *PROGRESS),
    *others(PROGRESS, step=(None, "5"), total=(None, HUGE), loss=(None, "nan", HUGE)),
    *others(PROGRESS, rate=(*NO_NUMBER, 1e-320, -1.0)),
    *others(PROGRESS, waiting=(*NO_NUMBER, -0.1, 1.1)),
]


def contents(*records):
    return [*NO_JSON, *(text.encode() for text in (*ANOTHER, *map(json.dumps, records)))]


@pytest.fixture
def run(tmp_path):
    sweep = create_sweep(tmp_path, dry=True)
    made = Run(sweep.cells[0], 0, tmp_path / "run")
    made.directory.mkdir()
    return made


def put(run, name, content):
    path = run.directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "whole", [DONE, FAILED, DONE | {"network": None}, *without(DONE, "network")]
)
def test_a_result_is_read_as_it_was_written(run, whole):
    run.end(whole)
    assert (run.status, run.result, run.damage) == (whole["status"], whole, None)


def test_a_damaged_result_is_told_and_set_aside(run):
    run.record_attempt(1, ATTEMPT | {"ended": "done"})
    for content in contents(*RESULTS):
        path = put(run, "result.json", content)
        assert (run.status, run.result) == ("damaged", None), content
        assert str(path) in run.damage
        run.reopen()
        assert (run.status, run.damage) == ("interrupted", None)
        assert path.with_name("result.json.damaged").read_bytes() == content
        path.with_name("result.json.damaged").unlink()


def test_a_process_that_dies_before_it_sets_a_damaged_result_aside_loses_it_not(run):
    put(run, "result.json", b"torn")
    launch.record_death(run, 1)
    assert run.status == "failed"
    assert (run.directory / "result.json.damaged").read_bytes() == b"torn"


def test_a_damaged_attempt_is_told(run):
    run.record_attempt(1, ATTEMPT)
    for content in contents(*ATTEMPTS):
        path = put(run, "attempts/0002.json", content)
        assert (run.status, run.last_attempt, run.attempts) == ("damaged", None, [ATTEMPT]), content
        assert str(path) in run.damage
        assert run.num_attempts == 2
    run.end(DONE)
    assert run.status == "done"
    assert str(path) in run.damage


def test_damaged_progress_is_none(run):
    run.record_attempt(1, ATTEMPT)
    put(run, "progress.json", json.dumps(PROGRESS).encode())
    assert (run.progress, run.damage) == (PROGRESS | {"waiting": 0.0}, None)
    for content in contents(*PROGRESSES):
        path = put(run, "progress.json", content)
        assert not any(run.progress.values()), content
        assert run.status == "interrupted"
        assert str(path) in run.damage


def test_a_loss_that_is_no_number_is_no_damage(run):
    put(run, "progress.json", json.dumps(PROGRESS | {"loss": float("nan")}).encode())
    assert run.progress["step"] == 5
    assert run.damage is None


@pytest.mark.parametrize("lock", [b"", b"null", b"[]", b"{}", b'{"token": "../../x"}', b"\xff"])
def test_a_damaged_lock_is_held_until_it_is_stale(run, lock):
    put(run, "lock", lock)
    assert run.status == "running"
    assert isinstance(run.owner, str)


@pytest.mark.parametrize("name", ["result.json", "attempts/0001.json", "progress.json"])
def test_a_folder_in_the_place_of_a_file_is_told(run, name):
    run.record_attempt(1, ATTEMPT)
    (run.directory / name).unlink(missing_ok=True)
    (run.directory / name).mkdir()
    assert run.status == ("interrupted" if name == "progress.json" else "damaged")
    assert name in run.damage
    run.reopen()
    assert (run.directory / "result.json.damaged").is_dir() == (name == "result.json")


def test_a_file_in_the_place_of_a_run_is_told(tmp_path):
    sweep = create_sweep(tmp_path, dry=True)
    (tmp_path / "run").write_text("")
    run = Run(sweep.cells[0], 0, tmp_path / "run")
    assert (run.status, run.result, run.attempts) == ("damaged", None, [])
    assert "run/result.json cannot be read: Not a directory" in run.damage


@pytest.mark.parametrize("content", [b"", b"null", b"{}"])
def test_one_runs_damage_is_a_row_of_the_report(content, tmp_path):
    sweep = create_sweep(tmp_path, seeds=2)
    for each in sweep.runs():
        each.directory.mkdir(parents=True)
        each.end(DONE)
        each.record_attempt(1, ATTEMPT)
    lost, unsure, *_ = sweep.runs_of(sweep.cell("1x-g3")) + sweep.runs_of(sweep.cell("1x-g8"))
    put(lost, "result.json", content)
    put(unsure, "attempts/0001.json", content)
    states = {each: each.status for each in sweep.runs()}
    assert [each for each, state in states.items() if state != "done"] == [lost]
    found = {(each["name"], each["seed"]): each["status"] for each in standing.as_data(states)}
    assert found["1x-g3", 0] == "damaged"
    console = Console(width=80, file=io.StringIO())
    console.print(overview(states, None, width=80, height=8))
    assert "1x-g3 0 damaged" in " ".join(console.file.getvalue().split())
    shown = markdown_of(sweep)
    assert "5.00 (1 of 2 seeds, others damaged)" in shown
    assert "22 runs trained on none" in shown  # of 24, but for the two
