"""The door between configurations and the library, which never sees a ConfigDict."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from experiments.launchers import Engine
from experiments.launchers.local import Local
from experiments.launchers.ray import Ray
from experiments.launchers.slurm import Slurm
from experiments.sweep.experiment import Cell
from experiments.sweep.limits import Limits
from shufflenet_jax.complexity import abstract
from shufflenet_jax.data import Broken, Preprocessing
from shufflenet_jax.errors import InputError, did_you_mean
from shufflenet_jax.fit import Intervals
from shufflenet_jax.models.skeleton import Stem
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.zoo import FAMILIES

# Where data lie, who prepares them and what trains changes no result; nor does what is done about
# broken images change one that there is without it (`Broken`).
_CELLS_MACHINE = ("data.dir", "data.workers", "data.broken", "data.broken_budget", "limits.")
_MACHINE = (*_CELLS_MACHINE, "ray.", "slurm.")


def override(config: ConfigDict, assignments: Iterable[str], swept: Iterable[str] = ()) -> None:
    """Applies ``KEY=VALUE`` assignments in place; a value is read as the type it replaces.

    ``network.name`` is applied first, as it decides which other keys of the network there are.

    Args:
      config: The configuration.
      assignments: As from the command line: ``recipe.epochs=30``, ``network.repeats=2,4,2``.
      swept: Keys that every cell of the experiment sets itself.

    Raises:
      InputError: No such key, a value of another type, or a key that the cells set.
    """
    for assignment in sorted(assignments, key=lambda each: not each.startswith("network.name=")):
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--config.{key} needs a value: --config.{key}=VALUE")
        assign(config, {key: _parse(key, text, _value(config, key))})
        if key in swept:
            network_of(config, num_classes=2)  # says so if the value is wrong in any experiment
            raise InputError(f"{key} is set by each cell of this experiment: choose with --cells")


def assign(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """Sets dotted keys in place, ``network.name`` first.

    Raises:
      InputError: No such key, or no such network.
    """
    for key in sorted(values, key=lambda each: each != "network.name"):
        _value(config, key)
        if key == "network.name":
            _choose_family(config, values[key])
        else:
            config.update_from_flattened_dict({key: values[key]})


def _choose_family(config: ConfigDict, name: str) -> None:
    """Gives the network another family's arguments; those that both take keep their values."""
    if name not in FAMILIES:
        raise InputError(f"unknown network {name!r}; there are {', '.join(FAMILIES)}")
    arguments, old = arguments_of(name), config.network.to_dict()
    kept = {key: old[key] for key in arguments.keys() & old.keys()}
    config.network = ConfigDict({"name": name} | arguments | kept)


def arguments_of(name: str) -> dict[str, Any]:
    """What a configuration can set of a family of networks: the defaults, as plain values."""
    return {
        key: dataclasses.asdict(value) if isinstance(value, Stem) else value
        for key, value in FAMILIES[name].arguments.items()
    }


def _value(config: ConfigDict, key: str) -> Any:
    known = dict(_flat(config))
    if key not in known:
        owner = f" of {config.network.name}" if key.startswith("network.") else ""
        raise InputError(f"unknown configuration key {key!r}{owner}{did_you_mean(key, known)}")
    return known[key]


def _parse(key: str, text: str, old: Any) -> Any:
    """Reads text as a value of the type of the one it replaces. Nothing is evaluated."""
    kind = type(old)
    if kind is tuple:
        parts = text.strip("()[], ").split(",")
        return tuple(_parse(key, part.strip(), old[0]) for part in parts)
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "an integer", float: "a number"}[kind]
        raise InputError(f"{key} must be {expected}, not {text!r}") from None


def cell_config(config: ConfigDict, cell: Cell) -> ConfigDict:
    """Returns the configuration of one cell."""
    return changed(config, cell.overrides)


