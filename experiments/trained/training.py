"""Training of one network, from its first weights or from trained ones, as an experiment."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.sweep import configuration as configs
from experiments.sweep.budgets import budget
from experiments.sweep.experiment import Cell, Experiment
from experiments.trained.source import locate, open_network
from shufflenet_jax import hub
from shufflenet_jax.errors import InputError, did_you_mean
from shufflenet_jax.trained import Trained
from shufflenet_jax.zoo import FAMILIES, NAMED

RATE_FROM_WEIGHTS = 0.1
"""Of the budget's learning rate, what a training takes that starts from trained weights."""


def experiment(name: str, init: Path | None) -> Experiment:
    """The experiment of one cell.

    Args:
      name: Of a network (`shufflenet_jax.zoo.NAMED`) or of a family, whose arguments are keys of
        the configuration.
      init: The directory of the trained network to start from. Its architecture and preprocessing
        are taken over.

    Raises:
      InputError: There is no such network, or the directory holds one of another family.
    """
    if name not in NAMED and name not in FAMILIES:
        raise InputError(f"unknown network {name!r}{did_you_mean(name, [*NAMED, *FAMILIES])}")
    family, arguments = NAMED.get(name, (name, {}))
    trained = None if init is None else open_network(init)
    if trained is not None and trained.name != family:
        raise InputError(f"{init} holds a {trained.name}, and {name} is a {family}")

    def get_config(budget_name: str) -> ConfigDict:
        config = budget(budget_name)
        configs.assign(config, {"network.name": family})
        own = arguments if trained is None else trained.arguments
        configs.assign(config, {f"network.{key}": value for key, value in _flat(own).items()})
        if trained is not None:
            _start_from(config, trained, init)
        return config

    return Experiment(
        name=f"train-{name}",
        title=f"{name}, from {'its first weights' if trained is None else 'trained weights'}",
        description="",
        get_config=get_config,
        cells=(Cell(name=name, row=name, column="error", overrides={}),),
    )


def _flat(arguments: Any) -> dict[str, Any]:
    """Arguments by dotted key, lists as the tuples of a configuration."""
    found: dict[str, Any] = {}
    for key, value in arguments.items():
        if isinstance(value, dict):
            found |= {f"{key}.{field}": each for field, each in value.items()}
        else:
            found[key] = tuple(value) if isinstance(value, list) else value
    return found


def _start_from(config: ConfigDict, trained: Trained, directory: Path | None) -> None:
    """What the network was trained on; more can be set by a user."""
    assert directory is not None
    config.init.sha256 = hub.digest(trained.network)
    config.init.dir = str(locate(directory))
    config.recipe.learning_rate *= RATE_FROM_WEIGHTS
    for field in ("image_size", "eval_resize", "pixel_mean", "pixel_std"):
        setattr(config.recipe.preprocessing, field, getattr(trained.preprocessing, field))
