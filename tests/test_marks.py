"""Cells that were not made as the rest of their table are marked, in every form."""

import dataclasses
import json

import pytest
from sweeps import CELLS, create_sweep, ended, markdown_of

from experiments.report import contents, data, marks
from experiments.report.formats import FORMATS
from experiments.sweep.experiment import Cell, Experiment
from shufflenet_jax.generation import GENERATION

ONE, OTHER = "a" * 40, "b" * 40
JAX = {"versions": {"jax": "1"}}


def marked(sweep):
    """The texts of marks, and on which cells they are."""
    return {mark.text: list(mark.cells) for mark in contents.of_sweep(sweep).marks}


def table(directory, **of_last):
    """Four cells of one seed, of which the last is made otherwise."""
    sweep = create_sweep(directory, seeds=1)
    for name in CELLS:
        made = {"commit": ONE, "processor": "p", **JAX} | (of_last if name == CELLS[-1] else {})
        ended(sweep, name, 0, 30.0, **made)
    return sweep


def test_a_table_made_alike_has_no_marks(tmp_path):
    assert marked(table(tmp_path)) == {}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"commit": OTHER}, "commit bbbbbbbb; most of the table: commit aaaaaaaa"),
        ({"dirty": True}, "commit aaaaaaaa with changes; most of the table: commit aaaaaaaa"),
        (
            {"dirty": True, "diff": "+ 1"},
            "commit aaaaaaaa with changes (SHA-256 9c7505ae); most of the table: commit aaaaaaaa",
        ),
        ({"commit": None}, "commit that is not known; most of the table: commit aaaaaaaa"),
        ({"versions": {"jax": "2"}}, "jax 2; most of the table: jax 1"),
        ({"processor": "q"}, "processor q; most of the table: processor p"),
        ({"device": "gpu"}, "device gpu; most of the table: device cpu"),
        (
            {"commit": OTHER, "python": "4"},
            "commit bbbbbbbb, Python 4; most of the table: commit aaaaaaaa, Python 3",
        ),
    ],
)
def test_other_code_versions_and_machines_are_marked(made, said, tmp_path):
    assert marked(table(tmp_path, **made)) == {said: [CELLS[-1]]}


def test_of_several_seeds_some_may_be_made_otherwise(tmp_path):
    sweep = create_sweep(tmp_path, seeds=2)
    for seed in (0, 1):
        for name in CELLS:
            commit = OTHER if (name, seed) == (CELLS[1], 1) else ONE
            ended(sweep, name, seed, 30.0, commit=commit)
    said = "some seeds: commit bbbbbbbb; most of the table: commit aaaaaaaa"
    assert marked(sweep) == {said: [CELLS[1]]}


def test_a_run_that_two_versions_of_the_code_trained_is_marked(tmp_path):
    sweep = table(tmp_path)
    run = sweep.run(sweep.cell(CELLS[0]), 0)
    run.record_attempt(2, run.last_attempt | {"commit": OTHER})
    said = "commit aaaaaaaa and bbbbbbbb; most of the table: commit aaaaaaaa"
    assert marked(sweep) == {said: [CELLS[0]]}


def mine(*overrides):
    """An experiment with a cell for each."""
    cells = tuple(Cell(name, row=name, column="error", overrides=each) for name, each in overrides)
    return Experiment("mine", "Mine", "", None, cells)


def test_another_budget_and_other_data_are_marked(tmp_path):
    longer, other = {"recipe.epochs": 30}, {"data.name": "cifar10"}
    cells = [("a", {}), ("b", {}), ("c", longer), ("d", other)]
    sweep = create_sweep(tmp_path, name=mine(*cells), seeds=1)
    for name, _ in cells:
        ended(sweep, name, 0, 30.0)
    assert marked(sweep) == {
        "epochs 30; most of the table: epochs 10": ["c"],
        "data cifar10; most of the table: data digits": ["d"],
    }


def test_what_a_name_says_needs_no_mark(tmp_path):
    cells = [(f"epochs={each}", {"recipe.epochs": each}) for each in (5, 10)]
    sweep = create_sweep(tmp_path, name=mine(*cells), seeds=1)
    for name, _ in cells:
        ended(sweep, name, 0, 30.0)
    assert marked(sweep) == {}


def test_runs_of_an_older_generation_enter_no_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(marks, "GENERATION", 2)
    sweep = create_sweep(tmp_path, seeds=2)
    for seed, (generation, error) in enumerate(((None, 90.0), (2, 30.0))):
        ended(sweep, CELLS[0], seed, error, generation=generation)
        ended(sweep, CELLS[1], seed, 20.0, generation=2)
    cells = {cell.name: cell for cell in contents.of_sweep(sweep).cells}
    assert (cells[CELLS[0]].errors, cells[CELLS[0]].status) == ((30.0,), "stale")
    assert cells[CELLS[1]].n == 2
    assert "30.00 (1 of 2 seeds, others stale) [56.3] (a)" in markdown_of(sweep)
    ((text, names),) = marked(sweep).items()
    assert "by code of an older generation, whose results differ" in text
    assert names == [CELLS[0]]


def test_a_table_that_this_code_would_not_make_is_marked(tmp_path, monkeypatch):
    sweep = table(tmp_path)
    assert marked(sweep) == {}
    monkeypatch.setattr(marks, "GENERATION", GENERATION + 1)
    ((text, names),) = marked(sweep).items()
    assert "by code of another generation than this code" in text
    assert names == [*CELLS]
    assert "30.00 [56.3] (a)" in markdown_of(sweep)


@pytest.mark.parametrize("form", FORMATS)
def test_marks_are_in_every_form(form, tmp_path):
    if form == "html":
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    report = contents.of_sweep(table(tmp_path, commit=OTHER), curves=True)
    said = "commit bbbbbbbb; most of the table: commit aaaaaaaa"
    assert said in FORMATS[form](report)
    unmarked = FORMATS[form](dataclasses.replace(report, marks=()))
    assert said not in unmarked
    if form == "json":
        cells = json.loads(data.as_json(report))["cells"]
        assert [cell["name"] for cell in cells if cell["marks"] == ["a"]] == [CELLS[-1]]


@pytest.mark.parametrize("form", ["json", "latex", "html"])
def test_reduced_budgets_and_lossy_copies_are_in_the_caption(form, tmp_path):
    if form == "html":
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    name = f"data.name=folder:{tmp_path}/Pets (JPEG copy)"
    report = contents.of_sweep(create_sweep(tmp_path / "run", name, "recipe.epochs=20"))
    said = "A reduced budget: folder:Pets (JPEG copy) in place of ImageNet, 20 of 240 epochs"
    text = FORMATS[form](report)
    assert said in text
    assert "The images are a lossy copy." in text


def test_the_papers_budget_is_not_reduced(tmp_path):
    paper = ("data.name=imagenet2012", "recipe.epochs=240", "recipe.preprocessing.image_size=224")
    assert contents.of_sweep(create_sweep(tmp_path, *paper)).budget_note == ""
