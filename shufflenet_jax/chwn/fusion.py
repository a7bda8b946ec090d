"""What XLA compiles apart from what stands around it, and what is computed twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array


@dataclass(frozen=True)
class CompiledApart:
    """A function that XLA compiles apart from what stands around it, unless JAX differentiates it.

    XLA on a CPU would fuse it with the reshape to a matrix that the next matrix product asks for,
    and then find each value's row and column by division, several times slower than without. In a
    gradient that JAX derives, what the two can share is worth more.

    Attributes:
      function: Of arrays. It may not call `jax.nn.relu`, `jnp.where` or other functions that JAX
        jits: they would be compiled apart in turn.
      differentiated: What is differentiated instead, another form of the same function.
    """

    function: Callable[..., Array]
    differentiated: Callable[..., Array]

    def __call__(self, *arrays: Array, **options: Any) -> Array:
        """Calls the function, or the other one; either is given the options, such as a window."""
        compiled = jax.jit(self.function, static_argnames=tuple(options))

        @jax.custom_jvp
        def apart(*arrays: Array) -> Array:
            with set_xla_metadata(inlineable="false"):
                return compiled(*arrays, **options)

        @apart.defjvp
        def derivative(primals: Sequence[Array], tangents: Sequence[Array]) -> tuple[Array, Array]:
            return jax.jvp(partial(self.differentiated, **options), primals, tangents)

        return apart(*arrays)


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, of which a gradient keeps the arguments alone and computes the rest again."""
    if jax.default_backend() != "cpu":
        return jax.checkpoint(function)
    compiled = jax.jit(function)

    # XLA on a CPU forgets what `jax.checkpoint` tells it, and finds out that both are the same.
    @jax.checkpoint
    def apart(*arguments: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    return apart
