"""The part of a configuration that decides a result, as flat JSON: what a manifest freezes.

A key that is absent, because it is newer than the manifest, has the default of the library: what
the code did before there was the key. A key that this version does not know is named where the
values have to be used, and matters nowhere else.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]
"""Values by dotted key, as JSON has them: ``{"recipe.epochs": 10, "network.groups": 3}``."""


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def nested(values: Values) -> dict[str, Any]:
    """Undoes `flat`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return found


def as_json(values: Values) -> dict[str, Any]:
    """Values as a manifest gives them back: tuples are lists."""
    return json.loads(json.dumps(values))


def digest(values: Values, digits: int = 8) -> str:
    """Hexadecimal digits that stand for an identity."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def delta(values: Values, base: Values) -> dict[str, Any]:
    """The part of a cell's identity that tells it from the sweep's: all of its network, and more.

    Networks of other families have other keys, of which a base that lacks them knows no defaults.
    """
    return {
        key: value
        for key, value in values.items()
        if key.startswith("network.") or key not in base or base[key] != value
    }


def merged(delta: Values, base: Values) -> dict[str, Any]:
    """A cell's identity, of its delta and the sweep's."""
    rest = {key: value for key, value in base.items() if not key.startswith("network.")}
    return {**rest, **delta}


def defaults(values: Values) -> dict[str, Any]:
    """The library's defaults of all keys that it knows for the family of these values."""
    # Here, because they import JAX, and a sweep is opened without.
    from shufflenet_jax.intervals import Intervals
    from shufflenet_jax.recipe import Recipe
    from shufflenet_jax.zoo import FAMILIES

    known: dict[str, Any] = {
        "init": {"sha256": ""},
        "intervals": dataclasses.asdict(Intervals()),
        "recipe": dataclasses.asdict(Recipe()),
    }
    family = FAMILIES.get(values.get("network.name", ""))
    if family is not None:
        known["network"] = family.plain
    return as_json(flat(known))


def complete(values: Values) -> dict[str, Any]:
    """Values with the defaults of the keys that are newer than they are."""
    return {**defaults(values), **values}


def differences(old: Values, new: Values) -> list[str]:
    """Describes the keys in which two identities differ, as ``recipe.epochs: 10, now 30``."""
    missing = object()
    old, new = complete(old), complete(new)
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key, missing), new.get(key, missing)
        if now is missing:
            found.append(f"{key}: {before!r}, which this version does not have")
        elif before is missing:
            found.append(f"{key}: nothing, now {now!r}")
        elif before != now:
            found.append(f"{key}: {before!r}, now {now!r}")
    return found
