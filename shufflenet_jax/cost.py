"""Multiply-adds and parameters, counted from a network's jaxpr at any input size."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import ShapedArray
from jax.extend import core
from jaxtyping import PyTree

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError

Module = TypeVar("Module", bound=nnx.Module)


@dataclass(frozen=True)
class Complexity:
    """Counts for one image.

    Attributes:
      macs: Multiply-adds of all convolutions and linear layers. The paper's Table 5 counts so.
      macs_without_head: The same without the classifier. The paper's Table 1 counts so.
      params: Trainable parameters.
    """

    macs: int
    macs_without_head: int
    params: int


def complexity(network: nnx.Module, input_shape: tuple[int, int, int]) -> Complexity:
    """Counts multiply-adds and parameters; BN, ReLU, pooling and shuffle count nothing.

    What `jax.lax.scan` repeats counts every time. Of branches, the one that costs most counts.

    Nothing is computed, so the network may be abstract, with no weights allocated:

    >>> from shufflenet_jax import shufflenet
    >>> complexity(abstract(shufflenet, groups=3), (224, 224, 3))
    Complexity(macs=137460672, macs_without_head=136500672, params=1865728)

    Args:
      network: Called on one NHWC image with train=False; any module. What it computes under
        `jax.named_scope("head")` is the classifier.
      input_shape: Height, width and channels of the image.

    Raises:
      InputError: A loop of it has no fixed number of turns, or it does not take such images.
    """
    graphdef, *states = nnx.split(network, nnx.Param, ...)

    def forward(states: list[PyTree], image: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, *states)(image, train=False)

    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    # The direct form has one equation a convolution; the fast form spreads it over many.
    with chwn.form(chwn.DIRECT):
        jaxpr = jax.make_jaxpr(forward)(states, image).jaxpr
    counts = list(_multiply_adds(jaxpr))
    return Complexity(
        macs=sum(macs for macs, _ in counts),
        macs_without_head=sum(macs for macs, in_head in counts if not in_head),
        params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(states[0])),
    )


def abstract(constructor: Callable[..., Module], **arguments: Any) -> Module:
    """Builds a network with no weights allocated: what counting and `jax.eval_shape` ask for.

    As `nnx.eval_shape` does, but in a fraction of the time: keys are drawn by arithmetic that is
    traced, ever more slowly the more of them there are, and without weights one key is enough.

    Args:
      constructor: Called with the arguments and rngs.
      arguments: What else it takes.
    """

    return nnx.eval_shape(lambda: constructor(**arguments, rngs=_OneKeyForAll()))


class _OneKey(nnx.RngStream):
    """Gives the same key whenever it is asked."""

    def __call__(self) -> jax.Array:
        return self.key[...]


class _OneKeyForAll(nnx.Rngs):
    def __init__(self) -> None:
        super().__init__()
        self.default = _OneKey(0, tag="default")


def _multiply_adds(jaxpr: core.Jaxpr, in_head: bool = False) -> Iterator[tuple[int, bool]]:
    """Yields (multiply-adds, whether in the head) of every convolution and matrix product.

    Raises:
      InputError: A loop runs who knows how often.
    """
    for eqn in jaxpr.eqns:
        eqn_in_head = in_head or "head" in str(eqn.source_info.name_stack).split("/")
        within = [
            list(_multiply_adds(sub, eqn_in_head)) for sub in core.jaxprs_in_params(eqn.params)
        ]
        match eqn.primitive.name:
            case "conv_general_dilated":
                kernel = _array_of(eqn.invars[1])
                out_channels = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
                # Each output value sums over one filter: height x width x channels of a group.
                yield _array_of(eqn.outvars[0]).size * kernel.size // out_channels, eqn_in_head
            case "dot_general":
                (contracting, _), _ = eqn.params["dimension_numbers"]
                summed = math.prod(_array_of(eqn.invars[0]).shape[axis] for axis in contracting)
                yield _array_of(eqn.outvars[0]).size * summed, eqn_in_head
            case "scan":
                for macs, inner_in_head in chain(*within):
                    yield eqn.params["length"] * macs, inner_in_head
            case "cond":
                yield from max(within, key=lambda branch: sum(macs for macs, _ in branch))
            case "while" if any(within):
                raise InputError(
                    "multiply-adds in a loop without a fixed number of turns cannot be counted: "
                    "use jax.lax.scan, or fori_loop with numbers that are known"
                )
            case _:
                yield from chain(*within)


def _array_of(atom: core.Var | core.Literal) -> ShapedArray:
    assert isinstance(atom.aval, ShapedArray)
    return atom.aval
