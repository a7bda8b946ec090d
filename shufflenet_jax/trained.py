"""Networks with what it takes to use them, and those out of the directories of runs."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from shufflenet_jax import zoo
from shufflenet_jax.checkpoint import read_weights
from shufflenet_jax.data import Preprocessing
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically
from shufflenet_jax.images import normalise
from shufflenet_jax.models.skeleton import Stem
from shufflenet_jax.train import split


@dataclass(frozen=True)
class Trained:
    """A network that was trained, here or elsewhere, and what it takes to use it.

    To classify an image, take it through `shufflenet_jax.data.eval_image` with the preprocessing,
    and batches of them through `normalise`; the greatest of the network's logits is the place of
    the class in class_names.

    Attributes:
      network: With trained weights and the running statistics of BN. Called as
        ``network(images)``, it evaluates.
      preprocessing: Of the images that it was trained on.
      class_names: One for each of its logits.
      step: Training steps it has taken; 0 where that is not known.
      name: Of its family, in `shufflenet_jax.zoo`.
      arguments: Its own within the family, as plain values.
      provenance: Where the weights come from, as JSON has values; empty where that is not known.
    """

    network: nnx.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    step: int
    name: str
    arguments: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def normalise(
        self, images: UInt8[Array, "b h w 3"] | UInt8[np.ndarray, "b h w 3"]
    ) -> Float[Array, "b h w 3"]:
        """Takes RGB images of 0 to 255 to the range that the network was trained on."""
        return normalise(images, self.preprocessing.pixel_mean, self.preprocessing.pixel_std)


def describe(
    directory: Path,
    *,
    name: str,
    arguments: Mapping[str, Any],
    preprocessing: Preprocessing,
    class_names: Sequence[str],
) -> None:
    """Writes network.json into the directory of a run, which `load_trained` builds the network by.

    Args:
      directory: That `shufflenet_jax.fit.fit` is given.
      name: Of the network's family; see `shufflenet_jax.zoo.build`.
      arguments: Of the family; plain values, or a `Stem`.
      preprocessing: Of the images.
      class_names: Of the data set, in the order of its labels.

    Raises:
      InputError: JSON has no such value as one of the arguments.
    """
    described = {
        "family": name,
        "arguments": plain(arguments),
        "num_classes": len(class_names),
        "class_names": list(class_names),
        "preprocessing": dataclasses.asdict(preprocessing),
    }
    try:
        # In ASCII, which also holds the halves of characters that stand for undecodable bytes in
        # the names of files.
        text = json.dumps(described, indent=1, ensure_ascii=True)
    except TypeError as error:
        raise InputError(f"network {name}: an argument cannot be written down: {error}") from error
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / CONFIG_OF_A_RUN, text)


def load_trained(
    run_directory: str | os.PathLike[str],
    constructor: zoo.Family | zoo.Constructor | None = None,
) -> Trained:
    """The network of a run, with the weights of its newest intact checkpoint.

    Nothing is written: the directory may be read-only, and the run may be going on. How it was
    optimised does not matter.

    Args:
      run_directory: That of a run, which holds network.json and checkpoints.
      constructor: Of a network of one's own, where it is not registered under its name; see
        `shufflenet_jax.zoo.family_of`.

    Raises:
      InputError: The directory is none of a run; the network is unknown; no checkpoint is intact;
        or its weights are not the network's, which another version of the code has begun. The file
        is named.
    """
    directory = Path(run_directory).absolute()
    path = directory / CONFIG_OF_A_RUN
    name, arguments, class_names, preprocessing = _read(path)
    try:
        network = built(name, arguments, len(class_names), constructor)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    graphdef, params, batch_stats = split(network)
    step, weights = read_weights(
        directory / "checkpoints", {"params": params, "batch_stats": batch_stats}
    )
    weights = jax.device_put(weights)  # jnp.asarray would compile each shape
    network = nnx.merge(graphdef, weights["params"], weights["batch_stats"])
    return Trained(network, preprocessing, class_names, step, name, arguments)


def plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a family as JSON has values, a stem as a dict."""
    return {
        key: dataclasses.asdict(value) if isinstance(value, Stem) else value
        for key, value in arguments.items()
    }


def preprocessing_of(fields: Mapping[str, Any]) -> Preprocessing:
    """Undoes `dataclasses.asdict`, out of JSON.

    Raises:
      InputError: A value that no preprocessing has.
      TypeError: A field that there is not.
    """
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    return Preprocessing(**given)


def built(
    name: str,
    arguments: Mapping[str, Any],
    num_classes: int,
    constructor: zoo.Family | zoo.Constructor | None,
) -> nnx.Module:
    """The network without its weights (`abstract`).

    Args:
      name: Of the family.
      arguments: Its own.
      num_classes: Outputs of the classifier.
      constructor: Of the family, where it is not registered under the name.

    Raises:
      InputError: There is no such network.
    """
    try:
        if constructor is None:
            return zoo.build(name, arguments, num_classes=num_classes)
        return zoo.family_of(constructor).build(arguments, num_classes=num_classes)
    except InputError as error:
        raise InputError(
            f"{error} (register a network of your own, or give its constructor)"
        ) from error


CONFIG_OF_A_RUN = "network.json"
"""The file in the directory of a run that says what its network is."""


def _read(path: Path) -> tuple[str, dict[str, Any], tuple[str, ...], Preprocessing]:
    """Family, arguments, class names and preprocessing."""
    try:
        described = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{path} does not exist: this is no run's directory, or one of a version before it"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    try:
        family, arguments = str(described["family"]), dict(described["arguments"])
        class_names, count = tuple(described["class_names"]), described["num_classes"]
        preprocessing = preprocessing_of(described["preprocessing"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path} is of another version of the code: {error!r}") from error
    if count != len(class_names):
        raise InputError(f"{path} has {count} classes and the names of {len(class_names)}")
    return family, arguments, class_names, preprocessing
