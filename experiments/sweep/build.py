"""From the configuration of a cell to what trains it, in one step."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from experiments import trackers
from experiments.sweep.identity import Values, nested
from experiments.sweep.limits import Limits
from shufflenet_jax import zoo
from shufflenet_jax.cost import complexity
from shufflenet_jax.data import AUTO_WORKERS, Broken, Dataset, Preprocessing
from shufflenet_jax.errors import InputError, did_you_mean
from shufflenet_jax.intervals import Intervals
from shufflenet_jax.recipe import Recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Made = TypeVar("Made", bound="DataclassInstance")


@dataclass(frozen=True)
class Training:
    """What `shufflenet_jax.fit.fit` is given of a run, beside its seed and its directory."""

    network: nnx.Module
    dataset: Dataset
    recipe: Recipe
    intervals: Intervals
    num_workers: int
    memory_gb: float
    broken: Broken


def build(values: Values, seed: int, dataset: Dataset) -> Training:
    """Builds a run: network with its first weights, recipe, data and intervals.

    Args:
      values: Configuration of its cell, and the settings, by dotted key.
      seed: Of the weights.
      dataset: What it is trained on.

    Raises:
      InputError: A key that this version does not know, or a value that no run can have.
    """
    network = network_of(values, dataset.num_classes, nnx.Rngs(seed))
    if wanted := values.get("init.sha256"):
        _start_from(network, values["init.dir"], wanted, dataset)
    return Training(
        network=network,
        dataset=dataset,
        recipe=recipe_of(values),
        intervals=_made(Intervals, "intervals", values),
        num_workers=values["data.workers"],
        memory_gb=values["data.memory_gb"],
        broken=Broken(values["data.broken"], values["data.broken_budget"]),
    )


def _start_from(network: nnx.Module, directory: str, wanted: str, dataset: Dataset) -> None:
    """Gives a network the weights that training starts from."""
    # Here, because they import orbax, which a process that only plans has no use for.
    from shufflenet_jax import finetuning, hub

    trained = hub.open_trained(directory)
    if hub.digest(trained.network) != wanted:
        raise InputError(
            f"init.dir {directory} holds other weights than those that the sweep was planned with"
        )
    finetuning.start_from(network, trained, dataset.class_names)


def check(values: Values, examples: int) -> None:
    """Finds what no run could be trained with, apart from the network.

    Args:
      values: Configuration of a cell, and the settings, by dotted key.
      examples: Images to train on.

    Raises:
      InputError: As `build`; or a batch has more images than there are.
    """
    recipe = recipe_of(values)
    _made(Intervals, "intervals", values)
    limits_of(values)
    trackers.check(values["trackers"])
    Broken(values["data.broken"], values["data.broken_budget"])
    if values["data.workers"] < AUTO_WORKERS:
        raise InputError(
            f"data.workers must be at least 0, or {AUTO_WORKERS} to be chosen, "
            f"not {values['data.workers']}"
        )
    if not values["data.memory_gb"] >= 0:  # nor is a NaN
        raise InputError(f"data.memory_gb must be at least 0, not {values['data.memory_gb']}")
    if recipe.batch_size > examples:
        raise InputError(
            f"recipe.batch_size {recipe.batch_size} is more than the {examples} images"
        )


def measure(values: Values, num_classes: int) -> dict[str, Any]:
    """Counts a cell's network at the size of its images, once it has been found to work.

    Nothing is computed: the network is built without weights, and its evaluation is traced. So is
    the training of a network that is not of this library, which no test has seen.

    Returns:
      "widths", which is empty if the network does not tell, "macs", "macs_without_head" and
      "params"; see `shufflenet_jax.Complexity`.

    Raises:
      InputError: It cannot be built, does not take such images, or returns no logits.
    """
    name = values["network.name"]
    size = recipe_of(values).preprocessing.image_size
    network = network_of(values, num_classes)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    graphdef, state = nnx.split(network)

    def trained(state: nnx.State, images: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state, copy=True)(images, train=True)

    with _naming(name):
        counts = complexity(network, (size, size, 3))
        if name not in zoo.BUILT_IN:
            logits = jax.eval_shape(trained, state, images)
            if getattr(logits, "shape", None) != (2, num_classes):
                raise InputError(
                    f"network {name} returns {getattr(logits, 'shape', logits)} for 2 images, "
                    f"not logits of shape {(2, num_classes)}"
                )
    return {"widths": list(getattr(network, "widths", ())), **dataclasses.asdict(counts)}


def network_of(values: Values, num_classes: int, rngs: nnx.Rngs | None = None) -> nnx.Module:
    """Builds the network: with its first weights, or abstract without rngs."""
    arguments = nested(values)["network"]
    name = arguments.pop("name")
    with _naming(name):
        return zoo.build(name, arguments, num_classes=num_classes, rngs=rngs)


@contextmanager
def _naming(network: str) -> Iterator[None]:
    """Makes whatever a network of the user's own raises an error in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if network in zoo.BUILT_IN:
            raise
        said = " ".join(str(error).split())
        raise InputError(f"network {network} fails: {type(error).__name__}: {said}") from error


def recipe_of(values: Values) -> Recipe:
    """Builds the recipe."""
    preprocessing = _made(Preprocessing, "recipe.preprocessing", values)
    rest = {key: each for key, each in values.items() if "preprocessing" not in key}
    return dataclasses.replace(_made(Recipe, "recipe", rest), preprocessing=preprocessing)


def limits_of(values: Values) -> Limits:
    """Builds the limits of a run."""
    return _made(Limits, "limits", values)


def data_dir_of(values: Values) -> Path | None:
    """Where prepared data sets lie; None for TFDS's own default."""
    return Path(values["data.dir"]) if values["data.dir"] else None


def section(values: Values, name: str) -> dict[str, Any]:
    """The values of one section by the rest of their keys, lists as tuples."""
    return {
        key.removeprefix(f"{name}."): tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
        if key.startswith(f"{name}.")
    }


def _made(kind: type[Made], name: str, values: Values) -> Made:
    """Makes a dataclass of a section; a key that is absent has its default.

    Raises:
      InputError: It has no such field.
    """
    given = section(values, name)
    known = {field.name for field in dataclasses.fields(kind)}
    for key in given.keys() - known:
        raise InputError(
            f"this version has no configuration key {name}.{key}{did_you_mean(key, known)}"
        )
    return kind(**given)