def changed(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy with dotted keys set; see `assign`."""
    own = ConfigDict(config.to_dict())
    assign(own, values)
    return own


def machine_assignments(config: ConfigDict) -> list[str]:
    """What a cell has to be told beside its identity, as ``KEY=VALUE``."""
    return [f"{key}={value}" for key, value in _flat(config) if key.startswith(_CELLS_MACHINE)]


def override_machine(config: ConfigDict, assignments: Iterable[str]) -> None:
    """Applies assignments to keys that change no result, in place.

    Raises:
      InputError: As `override`; or the key is part of the identity.
    """
    for assignment in assignments:
        key = assignment.partition("=")[0]
        if not key.startswith(_MACHINE):
            raise InputError(f"{key} was set when the sweep was planned and cannot change")
    override(config, assignments)


def identity(config: ConfigDict) -> dict[str, Any]:
    """The part of a configuration that decides the results: flat, as JSON would give it back."""
    flat = {key: value for key, value in _flat(config) if not key.startswith(_MACHINE)}
    return _as_json(flat)


def identities(config: ConfigDict, cells: Iterable[Cell]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Yields each cell with the identity of its configuration, fast for thousands of them."""

    @cache
    def base(family: str | None) -> dict[str, Any]:
        return identity(changed(config, {} if family is None else {"network.name": family}))

    def of(cell: Cell) -> dict[str, Any]:
        known = base(cell.overrides.get("network.name"))
        for key in cell.overrides:
            if key not in known:
                _value(cell_config(config, cell), key)  # says so
        return known | _as_json(cell.overrides)

    return ((cell, of(cell)) for cell in cells)


def own(identity: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a cell's identity that tells it from the sweep's: all of its network, and more.

    Networks of other families have other keys, of which a base that lacks them knows no defaults.
    """
    return {
        key: value
        for key, value in identity.items()
        if key.startswith("network.") or base[key] != value
    }


def whole(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's identity, of its own part and the sweep's."""
    rest = {key: value for key, value in base.items() if not key.startswith("network.")}
    return rest | own


def digest(identity: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that stand for an identity."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describes the keys in which two identities differ, as ``recipe.epochs: 10, now 30``."""
    missing = "nothing"
    return [
        f"{key}: {old.get(key, missing)!r}, now {new.get(key, missing)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]


def network_of(config: ConfigDict, num_classes: int, seed: int | None = None) -> nnx.Module:
    """Builds the network: with its first weights from a seed, or abstract without one."""
    arguments = config.network.to_dict()
    constructor = FAMILIES[arguments.pop("name")].constructor
    if "stem" in arguments:
        arguments["stem"] = Stem(**arguments["stem"])

    arguments["num_classes"] = num_classes
    if seed is None:
        return abstract(constructor, **arguments)
    return constructor(**arguments, rngs=nnx.Rngs(seed))


def recipe_of(config: ConfigDict) -> Recipe:
    """Builds the recipe."""
    arguments = config.recipe.to_dict()
    return Recipe(preprocessing=Preprocessing(**arguments.pop("preprocessing")), **arguments)


def intervals_of(config: ConfigDict) -> Intervals:
    """Builds the intervals."""
    return Intervals(**config.intervals.to_dict())


def limits_of(config: ConfigDict) -> Limits:
    """Builds the limits of a run."""
    return Limits(**config.limits.to_dict())


def engine_of(config: ConfigDict, launcher: str, jobs: int | None) -> Engine:
    """Builds what runs a sweep's commands.

    Args:
      config: The configuration.
      launcher: "local", "ray" or "slurm".
      jobs: Processes at a time; only "local" takes them.

    Raises:
      InputError: The engine is not installed, or cannot do what is asked of it.
    """
    if launcher == "local":
        return Local(jobs)
    if jobs is not None:
        raise InputError(f"--jobs is for --launcher local: {launcher} has a queue of its own")
    return {"ray": Ray, "slurm": Slurm}[launcher](**config[launcher].to_dict())


def broken_of(config: ConfigDict) -> Broken:
    """Builds what is done about broken images."""
    return Broken(config.data.broken, config.data.broken_budget)


def data_dir_of(config: ConfigDict) -> Path | None:
    """Where prepared data sets lie; None for TFDS's own default."""
    return Path(config.data.dir) if config.data.dir else None


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, (ConfigDict, Mapping)):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
