"""The manifest of a sweep: frozen, whole, and nothing but data."""

import dataclasses
import io
import json

import pytest
from rich.console import Console
from sweeps import ATTEMPT, configured, create_sweep

from experiments import tables
from experiments.report import board
from experiments.report import table as report
from experiments.sweep import configuration as configs
from experiments.sweep import plan, workdir
from experiments.sweep.experiment import Experiment
from shufflenet_jax import InputError

TRAINED = [name for name in tables.names() if isinstance(tables.load(name), Experiment)]


@pytest.mark.parametrize("name", TRAINED)
def test_a_cell_is_frozen_with_all_that_decides_it(name, tmp_path):
    """Whatever family it is of; and it comes back from disk as it was."""
    created = create_sweep(tmp_path, "recipe.epochs=3", name=name)
    opened = workdir.open_sweep(tmp_path)
    for cell in tables.load(name).cells:
        identity = configs.identity(configs.cell_config(created.config, cell))
        for sweep in (created, opened):
            frozen = sweep.cell(cell.name)
            assert configs.identity(configs.cell_config(sweep.config, frozen)) == identity
            assert (frozen.row, frozen.column) == (cell.row, cell.column)
            folder = f"{cell.name}-{configs.digest(identity)}"
            assert sweep.run(frozen, 2).directory == tmp_path / "cells" / folder / "seed2"


def test_other_cells_have_other_folders():
    cells = tables.load("table3").cells
    digests = {configs.digest(identity) for _, identity in configs.identities(configured(), cells)}
    assert len(digests) == len(cells)


def shrunk_experiment(**changes):
    """Table 3 as another version of its file might have it: its first cell is another one."""
    known = tables.load("table3")
    first = dataclasses.replace(known.cells[0], **changes)
    return dataclasses.replace(known, cells=(first, *known.cells[1:3]))


def test_a_sweep_keeps_its_cells_whatever_becomes_of_the_code(tmp_path):
    old = shrunk_experiment(name="gone", overrides={"network.width": 1.5})
    workdir.create(old, "digits", configured(), tmp_path)
    (tmp_path / "cells").mkdir()
    opened = workdir.open_sweep(tmp_path)
    assert [cell.name for cell in opened.cells] == [cell.name for cell in old.cells]
    assert configs.cell_config(opened.config, opened.cell("gone")).network.width == 1.5
    grown = workdir.create(tables.load("table3"), "digits", configured(), tmp_path)
    assert {cell.name for cell in grown.cells} == {
        "gone",
        *(cell.name for cell in tables.load("table3").cells),
    }
    assert grown.run(grown.cell("gone"), 0) == opened.run(opened.cell("gone"), 0)


def test_a_cell_that_the_code_has_changed_is_refused(tmp_path):
    create_sweep(tmp_path)
    (tmp_path / "cells").mkdir()
    changed = shrunk_experiment(overrides={"network.width": 1.5})
    with pytest.raises(InputError, match=r"1x-g3-noshuffle: network\.shuffle: False, now True"):
        workdir.create(changed, "digits", configured(), tmp_path)


def test_what_was_asked_for_adds_up(tmp_path):
    cells = tables.load("table3").cells
    create_sweep(tmp_path, cells=cells[:2], seeds=3)
    (tmp_path / "cells").mkdir()
    create_sweep(tmp_path, cells=cells[1:3], seeds=1)
    sweep = workdir.open_sweep(tmp_path)
    assert [len(sweep.runs_of(cell)) for cell in sweep.cells] == [3, 3, 1] + [0] * 9
    assert len(sweep.runs()) == 3 + 3 + 1 + 9  # a cell that was not asked for stands in once


def test_a_dry_sweep_writes_nothing(tmp_path):
    create_sweep(tmp_path / "sweep", dry=True)
    assert list(tmp_path.iterdir()) == []


