"""What XLA may fuse with what on a CPU."""

from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array


def alone(
    function: Callable[..., Array], differentiated: Callable[..., Array] | None = None
) -> Callable[..., Array]:
    """Makes XLA compile a function apart from what stands around it, unless it is differentiated.

    XLA on a CPU would fuse it with the reshape to a matrix that the next matrix product asks for,
    and then find each value's row and column by division, several times slower than without. While
    training, what it can share with the gradient is worth more.

    Args:
      function: Of arrays. It may not call `jax.nn.relu`, `jnp.where` or other functions that JAX
        jits: they would be compiled apart in turn.
      differentiated: What is computed instead while training, another form of the same function.
    """
    compiled = jax.jit(function)

    @jax.custom_vjp
    def alone(*arguments: Array) -> Array:
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    def forward(*arguments: Array):
        return jax.vjp(differentiated or function, *arguments)

    def backward(pullback: Callable[[Array], tuple[Array, ...]], dy: Array):
        return pullback(dy)

    alone.defvjp(forward, backward)
    return alone
