"""What flows between groups, as a figure."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import pyplot

from experiments.report import figure_file
from experiments.report.flow import Flows


def save(by_cell: Mapping[str, list[Flows]], path: Path) -> None:
    """Draws which groups depend on which, by gradient: a matrix a stage and network.

    Args:
      by_cell: As `experiments.report.flow.of_sweep` measures it; the mean over seeds is drawn.
      path: Where to; the ending says the format.

    Raises:
      InputError: The file cannot be written, or is of an unknown format.
    """
    stages = list(next(iter(by_cell.values()))[0])
    size = (2.4 * len(by_cell) + 1, 2.4 * len(stages))
    figure, panels = pyplot.subplots(
        len(stages), len(by_cell), figsize=size, squeeze=False, layout="constrained"
    )
    for column, (name, flows) in zip(panels.T, by_cell.items(), strict=True):
        for panel, stage in zip(column, stages, strict=True):
            shares = np.mean([each[stage].gradient for each in flows], axis=0)
            image = panel.imshow(shares, vmin=0, vmax=1, cmap="viridis")
            panel.set(
                xticks=[], yticks=[], title=f"{name}\n{stage}" if stage == stages[0] else stage
            )
    panels[-1][0].set(xlabel="group of inputs", ylabel="group of outputs")
    figure.colorbar(image, ax=panels, label="share of squared derivatives", shrink=0.6)
    figure_file.save(figure, path)