def edit(directory, change):
    path = directory / "sweep.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rename(name):
    def change(manifest):
        manifest["cells"][name] = manifest["cells"].pop("1x-g3")

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename("../../x"), "cannot be the name of a cell"),
        (rename("a/b"), "cannot be the name of a cell"),
        (rename(".x"), "cannot be the name of a cell"),
        (lambda m: m["cells"]["1x-g3"].update(folder="../x"), "1x-g3 was changed after"),
        (lambda m: m["cells"]["1x-g3"]["config"].update({"recipe.epochs": 1}), "was changed after"),
        (lambda m: m["config"].update({"recipe.epochs": 1}), "was changed after"),
        (lambda m: m.pop("cells"), "is damaged"),
        (lambda m: m["cells"]["1x-g3"].pop("row"), "is damaged"),
        (lambda m: m.update(cells=[1]), "is damaged"),
        (lambda m: m["cells"]["1x-g3"].update(seeds="many"), "is damaged"),
        (lambda m: m.update(experiment="os"), "unknown experiment 'os'"),
        (lambda m: m.update(budget="__import__('os')"), "unknown budget"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(change, said, tmp_path):
    create_sweep(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(InputError, match=said):
        workdir.open_sweep(tmp_path)


def test_a_torn_manifest_is_refused(tmp_path):
    create_sweep(tmp_path)
    path = tmp_path / "sweep.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(InputError, match=r"sweep\.json is damaged"):
        workdir.open_sweep(tmp_path)


def test_values_are_never_evaluated():
    with pytest.raises(InputError, match="must be an integer"):
        configs.override(configured(), ["recipe.epochs=__import__('os').getpid()"])


def done(run, error):
    run.directory.mkdir(parents=True)
    counts = {"macs": 1, "macs_without_head": 1, "params": 1}
    network = {"widths": [1, 2, 3, 4], **counts}
    run.end({"status": "done", "step": 10, "top1_error": error, "network": network})


def test_a_seed_that_failed_is_in_no_mean_and_the_table_says_so(tmp_path):
    sweep = create_sweep(tmp_path, seeds=3)
    runs = sweep.runs_of(sweep.cell("1x-g3"))
    done(runs[0], 10.0)
    done(runs[2], 20.0)
    runs[1].directory.mkdir(parents=True)
    runs[1].end({"status": "failed", "step": 3, "reason": "killed", "transient": True})
    assert "15.00 ± 7.07 (2 of 3 seeds, others failed) [32.6]" in report.as_markdown(sweep)


def test_how_runs_stand_as_data(tmp_path):
    sweep = create_sweep(tmp_path, seeds=3)
    runs = sweep.runs_of(sweep.cell("1x-g3"))
    done(runs[0], 10.0)
    for run, ended in ((runs[1], {"ended": "preempted"}), (runs[2], {})):
        run.directory.mkdir(parents=True)
        run.record_attempt(1, ATTEMPT)
        run.record_attempt(2, ATTEMPT | ended)
    found = board.as_data({run: run.status for run in runs})
    assert [each["status"] for each in found] == ["done", "preempted", "interrupted"]
    assert [each["attempts"] for each in found] == [0, 2, 2]
    assert [each["step"] for each in found] == [10, 0, 0]
    assert {each["owner"] for each in found} == {None}


def test_a_long_table_lists_what_is_of_interest(tmp_path):
    sweep = create_sweep(tmp_path, seeds=30)
    runs = sweep.runs()
    done(runs[0], 10.0)
    runs[40].directory.mkdir(parents=True)
    runs[40].end({"status": "failed", "step": 3, "reason": "killed", "transient": True})
    states = {run: run.status for run in runs}
    shown = board.table(states, most=5)
    assert len(shown.rows) == 5
    assert "1 done, 358 missing, 1 failed; 5 of 360 listed" in shown.title
    assert str(next(iter(shown.columns[2].cells))) == "failed"
    assert len(board.table(states, most=360).rows) == 360


def test_a_reason_is_shown_as_it_is(tmp_path, capsys):
    """Brackets are no markup, which a table could not show."""
    sweep = create_sweep(tmp_path)
    (run, *_) = sweep.runs()
    run.directory.mkdir(parents=True)
    reason = "OSError: [Errno 28] No space [/left]"
    run.end({"status": "failed", "step": 3, "reason": reason, "transient": True})
    with board.Board(sweep.runs()) as shown:
        run.reopen()
        shown.update()
        run.end({"status": "failed", "step": 3, "reason": reason, "transient": True})
    assert f"{reason} (" in capsys.readouterr().out
    console = Console(width=300, file=io.StringIO())
    console.print(board.table({run: "failed"}))
    assert f"{reason} (" in console.file.getvalue()


def test_a_network_that_cannot_be_told_is_named(tmp_path):
    options = {"budget": "digits", "directory": tmp_path, "seeds": 1, "launcher": "local"}
    options |= {"jobs": None, "dry": True}
    told = plan.plan("table5", assignments=["network.repeats=1,1,1"], pattern="*_0.5*", **options)
    assert told.notes == [
        "network.repeats changes nothing in mobilenet_v1_0.5, shufflenet_g3_0.5x_shallow, "
        "which have no such argument"
    ]
    all_take_it = plan.plan("table3", assignments=["network.repeats=1,1,1"], pattern="*", **options)
    assert all_take_it.notes == []
