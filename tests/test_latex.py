"""Reports as LaTeX: what TeX would take for commands is text, and it compiles."""

import shutil
import subprocess

import pytest
from sweeps import create_sweep, ended

from experiments.report import contents
from experiments.report.latex import as_latex, escape
from experiments.sweep.experiment import Experiment
from experiments.sweep.grid import grid

EVIL = r"""[a]*\input{/etc/passwd} $x^2$ #1 50% ~ | "<b>" & '_' -- {} é ±"""

DOCUMENT = r"""\documentclass{{article}}
\usepackage[T1]{{fontenc}}
\usepackage{{booktabs}}
\begin{{document}}
{}
\end{{document}}
"""


def evil_sweep(directory):
    cells = grid(
        {"network.groups": (1, 3)}, row=lambda groups: EVIL, column=lambda groups: f"{EVIL}{groups}"
    )
    mine = Experiment("mine%", f"{EVIL}\n\n", "", None, cells, remarks=(EVIL, "-"))
    sweep = create_sweep(directory, name=mine, seeds=2)
    for seed, cell in enumerate(cells):
        ended(sweep, cell.name, seed, 40.0, 30.0, commit=EVIL, processor=EVIL)
    return sweep


def table3(directory):
    sweep = create_sweep(directory, seeds=3)
    for seed in range(3):
        ended(sweep, "0.25x-g8-noshuffle", seed, 50.0, 30.0 + seed)
        ended(sweep, "0.25x-g8", seed, 51.0, 27.9 + 1.1 * seed)
    return sweep


def test_a_table_has_ours_the_papers_and_notes(tmp_path):
    text = as_latex(contents.of_sweep(table3(tmp_path)))
    ours = r"$31.00 \pm 2.48$ ($n = 3$) {[}56.5{]} & $29.00 \pm 2.73$ ($n = 3$) {[}52.7{]}"
    assert rf"ShuffleNet 0.25x (g=8) & {ours} &" in text
    assert r"& $+2.00 \pm 0.25$ {[}3.8{]} \tabularnewline" in text
    assert r"Channel shuffle always lowers the error. \textbf{undecided at n = 0 to 3}" in text
    contrast = "0.25x-g8-noshuffle - 0.25x-g8"
    assert rf"{contrast} & 3 & $+2.00 \pm 0.25$ & $0.00083$ & holds" in text
    notes = text.partition(r"\bottomrule")[2]
    assert "6 runs trained on none" in notes
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2


def test_nothing_that_has_a_meaning_to_tex_is_left():
    text = escape('\\ { } $ & # % _ ^ ~ < > | " [ ] --\n\n\x00\x07')
    assert text == (
        r"\textbackslash{} \{ \} \$ \& \# \% \_ \textasciicircum{} \textasciitilde{} \textless{} "
        r"\textgreater{} \textbar{} \textquotedbl{} {[} {]} -{}- ??"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("make", [table3, evil_sweep])
def test_it_compiles(make, tmp_path):
    (tmp_path / "paper.tex").write_text(
        DOCUMENT.format(as_latex(contents.of_sweep(make(tmp_path / "run"))))
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "paper.log").read_text(errors="replace")
