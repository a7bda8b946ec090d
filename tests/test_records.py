"""Records of runs: taken by other sweeps in place of training, refused where they do not fit."""

import contextlib
import json

import numpy as np
import pytest
from sweeps import ATTEMPT, CELLS, SHORT, create_sweep, start

from experiments.__main__ import main
from experiments.sweep import records as module
from experiments.sweep.experiment import Experiment
from experiments.sweep.grid import grid
from experiments.sweep.lock import hold
from experiments.sweep.records import Keeper, Records
from shufflenet_jax.errors import InputError
from shufflenet_jax.generation import GENERATION
from shufflenet_jax.metrics import read_metrics, write_metrics
from shufflenet_jax.predictions import NOT_ASKED, PREDICTION, read_predictions, write_predictions

NETWORK = {"widths": [1, 2, 3, 4], "macs": 1, "macs_without_head": 1, "params": 1}
RESULT = {"status": "done", "step": 20, "top1_error": 5.0, "network": NETWORK}
PREDICTIONS = np.array([(3, True), (1, False), (NOT_ASKED, False), (999, True)], PREDICTION)
DATA = {"digits": {"name": "digits", "fingerprint": "0123", "train": 100, "test": 4, "classes": 10}}


def row(step, split, loss):
    return {"step": step, "split": split, "loss": loss}


ROWS = [row(5, "train", 3.0), row(10, "train", 2.0), row(10, "test", 2.5), row(20, "test", 1.5)]


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "records")


def sweep_in(directory, *assignments, **options):
    return create_sweep(directory, *assignments, identities=DATA, seeds=2, **options)


def finished(sweep, name=CELLS[1], seed=0):
    """A run that has left what a run leaves."""
    run = sweep.run(sweep.cell(name), seed)
    run.directory.mkdir(parents=True)
    write_metrics(run.directory, ROWS)
    write_predictions(run.directory, PREDICTIONS)
    run.record_attempt(1, ATTEMPT | {"host": "secret", "diff": "- a\n+ b", "dirty": True})
    run.end(RESULT)
    return run


def rewrite(path, record):
    rest = {key: value for key, value in record.items() if key != "checksum"}
    path.write_text(json.dumps(rest | {"checksum": module._checksum(rest)}))


def test_another_table_takes_what_is_recorded(tmp_path, records):
    """By configuration, data and seed: neither the table nor the name of the cell matter."""
    sweep = sweep_in(tmp_path / "one")
    path = records.add(sweep, finished(sweep))
    axes = {"network.width": (0.25,), "network.groups": (3, 8)}
    other = Experiment("mine", "Mine", "", get_config=None, cells=grid(axes))
    second = sweep_in(tmp_path / "two", name=other)
    same, differs = (second.run(second.cell(f"width=0.25,groups={groups}"), 0) for groups in (3, 8))
    assert records.take(second, same)
    assert not records.take(second, differs)
    assert same.status == "done"
    assert same.result == RESULT | {"record": path.name}
    assert differs.status == "missing"
    assert read_metrics(same.directory) == ROWS[1:]  # with the row of training before each test
    np.testing.assert_array_equal(read_predictions(same.directory), PREDICTIONS)
    (attempt,) = same.attempts
    known = {"dirty": True, "generation": GENERATION}
    assert attempt == ATTEMPT | known  # no names of machines, no code
    assert not records.take(second, second.run(same.cell, 1))


def test_a_record_is_small_and_says_what_it_is_of(tmp_path, records):
    sweep = sweep_in(tmp_path / "one")
    run = finished(sweep)
    random = np.random.default_rng(0)
    many = np.empty(10_000, PREDICTION)
    many["predicted"], many["right"] = random.integers(0, 10, 10_000), random.random(10_000) < 0.7
    write_predictions(run.directory, many)
    path = records.add(sweep, run)
    assert path.stat().st_size < 12_000
    record = json.loads(path.read_text())
    assert record["identity"]["network.width"] == 0.25
    assert record["data"] == DATA["digits"]
    assert (record["seed"], record["generation"]) == (0, GENERATION)
    assert str(tmp_path) not in path.read_text()


