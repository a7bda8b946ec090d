"""How networks start: what every layer holds before the first step, by scheme.

The paper does not say how its networks start, and in a short training nothing that it compares
decides as much. So a scheme is the same for all layers of all networks, and can be chosen:
`initialise` starts a network anew.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax.errors import InputError, did_you_mean

Draw = Callable[[Array, tuple[int, ...]], Float[Array, "..."]]
"""Draws weights of a shape with a key; the last axis of a shape is that of the outputs."""


def normal(deviation: float, key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws from a normal distribution around zero."""
    return _drawn(jax.random.normal, key, shape, deviation)


def uniform(limit: float, key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws evenly from between -limit and limit."""
    return _drawn(_between_1_and_minus_1, key, shape, limit)


def he_normal(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws as He et al. (arXiv 1502.01852) for a ReLU: normal, variance 2 / fan in."""
    return normal(math.sqrt(2 / fan_in(shape)), key, shape)


def one_over_root_of_fan_in(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws as PyTorch's convolutions and linear layers do: evenly, up to 1 / sqrt(fan in)."""
    return uniform(1 / math.sqrt(fan_in(shape)), key, shape)


def fan_in(shape: tuple[int, ...]) -> int:
    """How many values each output of a layer is a sum of."""
    return math.prod(shape[:-1])


Role = Literal["normalised", "plain", "classifier", "rectified classifier"]
"""What a layer is: followed by batch normalisation, which undoes any scale; by none; or the last.

A ReLU after the last layer, as SqueezeNet has it, passes nothing to what starts at zero or below.
"""

_SMALL = partial(normal, 0.01)


@dataclass(frozen=True)
class Scheme:
    """What layers start with.

    Attributes:
      normalised: Draws the kernels, (k, k, c / groups, o), that batch normalisation follows.
      plain: Draws those of other convolutions and linear layers, (i, o).
      classifier: Draws that of the last layer.
      rectified_classifier: Draws it where a ReLU follows.
      bias: Draws the bias of a layer, called with the shape of its kernel; None for zeros.
      rectified_bias: That of a last layer that a ReLU follows, where ``bias`` is None.
      norm_bias: That of batch normalisations.
      zero_residual: Whether the normalisation that ends a residual branch has a scale of 0, so that
        each unit starts as its shortcut (Goyal et al., arXiv 1706.02677, section 5.1).
    """

    normalised: Draw
    plain: Draw
    classifier: Draw
    rectified_classifier: Draw = _SMALL
    bias: Draw | None = None
    rectified_bias: float = 0.0
    norm_bias: float = 0.0
    zero_residual: bool = False

    def kernel_of(self, role: Role, key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """The kernel of a layer."""
        draws: dict[Role, Draw] = {
            "normalised": self.normalised,
            "plain": self.plain,
            "classifier": self.classifier,
            "rectified classifier": self.rectified_classifier,
        }
        return draws[role](key, shape)

    def bias_of(self, role: Role, key: Array, shape: tuple[int, ...]) -> Float[Array, " o"]:
        """The bias of a layer whose kernel has a shape."""
        if self.bias is None:
            value = self.rectified_bias if role == "rectified classifier" else 0.0
            return jax.device_put(np.full(shape[-1], value, np.float32))
        return self.bias(key, shape)


def _authors_conv(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Normal: 0.01 where images enter, and else 1 / the channels of a group."""
    return normal(0.01 if shape[2] == 3 else 1 / shape[2], key, shape)


def _pytorch_bias(key: Array, shape: tuple[int, ...]) -> Float[Array, " o"]:
    return uniform(1 / math.sqrt(fan_in(shape)), key, shape[-1:])


def _zeros(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    del key
    return jax.device_put(np.zeros(shape, np.float32))


_LIKE_PYTORCH = (one_over_root_of_fan_in,) * 4

SCHEMES = {
    "ours": Scheme(
        one_over_root_of_fan_in, he_normal, _zeros, _zeros, rectified_bias=1.0, zero_residual=True
    ),
    "pytorch": Scheme(*_LIKE_PYTORCH, bias=_pytorch_bias),
    "authors": Scheme(_authors_conv, _SMALL, _SMALL, norm_bias=1e-4),
    "he": Scheme(he_normal, he_normal, _SMALL),
}
"""The schemes by name.

* ``ours``: each unit starts as its shortcut, and the network with equal logits for all classes, so
  with a loss of ln(classes); convolutions before batch normalisation as PyTorch draws them, and
  what is not normalised so that it neither fades nor grows from layer to layer (He et al.). Where
  a ReLU follows the last layer, its biases are 1: from 0, half of its outputs are cut off at once,
  and soon all of them. (AlexNet has such biases for the same reason.)
* ``pytorch``: as the layers of PyTorch start by themselves.
* ``authors``: as the authors start ShuffleNet V1 in PyTorch. Weights are normal, with deviations of
  0.01 where images enter and in linear layers, and else of 1 / the input channels of a group.
* ``he``: He normal, the last layer normal with 0.01.
"""

DEFAULT = "ours"
"""The scheme by which layers start unless another is asked for."""


@runtime_checkable
class Initialised(Protocol):
    """A layer that can be started anew."""

    def initialise(self, scheme: Scheme, rngs: nnx.Rngs) -> None: ...


Module = TypeVar("Module", bound=nnx.Module)


def scheme(name: str = DEFAULT) -> Scheme:
    """Returns the scheme of a name.

    Raises:
      InputError: There is none of that name.
    """
    if name not in SCHEMES:
        raise InputError(f"unknown initialisation {name!r}{did_you_mean(name, SCHEMES)}")
    return SCHEMES[name]


def initialise(network: nnx.Module, name: str, rngs: nnx.Rngs) -> None:
    """Starts every layer of `shufflenet_jax.layers` in a network anew, in place.

    Args:
      network: Any module. What is not of those layers stays as it is.
      name: Of the scheme; see `SCHEMES`.
      rngs: Source of the weights.

    Raises:
      InputError: There is no scheme of that name.
    """
    chosen = scheme(name)
    for _, module in list(nnx.iter_modules(network)):
        if isinstance(module, Initialised):
            module.initialise(chosen, rngs)


_RUN = 2**16


def _between_1_and_minus_1(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1, maxval=1)


def _drawn(
    distribution: Callable[[Array, tuple[int, ...]], Array],
    key: Array,
    shape: tuple[int, ...],
    scale: float,
) -> Array:
    # XLA would compile a program for every shape, which would take most of the time that it takes
    # to construct a network: draw runs of one size, and cut and scale them with NumPy.
    runs = range(math.ceil(math.prod(shape) / _RUN))
    drawn = [_run(distribution, jax.random.fold_in(key, index)) for index in runs]
    numpy = jnp if isinstance(key, jax.core.Tracer) else np
    values = numpy.concatenate([numpy.asarray(each) for each in drawn])[: math.prod(shape)]
    return jax.device_put((values * numpy.float32(scale)).reshape(shape))


@partial(jax.jit, static_argnums=0)
def _run(distribution: Callable[[Array, tuple[int, ...]], Array], key: Array) -> Array:
    return distribution(key, (_RUN,))
