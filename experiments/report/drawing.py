"""A figure of a report: its style, its numbers, and its files.

Colours can be told apart by colour-blind readers, and every series has a marker of its own too.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot
from matplotlib.figure import Figure

from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

INK, GRID = "#1b1f23", "#d4d8dc"
COLOURS = ("#0040ba", "#c55d00", "#008260", "#9a549e", "#662c00", "#302d3f")
"""As far from each other as can be, also for those who lack a kind of cones; tests see to it."""

_MARKERS = "osD^vP"
_STYLE = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # what users call things is no formula
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Drawing:
    """A figure that there are numbers for.

    Attributes:
      name: Of its files.
      title: What it shows, in a few words.
      description: How it is to be read.
      shows: Its numbers, as plain data.
      draw: Draws it, with so many panels beside each other.
    """

    name: str
    title: str
    description: str
    shows: Any
    draw: Callable[[int], Figure]

    @property
    def digest(self) -> str:
        """What stands in the files for the numbers that they show."""
        text = json.dumps(self.shows, sort_keys=True)
        return f"numbers {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def look(number: int) -> tuple[str, str]:
    """Colour and marker of a series; there are few, so they come again."""
    return COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]


def save(found: Sequence[Drawing], directory: Path) -> list[Path]:
    """Writes figures as SVG and as PNG; returns the files.

    Raises:
      InputError: There is nothing to show yet, or the directory cannot be written.
    """
    if not found:
        raise InputError("nothing to plot: no run of the table is done")
    paths = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for drawing in found:
            for form in ("svg", "png"):
                path = directory / f"{drawing.name}.{form}"
                write_atomically(path, contents(drawing, form))
                paths.append(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot plot to {directory}: {reason}") from None
    return paths


def contents(drawing: Drawing, form: str, abreast: int = 2) -> bytes:
    """A figure as a file; the same numbers give the same bytes."""
    # Text that is no text, so that a file looks the same everywhere.
    style = _STYLE | {"svg.fonttype": "path", "svg.hashsalt": drawing.name}
    date = {"Date": None} if form == "svg" else {}
    with matplotlib.rc_context(style):
        figure, file = drawing.draw(abreast), io.BytesIO()
        figure.savefig(file, format=form, dpi=150, metadata={"Description": drawing.digest, **date})
        pyplot.close(figure)
    return file.getvalue()


def inline(drawing: Drawing, colours: Mapping[str, str]) -> str:
    """A figure as an element of a page, with text that is text.

    Args:
      drawing: The figure.
      colours: What to write in place of `INK`, `GRID` and `COLOURS`.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": drawing.name}):
        figure, file = drawing.draw(1), io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # One page has several, and an id once.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{drawing.name}-", text)
    for colour, name in colours.items():
        text = text.replace(colour, name)
    return re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', text, count=1
    )
