"""The manifest of a sweep: frozen, whole, and nothing but data."""

import dataclasses
import functools
import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from sweeps import ASSIGNMENTS, ATTEMPT, configured, create_sweep, markdown_of

from experiments import tables
from experiments.__main__ import main
from experiments.report import board, contents, standing
from experiments.report.formats import FORMATS
from experiments.report.overview import overview
from experiments.sweep import build, manifest, plan
from experiments.sweep import configuration as configs
from experiments.sweep.experiment import Experiment
from experiments.sweep.identity import digest
from shufflenet_jax import InputError

TRAINED = [name for name in tables.names() if isinstance(tables.load(name), Experiment)]


@pytest.mark.parametrize("name", TRAINED)
def test_a_cell_is_frozen_with_all_that_decides_it(name, tmp_path):
    """Whatever family it is of; and it comes back from disk as it was."""
    created = create_sweep(tmp_path, "recipe.epochs=3", name=name)
    opened = manifest.open_sweep(tmp_path)
    for cell in tables.load(name).cells:
        config = configs.with_values(configured("recipe.epochs=3"), cell.overrides)
        identity = configs.identity(config)
        for sweep in (created, opened):
            frozen = sweep.cell(cell.name)
            assert sweep.entries[frozen.name].values == identity
            assert (frozen.row, frozen.column) == (cell.row, cell.column)
            folder = f"{cell.name}-{digest(identity)}"
            assert sweep.run(frozen, 2).directory == tmp_path / "cells" / folder / "seed2"


def test_other_cells_have_other_folders():
    cells = tables.load("table3").cells
    digests = {digest(identity) for _, identity in configs.identities(configured(), cells)}
    assert len(digests) == len(cells)


def shrunk_experiment(**changes):
    """Table 3 as another version of its file might have it: its first cell is another one."""
    known = tables.load("table3")
    first = dataclasses.replace(known.cells[0], **changes)
    return dataclasses.replace(known, cells=(first, *known.cells[1:3]))


def test_a_sweep_keeps_its_cells_whatever_becomes_of_the_code(tmp_path):
    old = shrunk_experiment(name="gone", overrides={"network.width": 1.5})
    create_sweep(tmp_path, name=old)
    (tmp_path / "cells").mkdir()
    opened = manifest.open_sweep(tmp_path)
    assert [cell.name for cell in opened.cells] == [cell.name for cell in old.cells]
    assert opened.values_of(opened.cell("gone"))["network.width"] == 1.5
    grown = create_sweep(tmp_path)
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
        create_sweep(tmp_path, name=changed)


MANIFESTS = Path(__file__).with_name("manifests")
"""Sweeps of one cell that older code has trained, without their checkpoints."""


@pytest.fixture
def older(request, tmp_path):
    return shutil.copytree(MANIFESTS / request.param, tmp_path / "sweep")


@pytest.mark.parametrize("older", ["before-clip-norm", "renamed-key"], indirect=True)
def test_a_sweep_of_older_code_is_shown(older, capsys):
    assert main(["report", "--workdir", str(older)]) == 0
    printed = capsys.readouterr().out
    assert "| ShuffleNet 0.25x (g=3) | not planned [56.3] |       83.52 [55.0] |" in printed
    assert "|    12/60/120/240 |          0.07 |" in printed
    assert main(["status", "--workdir", str(older), "--json"]) == 0
    assert [cell["status"] for cell in json.loads(capsys.readouterr().out)["cells"]] == ["done"]


@pytest.mark.parametrize("older", ["before-clip-norm"], indirect=True)
def test_a_key_that_is_newer_than_a_sweep_has_its_default(older):
    known = manifest.open_sweep(older)
    cell = known.cell("0.25x-g3")
    assert "recipe.clip_norm" not in known.values_of(cell)
    assert build.recipe_of(known.values_of(cell)).clip_norm == 0
    assert known.run(cell, 0).status == "done"
    # It goes on, with the folders it had, and cells that are asked for now.
    grown = create_sweep(older, *ASSIGNMENTS, wanted=["0.25x-g3", "0.25x-g8"], seeds=2)
    assert grown.run(cell, 0) == known.run(cell, 0)
    assert [run.name for run in manifest.open_sweep(older).runs()] == [
        "0.25x-g3-seed0",
        "0.25x-g3-seed1",
        "0.25x-g8-seed0",
        "0.25x-g8-seed1",
    ]
    with pytest.raises(InputError, match=r"\(recipe\.clip_norm: 0\.0, now 1\.0\)"):
        create_sweep(older, *ASSIGNMENTS, "recipe.clip_norm=1.0")


@pytest.mark.parametrize("older", ["renamed-key"], indirect=True)
def test_a_key_that_this_version_does_not_have_is_named_where_it_matters(older, capsys):
    sweep = manifest.open_sweep(older)
    with pytest.raises(InputError, match=r"no configuration key recipe\.smoothing"):
        build.recipe_of(sweep.values_of(sweep.cell("0.25x-g8")))
    with pytest.raises(InputError, match=r"recipe\.smoothing: 0\.0, which this version does not"):
        create_sweep(older, *ASSIGNMENTS)
    sweep.run(sweep.cell("0.25x-g3"), 0).reopen()
    assert main(["cell", "0.25x-g3", "--workdir", str(older)]) != 0
    assert "recipe.smoothing" in capsys.readouterr().err


