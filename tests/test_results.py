"""The README's tables and the files of results are what the committed records say."""

from pathlib import Path

import pytest

from experiments.__main__ import main

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
OF_RECORDS = (
    *("--budget", "cifar10", "--records", str(RESULTS / "records")),
    "--config.data.name=folder:CIFAR-10 (JPEG copy)",
)


def rows(text):
    """Rows of Markdown tables, as their entries."""
    return [
        tuple(entry.strip() for entry in line.strip("|").split("|"))
        for line in text.splitlines()
        if line.startswith("| ")
    ]


@pytest.mark.parametrize(("name", "count"), [("table2", 1), ("table3", 2)])
def test_results_are_those_of_the_records(name, count, capsys):
    assert main(["report", name, *OF_RECORDS]) == 0
    printed = capsys.readouterr().out
    assert (RESULTS / f"{name}-cifar10-jpeg.md").read_text() == printed
    opening = (ROOT / "README.md").read_text().partition("The default is digits")[0]
    heading, *measured = (row for row in rows(printed) if len(row) == len(rows(printed)[0]))
    measured = [row for row in measured if row[0].startswith("ShuffleNet 0.25x")]
    assert len(measured) == count
    assert {heading, *measured} <= set(rows(opening))
