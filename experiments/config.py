"""The door between configurations and the library, which never sees a ConfigDict."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from experiments.experiment import Cell, did_you_mean
from shufflenet_jax.complexity import abstract
from shufflenet_jax.data import Broken, Preprocessing
from shufflenet_jax.errors import InputError
from shufflenet_jax.fit import Intervals
from shufflenet_jax.models.skeleton import Stem
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.zoo import FAMILIES

# Where data lie and who prepares them changes no result; nor does what is done about broken images
# change one that there is without it (`Broken`).
_MACHINE_KEYS = ("data.dir", "data.workers", "data.broken", "data.broken_budget")


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
    own = ConfigDict(config.to_dict())
    assign(own, cell.overrides)
    return own


def identity(config: ConfigDict) -> dict[str, Any]:
    """The part of a configuration that decides the results: flat, as JSON would give it back."""
    flat = {key: value for key, value in _flat(config) if key not in _MACHINE_KEYS}
    return json.loads(json.dumps(flat))


def digest(config: ConfigDict) -> str:
    """Eight hexadecimal digits that stand for the identity of a configuration."""
    text = json.dumps(identity(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


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
