"""Trackers: each row once, also of runs that go on, and none that fails harms a run."""

import json
import struct
import time

import numpy as np
import pytest
import runs
from sweeps import ASSIGNMENTS, create_sweep
from tensorboardX.proto.event_pb2 import Event

from experiments import trackers
from experiments.__main__ import main
from experiments.sweep import worker
from shufflenet_jax.fit import Preempted
from shufflenet_jax.metrics import read_metrics

ROWS = [
    {"step": step, "split": split, "loss": 1.5 * step, "top1_error": 50.0}
    for step, split in ((5, "train"), (10, "train"), (10, "test"), (15, "train"), (20, "test"))
]
SETTINGS = {"network.groups": 3, "network.name": "shufflenet", "seed": 0}


def opened(names, directory):
    run = directory / "run"
    run.mkdir(exist_ok=True)
    return trackers.opened(
        names,
        run,
        experiment="table3",
        name="1x-g3-seed0",
        store=directory,
        hyperparameters=SETTINGS,
    )


def records(file):
    """Of a file of W&B, which is a log of LevelDB behind a header of 7 bytes."""
    contents, found = file.read_bytes(), b""
    place = 7
    while len(contents) - place >= 7:
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", contents, place)
        found += contents[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield found
            found = b""


def points_of_wandb(store):
    """All points that folders of a run have, and its settings."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    points, settings, ids = [], {}, set()
    for file in sorted(store.glob("wandb/offline-run-*/*.wandb")):
        for each in records(file):
            record = pb.Record.FromString(each)
            ids.add(record.run.run_id)
            for item in record.run.config.update:
                settings[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            items = {(i.key or ".".join(i.nested_key)): i.value_json for i in record.history.item}
            step = int(items.get("_step", -1))
            points += [(step, key, float(each)) for key, each in items.items() if key[0] != "_"]
    assert len(ids - {""}) == 1
    return sorted(points), settings


def points_of_mlflow(store):
    from mlflow.tracking import MlflowClient

    client = MlflowClient((store / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'table3'")
    (run,) = client.search_runs([experiment.experiment_id])
    points = [
        (each.step, key, each.value)
        for key in run.data.metrics
        for each in client.get_metric_history(run.info.run_id, key)
    ]
    return sorted(points), run


def points_of(rows):
    return sorted(
        (row["step"], f"{row['split']}/{name}", value)
        for row in rows
        for name, value in row.items()
        if name not in ("step", "split")
    )


@pytest.mark.parametrize("name", trackers.NAMES)
def test_rows_are_tracked_once_also_of_a_run_that_goes_on(name, tmp_path):
    """From a checkpoint before its last rows."""
    pytest.importorskip(name, reason=f"{name} is not installed")

    def interrupted():
        with opened(name, tmp_path) as write:
            for row in ROWS[:3]:
                write(row)
            raise Preempted(10)

    with pytest.raises(Preempted):
        interrupted()
    time.sleep(1.1)  # wandb names folders by the second
    with opened(name, tmp_path) as write:
        for row in ROWS:
            write(row)
    if name == "wandb":
        pytest.importorskip("wandb").teardown()  # as at the end of a process: all is on disk then
        points, settings = points_of_wandb(tmp_path)
        assert settings.items() >= SETTINGS.items()
    else:
        points, run = points_of_mlflow(tmp_path)
        assert run.data.params == {key: str(value) for key, value in SETTINGS.items()}
        assert (run.info.status, run.info.run_name) == ("FINISHED", "1x-g3-seed0")
    assert points == points_of(ROWS)


def test_what_mlflow_has_is_not_told_again_by_a_process_that_never_knew(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    for _ in range(2):
        with opened("mlflow", tmp_path) as write:
            for row in ROWS:
                write(row)
        kept = tmp_path / "run" / "trackers.json"
        known = json.loads(kept.read_text())
        known["mlflow"]["step"] = 5  # a crash lost what was kept after
        kept.write_text(json.dumps(known))
    assert points_of_mlflow(tmp_path)[0] == points_of(ROWS)


class Failing:
    """A tracker that fails at one of its calls."""

    def __init__(self, at):
        self._at = at

    def _fail(self, at):
        if self._at == at:
            raise OSError(28, "No space left on device")

    def open_run(self, about):
        self._fail("open")
        return self

    def write(self, row):
        self._fail("write")

    def close(self, status):
        self._fail("close")


@pytest.mark.parametrize("at", ["open", "write", "close"])
def test_a_tracker_that_fails_is_told_of_once_and_left_out(at, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers.importlib, "import_module", lambda name: Failing(at))
    with opened("mlflow", tmp_path) as write:
        for row in ROWS:
            write(row)
    assert capsys.readouterr().err == (
        "warning: tracker mlflow is left out: OSError: [Errno 28] No space left on device\n"
    )


def test_a_damaged_note_of_what_trackers_have_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib, "import_module", lambda name: Failing("never"))
    for content in ("", "null", "[]", '{"mlflow": 3}', '{"mlflow": {"key": "x", "step": null}}'):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "trackers.json").write_text(content)
        with opened("mlflow", tmp_path) as write:
            write(ROWS[0])
        assert json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]["step"] == 5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("wandbb", "unknown tracker 'wandbb'; did you mean wandb?"),
        ("mlflow,wandb", "trackers=mlflow needs mlflow: pip install -e '.[mlflow]'"),
    ],
)
def test_trackers_that_there_are_not_are_refused_before_anything_starts(
    value, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    arguments = ["run", "table3", "--workdir", str(tmp_path / "run"), "--dry-run"]
    assert main([*arguments, f"--config.trackers={value}"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def events(directory):
    """All events of a run, of all its files."""
    for path in sorted((directory / "events").iterdir()):
        contents, place = path.read_bytes(), 0
        while place < len(contents):
            (length,) = struct.unpack_from("<Q", contents, place)
            yield Event.FromString(contents[place + 12 : place + 12 + length])
            place += 16 + length


@pytest.mark.slow
def test_a_run_that_went_on_has_told_every_row_once(tmp_path):
    """A real one, to MLflow; and TensorBoard has its settings."""
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    sweep = create_sweep(tmp_path, *ASSIGNMENTS, "recipe.epochs=2", "trackers=mlflow")
    run = sweep.run(sweep.cell("0.25x-g3"), 0)
    asked = iter([False] * 20 + [True] * 1000)
    assert worker.train(sweep, run, lambda: next(asked)) == "preempted"
    assert worker.train(sweep, run) == "done"
    rows = read_metrics(run.directory)
    assert len(rows) > 5
    points, tracked = points_of_mlflow(tmp_path)
    assert points == points_of(rows)
    assert tracked.data.params["network.repeats"] == "[1, 1, 1]"
    assert tracked.data.params["seed"] == "0"
    tags = [value.tag for event in events(run.directory) for value in event.summary.value]
    assert "_hparams_/session_start_info" in tags
    settings = b"".join(
        value.metadata.plugin_data.content
        for event in events(run.directory)
        for value in event.summary.value
    )
    assert b"recipe.learning_rate" in settings


def test_a_tracker_sees_no_row_that_a_log_does_not_have(tmp_path):
    """Where a run goes on it is told the rows that there were, and then the new ones."""
    rows = []
    with pytest.raises(Preempted):
        runs.train(tmp_path, 2, on_row=rows.append, interrupted=lambda: len(rows) == 4)
    assert rows == read_metrics(tmp_path)
    again = []
    evaluation = runs.train(tmp_path, 2, on_row=again.append)
    assert again[:4] == rows
    assert again == read_metrics(tmp_path)
    assert np.isclose(again[-1]["top1_error"], evaluation.top1_error)
