"""Training that starts from trained weights: a new head, and which parameters are the head's."""

from collections.abc import Iterator, Sequence

import jax
from flax import nnx

from shufflenet_jax import hub
from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import Conv, Linear
from shufflenet_jax.train import split
from shufflenet_jax.trained import Trained

_ROLES = ("classifier", "rectified classifier")


def head_of(network: nnx.Module) -> dict:
    """Marks the params of the last layer, with those of auxiliary heads: a tree of truth values.

    Raises:
      InputError: The network has no last layer of this library.
    """
    _, params, _ = split(network)
    heads = list(_heads(network))
    if not heads:
        raise InputError(
            "the network ends in no shufflenet_jax.layers.Classifier, so its backbone is not known"
        )
    return jax.tree.map_with_path(lambda path, _: _is_within(_names(path), heads), params)


def start_from(network: nnx.Module, trained: Trained, class_names: Sequence[str]) -> None:
    """Gives a network the weights of a trained one, in place.

    Where the classes are others, or in another order, the head keeps the weights that it started
    with.

    Args:
      network: Of the same architecture, whatever its classes; with its first weights.
      trained: What it is to start from.
      class_names: Of the data that it is to be trained on.

    Raises:
      InputError: The networks differ in more than their heads; an array is named.
    """
    found = hub.weights_of(trained.network)
    if tuple(class_names) != tuple(trained.class_names):
        own = hub.weights_of(network)
        heads = list(_heads(network))
        found = {name: each for name, each in found.items() if not _is_within(name, heads)}
        found |= {name: each for name, each in own.items() if _is_within(name, heads)}
    hub.put_weights(network, found, f"the {trained.name} that training starts from")


def _heads(network: nnx.Module) -> Iterator[str]:
    """The places of last layers."""
    for path, module in nnx.iter_modules(network):
        if isinstance(module, (Conv, Linear)) and module.role in _ROLES:
            yield ".".join(map(str, path))


def _names(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_within(place: str, heads: Sequence[str]) -> bool:
    return any(place.startswith(f"{head}.") for head in heads)
