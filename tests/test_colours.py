"""The colours of figures: against what is behind them, and for colour-blind readers."""

import itertools
import re

import numpy as np
import pytest

from experiments.report.templates import environment

CONES = {
    "all": np.eye(3),
    # G. Machado et al., A physiologically-based model for simulation of color vision
    # deficiency, 2009.
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
"""What those see who lack a kind of cones, in linear RGB."""

TO_XYZ = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]


def linear(colour):
    rgb = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """As WCAG 2 has it, from 1 to 21."""
    low, high = sorted(linear(each) @ TO_XYZ[1] + 0.05 for each in (one, other))
    return high / low


def as_lab(colour, cones):
    """CIE Lab, in which a distance of 2.3 can just be seen."""
    xyz = TO_XYZ @ np.clip(CONES[cones] @ linear(colour), 0, 1) / [0.9505, 1, 1.0888]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def palettes():
    """Of a page in light, in dark and on paper: its variables."""
    css = environment().get_template("page.css").render()
    roots = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#\w{6});", root)) for root in roots]


def series(palette):
    return [palette[f"c{number}"] for number in range(6)]


def test_the_colours_of_pages_are_those_of_files():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from experiments.report.drawing import COLOURS, INK

    light, dark, paper = palettes()
    assert tuple(series(light)) == tuple(series(paper)) == COLOURS
    assert light["ink"] == INK
    assert not set(series(light)) & set(series(dark))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_colours_stand_out_and_apart(number):
    palette = palettes()[number]
    for colour in series(palette):
        for behind in ("page", "shade"):
            assert contrast(colour, palette[behind]) >= 3
    for cones in CONES:
        for one, other in itertools.combinations(series(palette), 2):
            distance = np.linalg.norm(as_lab(one, cones) - as_lab(other, cones))
            assert distance > 20, (cones, one, other)
