"""The README's tables, and the files of results, are what the committed records say."""

import shutil

import pytest

from experiments.__main__ import main
from experiments.results import committed
from shufflenet_jax.errors import InputError

OF_RECORDS = (
    *("--budget", "cifar10", "--records", str(committed.RESULTS / "records")),
    "--config.data.name=folder:CIFAR-10 (JPEG copy)",
)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the results, which a test may spoil."""
    results = shutil.copytree(committed.RESULTS, tmp_path / "experiments" / "results")
    readme = shutil.copy(committed.README, tmp_path / "README.md")
    monkeypatch.setattr(committed, "RESULTS", results)
    monkeypatch.setattr(committed, "README", readme)
    return tmp_path


def spoil(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_results_are_those_of_the_records():
    """If this fails: python -m experiments results."""
    assert list(committed.make(figures=False)) == []
    assert set(committed.named_in_readme()) == committed.REPORTS.keys()


def test_plots_are_those_of_the_records():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert list(committed.make()) == []


def test_a_file_is_what_report_prints(capsys):
    assert main(["report", "table3", *OF_RECORDS]) == 0
    printed = capsys.readouterr().out
    assert (committed.RESULTS / "table3-cifar10-jpeg.md").read_text() == printed


def test_what_was_changed_by_hand_is_found_and_made_anew(copy, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    results = copy / "experiments" / "results"
    original = (copy / "README.md").read_text()
    spoil(copy / "README.md", "| ShuffleNet 0.25x (g=8) |", "| ShuffleNet 0.25x (g=9) |")
    spoil(results / "table2-cifar10-jpeg.md", "±", "+-")
    plot = results / "table3-cifar10-jpeg.png"
    plot.write_bytes(plot.read_bytes().replace(b"numbers ", b"numbers 0"))
    assert main(["results", "--check"]) == 1
    names = {"README.md", "table2-cifar10-jpeg.md", "table3-cifar10-jpeg.png"}
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == names
    assert main(["results"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == names
    assert (copy / "README.md").read_text() == original
    assert main(["results", "--check"]) == 0
    assert capsys.readouterr().out == ""


def test_a_record_less_is_another_table(copy):
    next((copy / "experiments" / "results" / "records").glob("*-seed4.json")).unlink()
    changed = committed.make(figures=False)
    assert copy / "README.md" in changed


def test_a_table_of_no_report_is_a_clear_error(copy):
    spoil(copy / "README.md", "<!-- table3-cifar10-jpeg:", "<!-- table7:")
    with pytest.raises(InputError, match="a table of table7, which no report is called"):
        committed.make(figures=False)
