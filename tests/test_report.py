"""What a report says beside the errors: intervals, contrasts, and networks of unequal cost."""

import re

import numpy as np
import pytest
from sweeps import ATTEMPT, create_sweep, markdown_of

from experiments.__main__ import main
from experiments.report import contents, data, formats
from experiments.report.claims import half_width_of_images
from experiments.sweep.experiment import Experiment
from experiments.sweep.grid import grid
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
    text = markdown_of(sweep)
    assert row(text, "ShuffleNet 0.25x (g=8)")[-1] == f"+10.00 ± {half:.2f} [3.8]"
    assert "that of one seed is over test images" in text
    assert "by itself" not in text


def test_of_one_seed_without_predictions_there_is_no_interval(tmp_path):
    sweep = create_sweep(tmp_path, seeds=1)
    for name, error in ((NOT, 30.0), (SHUFFLED, 20.0)):
        end(sweep, name, 0, error)
    assert row(markdown_of(sweep), "ShuffleNet 0.25x (g=8)")[-1] == "+10.00 [3.8]"


def test_contrasts_and_intervals_over_seeds(tmp_path):
    sweep = create_sweep(tmp_path, seeds=3)
    for seed in range(3):
        end(sweep, NOT, seed, 30.0 + seed)
        end(sweep, SHUFFLED, seed, 27.9 + 1.1 * seed)
    text = markdown_of(sweep)
    # Differences 2.1, 2.0 and 1.9: a standard error of 0.1 / sqrt(3), times 4.3027.
    assert row(text, "ShuffleNet 0.25x (g=8)")[-1] == "+2.00 ± 0.25 [3.8]"
    assert row(text, f"{NOT} - {SHUFFLED}") == [
        f"{NOT} - {SHUFFLED}",
        "3",
        "+2.00 ± 0.25",
        "0.00083",
        "holds",
    ]
    (contrast,) = data.summary(contents.of_sweep(sweep))["contrasts"]
    assert contrast["contrast"] == {NOT: 1.0, SHUFFLED: -1.0}
    cell = next(
        each for each in data.summary(contents.of_sweep(sweep))["cells"] if each["name"] == NOT
    )
    assert cell["error_half_width"] == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_networks_of_a_row_that_cost_unlike_are_named(tmp_path):
    sweep = create_sweep(tmp_path, seeds=1)
    for name, macs in ((NOT, 1_000_000), (SHUFFLED, 1_049_000)):
        end(sweep, name, 0, 30.0, macs)
    assert "do not cost the same" not in markdown_of(sweep)
    unlike = create_sweep(tmp_path / "unlike", seeds=1)
    for name, macs in ((NOT, 1_000_000), (SHUFFLED, 1_070_000)):
        end(unlike, name, 0, 30.0, macs)
    text = markdown_of(unlike)
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


def drawn(sweep):
    """The figures of a sweep, by name."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from experiments.report import figures

    report = contents.of_sweep(sweep, curves=True)
    return {each.name: each.draw(2) for each in figures.drawings(report)}


def test_figures_show_differences_beside_the_papers_and_over_training(tmp_path):
    differences = drawn(three_seeds(tmp_path))["differences"]
    ends, curves = differences.axes
    ours, *_ = ends.containers
    assert ours.lines[0].get_xdata() == pytest.approx([2.0])
    (paper,) = (line for line in ends.lines if line.get_marker() == "D" and len(line.get_xdata()))
    assert paper.get_xdata() == pytest.approx([3.8])
    assert [text.get_text() for text in ends.texts] == [f"{NOT} - {SHUFFLED}"]
    assert curves.lines[0].get_xdata() == pytest.approx([5, 10])
    assert curves.lines[0].get_ydata() == pytest.approx([-1.0, 2.0])


def test_figures_show_error_against_cost_and_learning_curves(tmp_path):
    figures = drawn(three_seeds(tmp_path))
    (panel,) = figures["cost"].axes
    ours = {each.get_label(): each.lines[0].get_xydata() for each in panel.containers}
    assert ours["off"] == pytest.approx(np.array([[1.0, 31.0]]))
    papers = {tuple(point) for line in panel.lines for point in line.get_xydata()}
    assert {(13.0, 56.5), (140.0, 32.4)} <= papers
    assert panel.get_xscale() == "log"
    (panel, *_) = figures["curves"].axes
    assert panel.get_title() == "ShuffleNet 0.25x (g=8)"
    by_column = {line.get_label(): line.get_ydata() for line in panel.lines}
    assert by_column["off"] == pytest.approx([50.0, 31.0])
    assert by_column["on"] == pytest.approx([51.0, 29.0])


def test_plots_are_files_that_say_which_numbers_they_show(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    three_seeds(tmp_path / "run")
    arguments = ["report", "--workdir", str(tmp_path / "run"), "--plots"]
    contents_of = []
    for name in ("one", "two"):
        assert main([*arguments, str(tmp_path / name)]) == 0
        contents_of.append({each.name: each.read_bytes() for each in (tmp_path / name).iterdir()})
    one, two = contents_of
    names = ("cost", "curves", "differences")
    assert set(one) == {f"{name}.{form}" for name in names for form in ("svg", "png")}
    assert one == two
    for name in names:
        (digest,) = set(re.findall(rb"numbers [0-9a-f]{16}", one[f"{name}.svg"]))
        assert digest in one[f"{name}.png"]


def test_no_name_is_taken_for_a_formula(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from experiments.report import drawing, figures

    cells = grid(
        {"network.groups": (1, 3)},
        row=lambda groups: r"$\frac{$",
        column=lambda groups: rf"$\no{groups}$",
    )
    sweep = create_sweep(tmp_path, name=Experiment("mine", "Mine", "", None, cells))
    for cell in cells:
        end(sweep, cell.name, 0, 30.0)
    (cost,) = figures.drawings(contents.of_sweep(sweep, curves=True))
    for form in ("svg", "png"):
        assert drawing.contents(cost, form)


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--plots", "plots", "nothing to plot: no run of the table is done"),
        ("--plots", "file/plots", r"cannot plot to \S+file/plots: not a directory"),
        ("--output", "no/report.md", r"cannot write to \S+no/report.md: no such file or directory"),
        ("--output", "folder", r"cannot write to \S+folder: is a directory"),
    ],
)
def test_what_cannot_be_written_is_a_clear_error(option, name, message, tmp_path, capsys):
    if option == "--plots":
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    directory = tmp_path / "run"
    create_sweep(directory, seeds=1) if name == "plots" else three_seeds(directory)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert main(["report", "--workdir", str(directory), option, str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1


@pytest.mark.parametrize("form", formats.FORMATS)
def test_an_output_is_what_is_printed(form, tmp_path, capsys):
    if form == "html":
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    three_seeds(tmp_path / "run")
    arguments = ["report", "--workdir", str(tmp_path / "run"), "--format", form]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert main([*arguments, "--output", str(tmp_path / "report")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "report").read_text() == printed
