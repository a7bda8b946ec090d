"""From what a user asked for to a sweep that can start: every mistake is found here, or before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from experiments import tables
from experiments.launchers import Engine
from experiments.sweep import configuration as configs
from experiments.sweep import experiment, workdir
from experiments.sweep.experiment import Cell
from experiments.sweep.run import Run
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data
from shufflenet_jax.errors import InputError


@dataclass(frozen=True)
class Plan:
    """A sweep that can start.

    Attributes:
      sweep: Opened or begun.
      runs: Those that were asked for, seed by seed.
      engine: What is to run them.
      notes: What a user may not have expected, a line each.
    """

    sweep: Sweep
    runs: list[Run]
    engine: Engine
    notes: list[str]


def plan(
    name: str,
    *,
    budget: str,
    assignments: Sequence[str],
    directory: Path | None,
    pattern: str,
    seeds: int,
    launcher: str,
    jobs: int | None,
    dry: bool = False,
) -> Plan:
    """Opens or begins a sweep.

    Args:
      name: Of the experiment.
      budget: Its setting to start from.
      assignments: ``KEY=VALUE`` changes to its configuration.
      directory: Where the sweep is kept; ``runs/NAME`` if None.
      pattern: Glob that chooses cells by name.
      seeds: Seeds a cell.
      launcher: Name of the engine.
      jobs: Processes at a time, of engines that can be told.
      dry: Write nothing.

    Raises:
      InputError: Anything that would keep a run from starting. Nothing was written.
    """
    chosen = tables.load(name)
    cells = experiment.matching(chosen.cells, pattern)
    config = chosen.get_config(budget)
    swept = {key for cell in chosen.cells for key in cell.overrides}
    configs.override(config, assignments, swept)
    configs.intervals_of(config)
    configs.broken_of(config)
    configs.limits_of(config)
    recipe, data_dir = configs.recipe_of(config), configs.data_dir_of(config)
    data.check(config.data.name, data_dir)
    # The networks of the experiments' own files are valid: only changed ones take the time.
    if any(assignment.startswith("network.") for assignment in assignments):
        for cell in cells:
            configs.network_of(configs.cell_config(config, cell), num_classes=2)
    examples = len(data.load(config.data.name, data_dir).train)
    if recipe.batch_size > examples:
        raise InputError(
            f"recipe.batch_size {recipe.batch_size} is more than the {examples} images"
        )
    engine = configs.engine_of(config, launcher, jobs)
    directory = (directory or Path("runs") / name).absolute()
    sweep = workdir.create(chosen, budget, config, directory, cells=cells, seeds=seeds, dry=dry)
    return Plan(
        sweep,
        [sweep.run(cell, seed) for seed in range(seeds) for cell in cells],
        engine,
        list(_unheard(config, cells, assignments)),
    )


def _unheard(
    config: ConfigDict, cells: Sequence[Cell], assignments: Sequence[str]
) -> Iterator[str]:
    """Says which arguments some cells do not take, whose networks are of other families."""
    keys = (assignment.partition("=")[0] for assignment in assignments)
    for key in (key for key in keys if key.startswith("network.")):
        deaf = [
            cell.name for cell, identity in configs.identities(config, cells) if key not in identity
        ]
        if deaf:
            yield f"{key} changes nothing in {', '.join(deaf)}, which have no such argument"
