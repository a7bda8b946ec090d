"""Configurations as a user changes them; the library never sees a ConfigDict."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from ml_collections import ConfigDict

from experiments.sweep.assignment import parse, split
from experiments.sweep.experiment import Cell
from experiments.sweep.identity import as_json, flat
from experiments.sweep.settings import CHANGEABLE
from shufflenet_jax.errors import InputError, did_you_mean
from shufflenet_jax.zoo import FAMILIES


def override(config: ConfigDict, assignments: Iterable[str]) -> None:
    """Applies ``KEY=VALUE`` assignments in place; a value is read as the type it replaces.

    ``network.name`` is applied first, as it decides which other keys of the network there are.

    Args:
      config: The configuration.
      assignments: As from the command line: ``recipe.epochs=30``, ``network.repeats=2,4,2``.

    Raises:
      InputError: No such key, or a value of another type.
    """
    for assignment in sorted(assignments, key=lambda each: not each.startswith("network.name=")):
        key, text = split(assignment)
        assign(config, {key: parse(key, text, _value(config, key))})


def axes(config: ConfigDict, assignments: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Reads ``KEY=VALUE,VALUE`` as the axes of a grid; tuples are set apart by semicolons.

    Args:
      config: What the values are read by; not changed.
      assignments: As from the command line: ``network.groups=1,2,3``,
        ``network.repeats=4,8,4;2,4,2``.

    Raises:
      InputError: No such key, the same twice, or a value of another type.
    """
    found: dict[str, tuple[Any, ...]] = {}
    known = ConfigDict(config.to_dict())
    for assignment in sorted(assignments, key=lambda each: not each.startswith("network.name=")):
        key, _, text = assignment.partition("=")
        if key in found:
            raise InputError(f"--sweep.{key} is there twice")
        if key.startswith(CHANGEABLE):
            raise InputError(f"{key} changes no result: set it with --config.{key}")
        old = _value(known, key)
        parts = text.split(";" if isinstance(old, tuple) else ",")
        found[key] = tuple(parse(key, part.strip(), old) for part in parts)
        if key == "network.name":  # other families have other keys
            for name in found[key]:
                _choose_family(known, name, keep=True)
    return found


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


def _choose_family(config: ConfigDict, name: str, keep: bool = False) -> None:
    """Gives the network another family's arguments; those that both take keep their values."""
    if name not in FAMILIES:
        raise InputError(f"unknown network {name!r}; there are {', '.join(FAMILIES)}")
    arguments, old = arguments_of(name), config.network.to_dict()
    kept = {key: old[key] for key in (old if keep else arguments.keys() & old.keys())}
    config.network = ConfigDict({"name": name} | arguments | kept | {"name": name})


def arguments_of(name: str) -> dict[str, Any]:
    """What a configuration can set of a family of networks: the defaults, as plain values."""
    return FAMILIES[name].plain


def _value(config: ConfigDict, key: str) -> Any:
    known = flat(config.to_dict())
    if key not in known:
        owner = f" of {config.network.name}" if key.startswith("network.") else ""
        raise InputError(f"unknown configuration key {key!r}{owner}{did_you_mean(key, known)}")
    return known[key]


def with_values(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy with dotted keys set; see `assign`."""
    copy = ConfigDict(config.to_dict())
    assign(copy, values)
    return copy


def identity(config: ConfigDict) -> dict[str, Any]:
    """The part of a configuration that decides the results: flat, as JSON would give it back."""
    values = flat(config.to_dict())
    return as_json({key: each for key, each in values.items() if not key.startswith(CHANGEABLE)})


def settings(config: ConfigDict) -> dict[str, Any]:
    """The rest of it, flat."""
    values = flat(config.to_dict())
    return {key: each for key, each in values.items() if key.startswith(CHANGEABLE)}


def identities(config: ConfigDict, cells: Iterable[Cell]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Yields each cell with the identity of its configuration, fast for thousands of them."""

    @cache
    def base(family: str | None) -> dict[str, Any]:
        return identity(with_values(config, {} if family is None else {"network.name": family}))

    def of(cell: Cell) -> dict[str, Any]:
        known = base(cell.overrides.get("network.name"))
        for key in cell.overrides:
            if key not in known:
                _value(with_values(config, cell.overrides), key)  # says so
                raise InputError(f"{cell.name}: {key} changes no result, so no cell can set it")
        return known | as_json(cell.overrides)

    return ((cell, of(cell)) for cell in cells)
