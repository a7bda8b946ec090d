"""How networks start: what every layer holds before the first step, by scheme.

The paper does not say how its networks start, and in a short training nothing that it compares
decides as much. So a scheme is the same for all layers of all networks, and can be chosen:
`initialise` starts a network anew.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

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


@dataclass(frozen=True)
class Scheme:
    """What layers start with.

    Attributes:
      conv: Draws kernels of convolutions, (k, k, c / groups, o).
      linear: Draws kernels of linear layers, (i, o).
      classifier: Draws that of the last one.
      bias: Draws the bias of a layer, called with the shape of its kernel; None for zeros.
      norm_bias: That of batch normalisations.
      zero_residual: Whether the normalisation that ends a residual branch has a scale of 0, so that
        each unit starts as its shortcut (Goyal et al., arXiv 1706.02677, section 5.1).
    """

    conv: Draw
    linear: Draw
    classifier: Draw
    bias: Draw | None = None
    norm_bias: float = 0.0
    zero_residual: bool = False

    def bias_of(self, key: Array, shape: tuple[int, ...]) -> Float[Array, " o"]:
        """The bias of a layer whose kernel has a shape."""
        if self.bias is None:
            return jax.device_put(np.zeros(shape[-1], np.float32))
        return self.bias(key, shape)


def _authors_conv(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Normal: 0.01 where images enter, and else 1 / the channels of a group."""
    return normal(0.01 if shape[2] == 3 else 1 / shape[2], key, shape)


def _pytorch_bias(key: Array, shape: tuple[int, ...]) -> Float[Array, " o"]:
    return uniform(1 / math.sqrt(fan_in(shape)), key, shape[-1:])


_SMALL = partial(normal, 0.01)

SCHEMES = {
    "he": Scheme(he_normal, he_normal, _SMALL),
    "he_zero": Scheme(he_normal, he_normal, _SMALL, zero_residual=True),
    "uniform_zero": Scheme(one_over_root_of_fan_in, he_normal, _SMALL, zero_residual=True),
    "pytorch": Scheme(
        one_over_root_of_fan_in,
        one_over_root_of_fan_in,
        one_over_root_of_fan_in,
        _pytorch_bias,
    ),
    "authors": Scheme(_authors_conv, _SMALL, _SMALL, norm_bias=1e-4),
}
"""The schemes by name.

* ``he``: He normal convolutions.
* ``pytorch``: what PyTorch's layers do by themselves.
* ``authors``: as the authors' PyTorch code starts ShuffleNet V1.
"""

DEFAULT = "he"
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