def test_of_class_folders_the_path_does_not_matter(tmp_path, records):
    """But what is in them."""
    paths = []
    for number, fingerprint in enumerate(("0123", "0123", "4567")):
        name = f"folder:/somewhere/{number}/pets"
        identities = {name: DATA["digits"] | {"name": "folder:pets", "fingerprint": fingerprint}}
        sweep = create_sweep(
            tmp_path / str(number), f"data.name={name}", identities=identities, seeds=1
        )
        paths.append(records.add(sweep, finished(sweep, sweep.cells[0].name)))
    assert paths[0] is not None
    assert paths[1] is None  # there is one
    assert paths[2] is not None


def test_a_record_older_than_a_key_has_its_default(tmp_path, records):
    one, two = sweep_in(tmp_path / "one"), sweep_in(tmp_path / "two")
    path = records.add(one, finished(one))
    record = json.loads(path.read_text())
    assert record["identity"].pop("network.init") == "ours"
    rewrite(path, record)
    assert records.take(two, two.run(two.cell(CELLS[1]), 0))
    other = sweep_in(tmp_path / "three", "network.init=he")
    assert not records.take(other, other.run(other.cell(CELLS[1]), 0))


def test_only_what_was_trained_here_is_recorded(tmp_path, records):
    one, two = sweep_in(tmp_path / "one"), sweep_in(tmp_path / "two")
    run = finished(one)
    assert records.add(one, run) is not None
    assert records.add(one, run) is None  # there is one
    taken = two.run(run.cell, 0)
    records.take(two, taken)
    elsewhere = Records(tmp_path / "elsewhere")
    assert elsewhere.add(two, taken) is None
    diverged = one.run(one.cell(CELLS[0]), 0)
    diverged.directory.mkdir(parents=True)
    diverged.end({"status": "diverged", "step": 3, "reason": "the loss was not finite"})
    assert elsewhere.add(one, diverged) is None
    assert not elsewhere.directory.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 0}, "has a form that this version does not know"),
        ({"result": RESULT | {"top1_error": 1.0}}, "its checksum differs"),
        ({"generation": GENERATION - 1}, "by code whose results differ"),
        ({"identity": None}, "does not say what it is of"),
        ({"torn": True}, "cannot be read"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(change, message, tmp_path, records):
    sweep = sweep_in(tmp_path / "one")
    path = records.add(sweep, finished(sweep))
    record = json.loads(path.read_text()) | change
    if "checksum" not in message:
        rewrite(path, record)
    else:
        path.write_text(json.dumps(record))
    if "torn" in change:
        path.write_text(path.read_text()[:-9])
    other = sweep_in(tmp_path / "two")
    run = other.run(other.cell(CELLS[1]), 0)
    with pytest.raises(InputError, match=message) as raised:
        records.take(other, run)
    assert str(path) in str(raised.value)
    assert run.status == "missing"


@pytest.mark.parametrize("change", [{"seed": 1}, {"data": {}}, {"network.groups": 3}])
def test_a_record_that_was_changed_to_be_of_another_run_is_none_of_it(change, tmp_path, records):
    sweep, other = sweep_in(tmp_path / "one"), sweep_in(tmp_path / "two")
    path = records.add(sweep, finished(sweep, CELLS[3]))
    record = json.loads(path.read_text())
    if "network.groups" in change:
        change = {"identity": record["identity"] | change}
    path.write_text(json.dumps(record | change))
    assert not records.take(other, other.run(other.cell(CELLS[3]), 0))
    for name, seed in ((CELLS[3], 1), (CELLS[1], 0)):
        run = other.run(other.cell(name), seed)
        with contextlib.suppress(InputError):  # by its checksum
            assert not records.take(other, run)
        assert run.status == "missing"


def test_a_run_that_was_begun_is_left_alone(tmp_path, records):
    one, two = sweep_in(tmp_path / "one"), sweep_in(tmp_path / "two")
    records.add(one, finished(one))
    run = two.run(two.cell(CELLS[1]), 0)
    run.directory.mkdir(parents=True)
    with hold(run.lock):
        assert not records.take(two, run)
    run.record_attempt(1, ATTEMPT)
    assert run.status == "interrupted"
    assert not records.take(two, run)
    assert run.result is None


def test_a_keeper_records_runs_as_they_end(tmp_path, records, monkeypatch):
    sweep = sweep_in(tmp_path / "one")
    runs = [sweep.run(sweep.cell(name), 0) for name in CELLS]
    keeper = Keeper(records, sweep, runs)
    assert keeper.take() == 0
    with contextlib.suppress(KeyboardInterrupt), keeper:
        finished(sweep, CELLS[0])
        keeper.look()  # too soon after the first
        assert not records.directory.exists()
        monkeypatch.setattr(module, "_LOOK_SECONDS", 0)
        keeper.look()
        assert len(list(records.directory.iterdir())) == 1
        finished(sweep, CELLS[1])
        raise KeyboardInterrupt
    assert len(list(records.directory.iterdir())) == 2
    other = sweep_in(tmp_path / "two")
    assert Keeper(records, other, [other.run(run.cell, 0) for run in runs]).take() == 2


def test_a_report_needs_neither_the_sweep_nor_the_data(tmp_path, records, capsys):
    """Of all seeds that there are of each cell."""
    sweep = sweep_in(tmp_path / "one")
    for name, seeds in ((CELLS[0], (0, 1)), (CELLS[1], (1,))):
        for seed in seeds:
            records.add(sweep, finished(sweep, name, seed))
    arguments = ["report", "table3", "--records", str(records.directory), "--format", "json"]
    assert main(arguments) == 0
    cells = {cell["name"]: cell for cell in json.loads(capsys.readouterr().out)["cells"]}
    assert cells[CELLS[0]]["errors_of_seeds"] == [0, 1]
    assert cells[CELLS[1]]["errors_of_seeds"] == [1]
    assert cells[CELLS[1]]["status"] == "missing"  # seed 0
    assert cells[CELLS[2]]["status"] == "not planned"
    assert main([*arguments, "--config.recipe.epochs=11"]) == 0
    assert all(not each["n"] for each in json.loads(capsys.readouterr().out)["cells"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a report is of --workdir DIR, or of an experiment and --records DIR"),
        (["--records", "{}"], "which experiment?"),
        (["table1", "--records", "{}"], "table1 trains nothing"),
        (["table3", "--records", "{}/none"], "there is no directory of records"),
        (["table3", "--workdir", "{}"], "leave the name out"),
        (["table3", "--workdir", "{}", "--records", "{}"], "a report is of --workdir DIR, or"),
    ],
)
def test_what_a_report_cannot_be_of(arguments, message, tmp_path, capsys):
    given = [each.format(tmp_path) for each in arguments]
    assert main(["report", *given]) == 2
    assert message in capsys.readouterr().err


def test_other_data_of_one_name_are_not_mixed(tmp_path, records):
    one = sweep_in(tmp_path / "one")
    records.add(one, finished(one))
    changed = {"digits": DATA["digits"] | {"fingerprint": "4567"}}
    two = create_sweep(tmp_path / "two", identities=changed, seeds=2)
    records.add(two, finished(two, seed=1))
    with pytest.raises(InputError, match="is of other data of the name digits"):
        records.recall(create_sweep(tmp_path / "three", seeds=0))


@pytest.mark.slow
def test_what_one_command_trains_another_takes(tmp_path, capfd):
    arguments = [*SHORT, "--records", str(tmp_path / "records"), "--seeds", "1"]
    arguments[1] = "0.25x-g3*"
    first = start("run", "table3", "--workdir", tmp_path / "one", *arguments)
    assert first.wait() == 0
    capfd.readouterr()
    assert main(["run", "table3", "--workdir", str(tmp_path / "two"), *arguments]) == 0
    printed = capfd.readouterr().out
    assert "2 runs are taken from" in printed
    assert "0 to train" in printed
    reports = []
    for name in ("one", "two"):
        assert main(["report", "--workdir", str(tmp_path / name)]) == 0
        reports.append(capfd.readouterr().out)
    assert reports[0] == reports[1]