def test_data_that_have_changed_are_refused_by_name(tmp_path):
    planned = {"name": "pets", "version": "", "fingerprint": "aa", "train": 5}
    create_sweep(tmp_path, identities={"digits": planned})
    (tmp_path / "cells").mkdir()
    create_sweep(tmp_path, identities={"digits": planned})
    for key, value in (("version", "2"), ("fingerprint", "bb"), ("train", 6)):
        with pytest.raises(InputError, match=rf"pets has changed .*\({key} {planned[key]!r}, now"):
            create_sweep(tmp_path, identities={"digits": planned | {key: value}})


def test_what_was_asked_for_adds_up(tmp_path):
    cells = tables.load("table3").cells
    create_sweep(tmp_path, wanted=[cell.name for cell in cells[:2]], seeds=3)
    (tmp_path / "cells").mkdir()
    create_sweep(tmp_path, wanted=[cell.name for cell in cells[1:3]], seeds=1)
    sweep = manifest.open_sweep(tmp_path)
    assert [len(sweep.runs_of(cell)) for cell in sweep.cells] == [3, 3, 1] + [0] * 9
    assert len(sweep.runs()) == 3 + 3 + 1  # and no cell that was not asked for


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
    ],
)
def test_a_manifest_that_was_changed_is_refused(change, said, tmp_path):
    create_sweep(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(InputError, match=said):
        manifest.open_sweep(tmp_path)


def test_what_a_manifest_names_is_only_shown(tmp_path):
    """An experiment and a budget are texts: whatever they are, nothing is looked up by them."""
    create_sweep(tmp_path)
    edit(tmp_path, lambda m: m.update(experiment="os", budget="__import__('os')", title=None))
    sweep = manifest.open_sweep(tmp_path)
    assert (sweep.experiment, sweep.budget) == ("os", "__import__('os')")
    assert markdown_of(sweep).startswith("## os\n")


NOTHINGS = (None, [], {}, "", "x", 3, [None], {"x": None})


def places(value, depth=3):
    """Every place in JSON, as a list of keys."""
    if isinstance(value, dict) and depth:
        for key, each in value.items():
            yield [key]
            yield from ([key, *rest] for rest in places(each, depth - 1))


@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"html"}))  # whose figures take minutes
def test_whatever_a_manifest_lacks_a_report_is_made_or_refused(form, tmp_path):
    """Each part taken away, and replaced by each kind of nothing."""
    sweep = create_sweep(
        tmp_path,
        identities={"digits": {"classes": 10, "fingerprint": "aa"}},
        wanted=["1x-g3"],
        networks={"1x-g3": {"widths": [1], "macs": 2, "macs_without_head": 1, "params": 3}},
    )
    done(sweep.run(sweep.cell("1x-g3"), 0), 10.0)
    path = tmp_path / "sweep.json"
    whole = json.loads(path.read_text())
    others = [name for name in whole["cells"] if name != "1x-g3"]
    for name in others:
        del whole["cells"][name]
    refused = 0
    for *above, last in places(whole):
        for value in (..., *NOTHINGS):
            changed = json.loads(json.dumps(whole))
            holder = functools.reduce(lambda part, key: part[key], above, changed)
            if value is ...:
                del holder[last]
            else:
                holder[last] = value
            path.write_text(json.dumps(changed))
            try:
                opened = manifest.open_sweep(tmp_path)
                FORMATS[form](contents.of_sweep(opened, curves=True))
                standing.as_data({run: run.status for run in opened.runs()})
            except InputError:
                refused += 1
    assert refused > 50


def test_a_torn_manifest_is_refused(tmp_path):
    create_sweep(tmp_path)
    path = tmp_path / "sweep.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(InputError, match=r"sweep\.json is damaged"):
        manifest.open_sweep(tmp_path)


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
    assert "15.00 ± 7.07 (2 of 3 seeds, others failed) [32.6]" in markdown_of(sweep)


def test_how_runs_stand_as_data(tmp_path):
    sweep = create_sweep(tmp_path, seeds=3)
    runs = sweep.runs_of(sweep.cell("1x-g3"))
    done(runs[0], 10.0)
    for run, ended in ((runs[1], {"ended": "preempted"}), (runs[2], {})):
        run.directory.mkdir(parents=True)
        run.record_attempt(1, ATTEMPT)
        run.record_attempt(2, ATTEMPT | ended)
    found = standing.as_data({run: run.status for run in runs})
    assert [each["status"] for each in found] == ["done", "preempted", "interrupted"]
    assert [each["attempts"] for each in found] == [0, 2, 2]
    assert [each["step"] for each in found] == [10, 0, 0]
    assert {each["owner"] for each in found} == {None}


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
    console.print(overview({run: "failed"}, None, width=300, whole=True))
    assert f"{reason} (" in console.file.getvalue()


def test_a_network_that_cannot_be_told_is_named(tmp_path):
    def told(name, pattern):
        return plan.plan(
            plan.Request(
                tables.load(name),
                budget="digits",
                assignments=["network.repeats=1,1,1"],
                directory=tmp_path,
                pattern=pattern,
                dry=True,
            )
        ).notes

    assert told("table5", "*_0.5*") == [
        "network.repeats changes nothing in mobilenet_v1_0.5, shufflenet_g3_0.5x_shallow, "
        "which have no such argument"
    ]
    assert told("table3", "0.25x-g3") == []
