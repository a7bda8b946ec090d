"""From what a user asked for to a sweep that can start: every mistake is found here, or before."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from experiments.launchers import Engine
from experiments.launchers.engines import ENGINES
from experiments.sweep import build, manifest
from experiments.sweep import configuration as configs
from experiments.sweep.budgets import BUDGETS
from experiments.sweep.experiment import Cell, Experiment, matching
from experiments.sweep.identity import Values
from experiments.sweep.run import Run
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data
from shufflenet_jax.data import Found
from shufflenet_jax.errors import InputError


@dataclass(frozen=True)
class Request:
    """What a user asks for of an experiment.

    Attributes:
      experiment: What is swept.
      budget: Its setting to start from.
      assignments: ``KEY=VALUE`` changes to its configuration.
      directory: Where the sweep is kept.
      pattern: Glob that chooses cells by name.
      seeds: Seeds a cell.
      launcher: Name of the engine.
      jobs: Processes at a time, of engines that can be told.
      skip_invalid: Leave out cells that no run can be trained with, in place of refusing them.
      dry: Write nothing.
    """

    experiment: Experiment
    budget: str
    assignments: Sequence[str]
    directory: Path
    pattern: str = "*"
    seeds: int = 1
    launcher: str = "local"
    jobs: int | None = None
    skip_invalid: bool = False
    dry: bool = False


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


class Invalid(InputError):
    """Some cells cannot be trained; the message says which, and why."""

    def __init__(self, reasons: Mapping[str, str], count: int):
        cells = defaultdict(list)
        for name, reason in reasons.items():
            cells[reason].append(name)
        listed = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in cells.items())
        super().__init__(
            f"{len(reasons)} of {count} cells cannot be trained ({listed}): choose others, or "
            f"leave them out with --skip-invalid"
        )


def plan(request: Request) -> Plan:
    """Opens or begins a sweep.

    Raises:
      Invalid: Some cells cannot be trained, and are not to be left out.
      InputError: Anything else that would keep a run from starting. Nothing was written.
    """
    chosen, config = configured(request.experiment, request.budget, request.assignments)
    settings = configs.settings(config)
    known = list(configs.identities(config, chosen.cells))
    wanted = {cell.name for cell in matching(chosen.cells, request.pattern)}
    directory = request.directory.absolute()
    found = _found(
        (values for cell, values in known if cell.name in wanted),
        settings,
        manifest.begun(directory),
    )
    networks, invalid = _examined(
        [(cell, {**settings, **values}) for cell, values in known if cell.name in wanted],
        found,
        all_networks=not chosen.is_of_the_paper
        or any(assignment.startswith(_OF_A_NETWORK) for assignment in request.assignments),
    )
    if len(invalid) == len(wanted) and len(reasons := set(invalid.values())) == 1:
        raise InputError(reasons.pop())  # which is of no cell, but of all
    if invalid and not request.skip_invalid:
        raise Invalid(invalid, len(wanted))
    wanted -= invalid.keys()
    if not wanted:
        raise Invalid(invalid, len(invalid))
    engine = ENGINES[request.launcher].make(build.section(settings, request.launcher), request.jobs)
    sweep = freeze(
        chosen,
        request.budget,
        config,
        directory,
        wanted=wanted,
        seeds=request.seeds,
        identities={name: each.identity for name, each in found.items()},
        networks=networks,
    )
    sweep = manifest.begin(sweep, dry=request.dry)
    if not request.dry:
        _remember(sweep, found)
    cells = [cell for cell, _ in known if cell.name in wanted]
    return Plan(
        sweep,
        [sweep.run(cell, seed) for seed in range(request.seeds) for cell in cells],
        engine,
        [
            *(f"{name} is left out: {reason}" for name, reason in invalid.items()),
            *(note for each in found.values() for note in each.notes),
            *_unheard(known, wanted, request.assignments),
            *_scaled_rates(values for cell, values in known if cell.name in wanted),
            *engine.notes(),
        ],
    )


def configured(
    experiment: Experiment, budget: str, assignments: Sequence[str]
) -> tuple[Experiment, ConfigDict]:
    """Returns an experiment and its configuration, with data that any working directory finds.

    Args:
      experiment: What is swept.
      budget: Its setting to start from.
      assignments: ``KEY=VALUE`` changes to its configuration.

    Raises:
      InputError: No such budget or key, or a key that every cell sets itself.
    """
    config = experiment.get_config(budget)
    own_batch = config.recipe.batch_size
    configs.override(config, assignments)
    scaled = (cell.overrides.get("recipe.scale_rate") for cell in experiment.cells)
    if (config.recipe.scale_rate or any(scaled)) and not config.recipe.rate_batch:
        config.recipe.rate_batch = own_batch
    _refuse_swept(experiment, config, assignments)
    config.data.name = data.resolve(config.data.name)
    return replace(experiment, cells=tuple(map(_resolved, experiment.cells))), config


def freeze(
    experiment: Experiment,
    budget: str,
    config: ConfigDict,
    directory: Path,
    *,
    wanted: Iterable[str] | None = None,
    seeds: int = 1,
    identities: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    networks: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Sweep:
    """Returns the sweep of an experiment as a manifest has it; `manifest.begin` writes it.

    Args:
      experiment: What is swept.
      budget: The setting that its configuration started from.
      config: The configuration.
      directory: The sweep's.
      wanted: Names of the cells that are asked for; all if None.
      seeds: How many of each.
      identities: Of data sets, by name.
      networks: What `build.measure` says of networks, by cell.
    """
    names = [cell.name for cell in experiment.cells] if wanted is None else wanted
    return Sweep(
        experiment=experiment.name,
        title=experiment.title,
        budget=budget,
        base=configs.identity(config),
        settings=configs.settings(config),
        data=identities,
        entries=manifest.entries(
            configs.identities(config, experiment.cells), names, seeds, networks
        ),
        directory=directory.absolute(),
        claims=experiment.claims,
        remarks=experiment.remarks,
        difference=experiment.difference,
        caveat=_caveat(experiment, budget, config.data.name),
    )


def _refuse_swept(experiment: Experiment, config: ConfigDict, assignments: Sequence[str]) -> None:
    """Refuses to set what every cell sets itself."""
    swept = {key for cell in experiment.cells for key in cell.overrides}
    for key in (assignment.partition("=")[0] for assignment in assignments):
        if key in swept:
            # Says so if the value is wrong in any experiment.
            build.network_of(configs.identity(config), num_classes=2)
            raise InputError(f"{key} is set by each cell of this experiment: choose with --cells")


def _resolved(cell: Cell) -> Cell:
    """A cell whose data have a name that means the same from any working directory."""
    name = cell.overrides.get("data.name")
    if name is None:
        return cell
    return replace(cell, overrides={**cell.overrides, "data.name": data.resolve(name)})


def _found(cells: Iterable[Values], settings: Values, begun: Sweep | None) -> dict[str, Found]:
    """Every data set that cells are trained on, by name.

    Raises:
      InputError: There is no such data set; or it has changed since the sweep was begun.
    """
    return {
        name: data.find(
            name, build.data_dir_of(settings), known=begun.listing(name) if begun else None
        )
        for name in dict.fromkeys(values["data.name"] for values in cells)
    }


def _remember(sweep: Sweep, found: Mapping[str, Found]) -> None:
    """Leaves what was found in class folders for the runs, which then need not look."""
    for name, each in found.items():
        listing = sweep.listing(name)
        if listing is not None and not listing.exists():
            each.remember(listing)


def _examined(
    cells: Sequence[tuple[Cell, Values]], found: Mapping[str, Found], all_networks: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What is known of the networks of cells, and why some cannot be trained, by cell.

    The networks of the paper's experiments are valid as they stand, as tests see to; the others
    take a part of a second each, but equal ones only once.
    """

    @cache
    def measure(key: str, num_classes: int) -> dict[str, Any] | InputError:
        try:
            return build.measure(json.loads(key), num_classes)
        except InputError as error:
            return error

    networks: dict[str, dict[str, Any]] = {}
    invalid: dict[str, str] = {}
    for cell, values in cells:
        identity = found[values["data.name"]].identity
        try:
            build.check(values, identity["train"])
            if all_networks:
                deciding = {k: v for k, v in values.items() if k.startswith(_OF_A_NETWORK)}
                counted = measure(json.dumps(deciding, sort_keys=True), identity["classes"])
                if isinstance(counted, InputError):
                    raise counted
                networks[cell.name] = counted
        except InputError as error:
            invalid[cell.name] = str(error)
    return networks, invalid


