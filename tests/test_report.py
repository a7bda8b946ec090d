"""What a report says beside the errors: intervals, contrasts, and networks of unequal cost."""

import re

import numpy as np
import pytest
from sweeps import ATTEMPT, create_sweep

from experiments.__main__ import main
from experiments.report import table
from experiments.report.claims import half_width_of_images
from shufflenet_jax.metrics import write_metrics
from shufflenet_jax.predictions import NOT_ASKED, PREDICTION, write_predictions

SHUFFLED, NOT = "0.25x-g8", "0.25x-g8-noshuffle"


def end(sweep, name, seed, error, macs=1_000_000, predictions=None):
    run = sweep.run(sweep.cell(name), seed)
    run.directory.mkdir(parents=True)
    run.record_attempt(1, ATTEMPT)
    if predictions is not None:
        write_predictions(run.directory, predictions)
    network = {"widths": [1, 2, 3, 4], "macs": macs, "macs_without_head": macs, "params": 1}
    run.end({"status": "done", "step": 1, "top1_error": error, "network": network})


def answers(right, broken=()):
    made = np.zeros(len(right), PREDICTION)
    made["right"] = right
    made["predicted"][list(broken)] = NOT_ASKED
    return made


def row(text, start):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [each.strip() for each in line.strip("|").split("|")]


def test_of_one_seed_the_interval_is_over_the_images_that_both_were_asked(tmp_path):
    sweep = create_sweep(tmp_path, seeds=1)
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 200)) < [[0.7], [0.8]]
    broken = (3, 50)
    end(sweep, NOT, 0, 30.0, predictions=answers(one, broken))
    end(sweep, SHUFFLED, 0, 20.0, predictions=answers(other, broken))
    kept = np.delete(np.arange(200), broken)
    half = half_width_of_images(one[kept], other[kept])
    text = table.as_markdown(sweep)
    assert row(text, "ShuffleNet 0.25x (g=8)")[-1] == f"+10.00 ± {half:.2f} [3.8]"
    assert "that of one seed is over test images" in text
    assert "by itself" not in text


def test_of_one_seed_without_predictions_there_is_no_interval(tmp_path):
    sweep = create_sweep(tmp_path, seeds=1)
    for name, error in ((NOT, 30.0), (SHUFFLED, 20.0)):
        end(sweep, name, 0, error)
    assert row(table.as_markdown(sweep), "ShuffleNet 0.25x (g=8)")[-1] == "+10.00 [3.8]"


def test_contrasts_and_intervals_over_seeds(tmp_path):
    sweep = create_sweep(tmp_path, seeds=3)
    for seed in range(3):
        end(sweep, NOT, seed, 30.0 + seed)
        end(sweep, SHUFFLED, seed, 27.9 + 1.1 * seed)
    text = table.as_markdown(sweep)
    # Differences 2.1, 2.0 and 1.9: a standard error of 0.1 / sqrt(3), times 4.3027.
    assert row(text, "ShuffleNet 0.25x (g=8)")[-1] == "+2.00 ± 0.25 [3.8]"
    assert row(text, f"{NOT} - {SHUFFLED}") == [
        f"{NOT} - {SHUFFLED}",
        "3",
        "+2.00 ± 0.25",
        "0.00083",
        "holds",
    ]
    (contrast,) = table.summary(sweep)["contrasts"]
    assert contrast["contrast"] == {NOT: 1.0, SHUFFLED: -1.0}
    cell = next(each for each in table.summary(sweep)["cells"] if each["name"] == NOT)
    assert cell["error_half_width"] == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_networks_of_a_row_that_cost_unlike_are_named(tmp_path):
    sweep = create_sweep(tmp_path, seeds=1)
    for name, macs in ((NOT, 1_000_000), (SHUFFLED, 1_049_000)):
        end(sweep, name, 0, 30.0, macs)
    assert "do not cost the same" not in table.as_markdown(sweep)
    unlike = create_sweep(tmp_path / "unlike", seeds=1)
    for name, macs in ((NOT, 1_000_000), (SHUFFLED, 1_070_000)):
        end(unlike, name, 0, 30.0, macs)
    text = table.as_markdown(unlike)
    assert "millions of multiply-adds: ShuffleNet 0.25x (g=8) 1.00 to 1.07 (+7%)." in text


def three_seeds(directory):
    """A sweep in which shuffle lowers the error by 2 points, but not in the beginning."""
    sweep = create_sweep(directory, seeds=3)
    for seed in range(3):
        for name, errors in ((NOT, (50.0, 30.0 + seed)), (SHUFFLED, (51.0, 27.9 + 1.1 * seed))):
            end(sweep, name, seed, errors[-1])
            rows = [
                {"step": step, "split": "test", "top1_error": error}
                for step, error in zip((1, 2), errors, strict=True)
            ]
            run = sweep.run(sweep.cell(name), seed)
            write_metrics(run.directory, rows)
            run.end({**run.result, "step": 2})
    return sweep


def test_a_plot_shows_contrasts_beside_the_papers_and_over_training(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from experiments.report import plot

    drawn = []
    monkeypatch.setattr(plot.pyplot, "close", drawn.append)
    path = tmp_path / "plot.svg"
    plot.save(three_seeds(tmp_path / "run"), path)
    assert f"{NOT} - {SHUFFLED}" in path.read_text()
    (figure,) = drawn
    ends, curves = figure.axes
    ours, *_ = ends.containers
    assert ours.lines[0].get_xdata() == pytest.approx([2.0])
    paper = next(line for line in ends.lines if line.get_label() == "the paper's, ImageNet")
    assert paper.get_xdata() == pytest.approx([3.8])
    assert curves.lines[0].get_xdata() == pytest.approx([5, 10])
    assert curves.lines[0].get_ydata() == pytest.approx([-1.0, 2.0])


@pytest.mark.parametrize(
    ("seeds", "name", "message"),
    [
        (1, "plot.png", "nothing to plot: no contrast"),
        (3, "plot.tables", r"cannot plot to \S+plot.tables"),
        (3, "no/plot.png", r"cannot plot to \S+no/plot.png"),
    ],
)
def test_a_plot_that_cannot_be_made_is_a_clear_error(seeds, name, message, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    directory = tmp_path / "run"
    if seeds == 1:
        end(create_sweep(directory, seeds=1), NOT, 0, 30.0)
    else:
        three_seeds(directory)
    arguments = ["report", "--workdir", str(directory), "--plot", str(tmp_path / name)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1
