"""A sweep at a glance: what is shown at which size of a terminal, and the time that is left."""

import io
import json
from contextlib import ExitStack

import pytest
from rich.console import Console
from sweeps import ATTEMPT, create_sweep

from experiments.report.overview import overview
from experiments.report.pace import Pace, shown
from experiments.sweep.lock import hold

REASON = "OSError: [Errno 28] No space left on device: 'a/very/long/path/to/a/checkpoint'"


def lines(states, width, height, left=None, **options):
    console = Console(width=width, file=io.StringIO())
    console.print(overview(states, left, width=width, height=height, **options))
    return console.file.getvalue().rstrip("\n").split("\n")


def finish(run, seconds=10.0, **result):
    run.directory.mkdir(parents=True)
    run.record_attempt(1, ATTEMPT | {"ended": "done", "seconds": seconds})
    run.end({"status": "done", "step": 10, "top1_error": 5.0} | result)


def progress(run, step, total, rate):
    run.directory.mkdir(parents=True)
    known = {"step": step, "total": total, "loss": 1.0, "rate": rate}
    (run.directory / "progress.json").write_text(json.dumps(known))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The states of 300 runs: two failed, three run, half are done."""
    sweep = create_sweep(tmp_path_factory.mktemp("many"), name="table2", seeds=20)
    runs = sweep.runs()
    states = dict.fromkeys(runs, "missing")
    for run in runs[:150]:
        finish(run)
        states[run] = "done"
    for run in (runs[7], runs[31]):
        run.end({"status": "failed", "step": 3, "reason": REASON, "transient": True})
        states[run] = "failed"
    for run in runs[150:153]:
        progress(run, 5, 10, 2.0)
        states[run] = "running"
    return states


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("height", [15, 24, 50])
def test_it_fits_and_has_totals_failures_what_runs_and_rows(many, width, height):
    found = lines(many, width, height, left=3600.0)
    assert len(found) <= height
    assert max(map(len, found)) <= width
    assert "150 of 300" in found[0]
    assert found[1].startswith("2 failed, 3 running, 147 missing, 148"[: width - 1])
    text = "\n".join(found)
    assert text.index("1x-g1 ") < text.index("0.5x-g3 ") < text.index("ShuffleNet 1x")
    for row in ("ShuffleNet 1x", "ShuffleNet 0.5x", "ShuffleNet 0.25x"):
        assert row in text or "more rows" in text
    if width >= 80:
        assert "left: 1:00:00" in found[0]
    if width >= 80 and height >= 24:
        (row,) = (line for line in found if line.startswith("ShuffleNet 0.5x"))
        assert "50/100" in row
        assert row.rstrip().endswith(">")


def test_few_runs_are_listed_one_by_one_with_what_failed_first(tmp_path):
    sweep = create_sweep(tmp_path)
    states = dict.fromkeys(sweep.runs(), "missing")
    *_, last = states
    last.directory.mkdir(parents=True)
    last.end({"status": "failed", "step": 3, "reason": REASON, "transient": True})
    found = lines(states | {last: "failed"}, 80, 24)
    assert len(found) == 3 + 1 + 12
    assert found[4].startswith(f"{last.cell.name} ")
    assert "No space" in found[4]


def test_what_is_printed_once_is_whole(many):
    text = "".join(line.strip() for line in lines(many, 200, 200, whole=True))
    assert REASON.replace(" ", "") in text.replace(" ", "")


def test_time_left_is_by_runs_of_the_same_cell_row_or_table(tmp_path):
    sweep = create_sweep(tmp_path, seeds=2)
    pace = Pace()
    states = {run: run.status for run in sweep.runs()}
    assert pace.seconds_left(states) is None
    cells = {name: sweep.runs_of(sweep.cell(name)) for name in ("1x-g3", "1x-g8", "0.5x-g3")}
    finish(cells["1x-g3"][0], seconds=30.0)
    finish(cells["1x-g8"][0], seconds=10.0)
    waiting = {run: "done" for each in cells.values() for run in each[:1] if run.result}

    def left(*runs):
        return pace.seconds_left(waiting | dict.fromkeys(runs, "missing"))

    assert left(cells["1x-g3"][1]) == 30.0
    assert left(cells["1x-g8"][1]) == 10.0
    assert left(sweep.run(sweep.cell("1x-g3-noshuffle"), 0)) == 30.0  # of its row
    assert left(cells["0.5x-g3"][1]) == 20.0
    assert left(*(each[1] for each in cells.values())) == 60.0
    assert left() == 0.0


def test_time_left_is_shared_by_what_runs_at_once(tmp_path):
    sweep = create_sweep(tmp_path, seeds=3)
    runs = sweep.runs_of(sweep.cell("1x-g3"))
    with ExitStack() as stack:
        for run in runs[:2]:
            progress(run, 60, 100, 2.0)
            stack.enter_context(hold(run.lock))
        states = {run: run.status for run in runs}
        assert list(states.values()) == ["running", "running", "missing"]
        # 20 s of each that runs, and 50 of the one that waits, two at a time.
        assert Pace().seconds_left(states) == pytest.approx(45.0)
        # One that runs alone takes its time, however many there are.
        assert Pace().seconds_left(dict(list(states.items())[:2])) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "not known yet"), (0, "0:00"), (61.9, "1:01"), (3661, "1:01:01"), (90_000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert shown(seconds) == text