_OF_A_NETWORK = ("network.", "recipe.preprocessing.image_size")
"""Keys, or their beginnings, that decide what a network costs."""


def _caveat(experiment: Experiment, budget: str, name: str) -> str:
    """What the table can and cannot say; a budget knows it of its own data only."""
    if all(cell.paper_error is None for cell in experiment.cells):
        return ""
    known = BUDGETS.get(budget)
    if known and name == known.data:
        caveat = known.verdict
    else:
        caveat = f"The paper's claims are about ImageNet, not {data.label(name)}."
    if not experiment.is_of_the_paper:
        return caveat
    return (
        f"{caveat} For the claims: python -m experiments run {experiment.name} --budget paper "
        f"--seeds 5 --workdir runs/{experiment.name}-paper"
    )


def _unheard(
    cells: Sequence[tuple[Cell, Values]], wanted: set[str], assignments: Sequence[str]
) -> Iterator[str]:
    """Says which arguments some cells do not take, whose networks are of other families."""
    keys = (assignment.partition("=")[0] for assignment in assignments)
    for key in (key for key in keys if key.startswith("network.")):
        deaf = [cell.name for cell, values in cells if cell.name in wanted and key not in values]
        if deaf:
            yield f"{key} changes nothing in {', '.join(deaf)}, which have no such argument"


def _scaled_rates(cells: Iterable[Values]) -> list[str]:
    """Says what learning rates are where they are not those of the configuration."""
    recipes = dict.fromkeys(
        recipe for recipe in map(build.recipe_of, cells) if recipe.rate != recipe.learning_rate
    )
    return [
        f"the learning rate is {recipe.rate:g} for batches of {recipe.batch_size}: "
        f"{recipe.learning_rate:g} for {recipe.rate_batch}, scaled linearly (recipe.scale_rate)"
        for recipe in recipes
    ]


def default_directory(name: str) -> Path:
    """Where the sweep of an experiment is kept unless a user says so."""
    return Path("runs") / Path(name).stem
