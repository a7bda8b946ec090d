"""How time grows with batch, width, groups and resolution, as a figure."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot, ticker
from matplotlib.axes import Axes


def save(summary: dict[str, Any], path: Path) -> None:
    """Draws one panel a scaling section: median times with quartiles, both axes logarithmic.

    Args:
      summary: As `tables.summary` makes it.
      path: Where to; the ending says the format.
    """
    sections = [section for section in summary["sections"] if section["axis"]]
    figure, panels = pyplot.subplots(
        1,
        len(sections),
        figsize=(3.5 * len(sections), 3.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, section in zip(panels[0], sections, strict=True):
        _draw(panel, section)
    panels[0][0].set_ylabel("ms a step")
    panels[0][0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panels[0][0].yaxis.set_major_formatter("{x:g}")
    panels[0][0].legend()
    figure.savefig(path)
    pyplot.close(figure)


def _draw(panel: Axes, section: dict[str, Any]) -> None:
    rows = section["rows"]
    for name in dict.fromkeys(name for row in rows for name in row["peers"]):
        points = [
            (row["value"], row["peers"][name])
            for row in rows
            if "median_ms" in row["peers"].get(name, {})
        ]
        if not points:
            continue
        medians = [peer["median_ms"] for _, peer in points]
        spread = [
            [peer["median_ms"] - peer["quartiles_ms"][0] for _, peer in points],
            [peer["quartiles_ms"][1] - peer["median_ms"] for _, peer in points],
        ]
        panel.errorbar([value for value, _ in points], medians, spread, marker="o", label=name)
    values = [row["value"] for row in rows]
    panel.set(xscale="log", yscale="log", xlabel=section["axis"].replace("_", " "))
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
