"""A layout: how some code for PyTorch names and orders the weights of its networks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx

from shufflenet_jax.data import IMAGENET, Preprocessing
from shufflenet_jax.porting.slots import Slot

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of the tensors of a state dict, by name."""


@dataclass(frozen=True)
class Architecture:
    """A network as `shufflenet_jax.zoo.build` takes it.

    Attributes:
      family: Its name.
      arguments: Its own, as plain values. A stem is that of ImageNet.
      num_classes: Outputs of the classifier.
    """

    family: str
    arguments: Mapping[str, Any]
    num_classes: int


@dataclass(frozen=True)
class Layout:
    """How some code names and orders weights.

    Attributes:
      name: As `load_torch` takes it.
      recognise: Returns the network whose tensors have some shapes; None where they are of other
        code. Raises InputError where they are of this code, and of no network of ours; a tensor is
        named.
      slots: Returns the slots of all layers of a network of ours, given its family's name. Raises
        InputError where the code has no such network; a tensor is named.
      preprocessing: Of the images that networks of this code take.
    """

    name: str
    recognise: Callable[[Shapes], Architecture | None]
    slots: Callable[[str, nnx.Module], Iterable[Slot]]
    preprocessing: Preprocessing = IMAGENET
