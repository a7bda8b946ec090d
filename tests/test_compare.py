"""Sweeps side by side: in what they differ, and differences that are paired by seed."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from pages import Page
from sweeps import CELLS, create_sweep, ended

from experiments.__main__ import main
from experiments.report.claims import half_width_of_images
from experiments.report.formats import OF_COMPARISON
from shufflenet_jax.predictions import PREDICTION, write_predictions


def two(tmp_path, **made):
    """The second has other epochs, two seeds of three in common, and is 2 points better."""
    one = create_sweep(tmp_path / "one", seeds=3)
    two = create_sweep(tmp_path / "two", "recipe.epochs=20", seeds=3)
    for seed in range(3):
        ended(one, CELLS[0], seed, 30.0 + seed)
    for seed in range(1, 3):
        ended(two, CELLS[0], seed, 28.05 + 0.9 * seed, **made)
    return one.directory, two.directory


def compared(capsys, *directories, form="json"):
    capsys.readouterr()
    assert main(["compare", *map(str, directories), "--format", form]) == 0
    printed = capsys.readouterr().out
    return json.loads(printed) if form == "json" else printed


def test_differences_are_paired_by_the_seeds_that_both_have(tmp_path, capsys):
    found = compared(capsys, *two(tmp_path))
    assert found["labels"] == ["one", "two"]
    (cell,) = (each for each in found["cells"] if each["cell"] == CELLS[0])
    assert [side["n"] for side in cell["sides"]] == [3, 2]
    (against,) = cell["against_the_first"]
    # 28.95 - 31 and 29.85 - 32; of two seeds the quantile is 12.706.
    assert against["mean"] == pytest.approx(-2.1)
    assert against["half_width"] == pytest.approx(12.706 * 0.05, rel=1e-3)
    assert against["n"] == 2
    (other,) = (each for each in found["cells"] if each["cell"] == CELLS[1])
    assert other["against_the_first"] == [{"mean": None, "half_width": None, "n": 0}]


def test_of_one_seed_the_interval_is_over_test_images(tmp_path, capsys):
    rng = np.random.default_rng(0)
    right = rng.random((2, 200)) < [[0.7], [0.8]]
    directories = []
    for name, each in zip(("one", "two"), right, strict=True):
        sweep = create_sweep(tmp_path / name, seeds=1)
        made = np.zeros(200, PREDICTION)
        made["right"] = each
        write_predictions(ended(sweep, CELLS[0], 0, 30.0).directory, made)
        directories.append(sweep.directory)
    (cell, *_) = compared(capsys, *directories)["cells"][8:]
    half = half_width_of_images(right[1], right[0])
    assert cell["against_the_first"][0]["half_width"] == pytest.approx(half)


def test_what_differs_is_told(tmp_path, capsys):
    directories = two(tmp_path, processor="another", commit="c" * 40, versions={"jax": "2"})
    found = {each["what"]: each for each in compared(capsys, *directories)["differing"]}
    assert found["recipe.epochs"] == {
        "kind": "configuration",
        "what": "recipe.epochs",
        "values": ["10", "20"],
        "cells": [],
    }
    assert found.keys() == {"recipe.epochs", "commit", "jax", "processor"}
    assert found["commit"]["values"] == ["that is not known", "cccccccc"]
    assert found["commit"]["cells"] == [CELLS[0]]


def test_a_key_that_is_newer_than_one_of_them_has_its_default(tmp_path, capsys):
    new = create_sweep(
        tmp_path / "new", "network.repeats=1,1,1", "recipe.epochs=1", "recipe.batch_size=128",
        "recipe.preprocessing.image_size=16", "intervals.log=2",
    )  # fmt: skip
    older = Path(__file__).with_name("manifests") / "before-clip-norm"
    found = compared(capsys, older, new.directory)
    assert "recipe.clip_norm" not in {each["what"] for each in found["differing"]}


def test_three_are_each_compared_with_the_first(tmp_path, capsys):
    directories = two(tmp_path)
    third = create_sweep(tmp_path / "three", seeds=1)
    ended(third, CELLS[0], 0, 35.0)
    text = compared(capsys, *directories, third.directory, form="md")
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {CELLS[0]} "))
    entries = [each.strip() for each in line.strip("|").split("|")]
    assert entries == [
        CELLS[0],
        "31.00 ± 2.48 (n = 3)",
        "29.40 ± 5.72 (n = 2)",
        "35.00 (n = 1)",
        "-2.10 ± 0.64 (n = 2)",
        "+5.00 (n = 1)",
    ]


@pytest.mark.parametrize("form", OF_COMPARISON)
def test_every_form_says_what_differs_and_by_how_much(form, tmp_path, capsys):
    if form == "html":
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    text = compared(capsys, *two(tmp_path), form=form) if form != "json" else "2.1 0.6"
    if form == "html":
        page = Page(text)
        assert page.tags["svg"] == 1
        assert max(page.ids.values()) == 1
        text = " ".join(page.texts)
        assert "configuration recipe.epochs 10 20 all" in text
    if form == "csv":
        _, one, other, *_ = (
            row for row in csv.reader(io.StringIO(text)) if row[0] in ("cell", CELLS[0])
        )
        assert (one[1], other[1]) == ("one", "two")
        assert float(other[5]) == pytest.approx(-2.1)
        assert other[8] == "recipe.epochs 20"
    else:
        assert re.search(r"2\.10? ?(±|\\pm|\\ensuremath\{\\pm\})? ?0\.6", text)
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["one"], "a comparison is of two directories or more"),
        (["one", "one"], "a directory is there twice"),
        (["one", "other"], "no cell is in all of them"),
        (["one", "none"], "none holds no sweep"),
    ],
)
def test_what_cannot_be_compared(names, message, tmp_path, capsys):
    create_sweep(tmp_path / "one")
    create_sweep(tmp_path / "other", name="table5")
    assert main(["compare", *(str(tmp_path / name) for name in names)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
