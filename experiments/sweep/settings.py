"""Settings: the keys of a configuration that may be others each time that a sweep goes on.

They change no result. What does is the identity (`experiments.sweep.identity`).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.launchers.engines import ENGINES
from experiments.sweep.assignment import parse, split
from experiments.sweep.identity import flat
from experiments.sweep.limits import Limits
from shufflenet_jax.data import AUTO_WORKERS, MEMORY_GB, NEVER_SKIPPED
from shufflenet_jax.errors import InputError, did_you_mean

# Where data lie, who prepares them, whether they stay on the devices, what trains and who is told
# changes no result; nor does where a network lies whose digest is in the identity, nor what is done
# about broken images change one that there is without it (`Broken`).
_OF_A_RUN = (
    "data.dir",
    "data.workers",
    "data.memory_gb",
    "data.broken",
    "data.broken_budget",
    "init.dir",
    "limits.",
    "trackers",
)
_OF_ENGINES = tuple(f"{name}." for name in ENGINES)
CHANGEABLE = (*_OF_A_RUN, *_OF_ENGINES)
"""Keys, or their beginnings, that may be other ones each time that a sweep goes on."""


def default_settings() -> dict[str, Any]:
    """All of them by dotted key, as every budget has them."""
    return flat(
        {
            "data": {
                "dir": "",
                "workers": AUTO_WORKERS,
                "memory_gb": MEMORY_GB,
                "broken": NEVER_SKIPPED.policy,
                "broken_budget": NEVER_SKIPPED.budget,
            },
            "init": {"dir": ""},
            "limits": dataclasses.asdict(Limits()),
            "trackers": "",
            **{kind.name: kind.defaults for kind in ENGINES.values() if kind.defaults},
        }
    )


def override(settings: dict[str, Any], assignments: Iterable[str]) -> None:
    """Applies ``KEY=VALUE`` assignments in place.

    Raises:
      InputError: No such key, a value of another type, or a key of the identity.
    """
    for assignment in assignments:
        key, text = split(assignment)
        if not key.startswith(CHANGEABLE):
            raise InputError(f"{key} was set when the sweep was planned and cannot change")
        if key not in settings:
            raise InputError(f"unknown configuration key {key!r}{did_you_mean(key, settings)}")
        settings[key] = parse(key, text, settings[key])


def of_a_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the process of a run has to know."""
    return {key: value for key, value in settings.items() if key.startswith(_OF_A_RUN)}
