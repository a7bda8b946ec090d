"""Functions whose gradient is written out by hand, and that can be differentiated in every way.

`jax.custom_vjp` would refuse all but reverse mode: no `jax.jvp`, no Hessian-vector products. Here
the derivative in forward mode is that of another, plain form of the function, as one linear
operation; and what is written by hand is the transpose of that operation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, PyTree

_Both = tuple[PyTree[Array], PyTree[Array]]


@dataclass(frozen=True)
class WithGradient:
    """A function of arrays that brings its own gradient.

    Attributes:
      function: What is computed where nothing is differentiated.
      forward: Returns what the function does, and what backward needs of it.
      backward: Called with that and the cotangent of the output; returns those of the arguments.
      plain: The same function, which JAX differentiates in forward mode.
    """

    function: Callable[..., PyTree[Array]]
    forward: Callable[..., tuple[PyTree[Array], PyTree[Array]]]
    backward: Callable[..., tuple[Array, ...]]
    plain: Callable[..., PyTree[Array]]

    def __call__(self, *arrays: Array, **options: Any) -> PyTree[Array]:
        """Calls the function; all four are given the options, such as a window."""
        function, forward, backward, plain = (
            partial(each, **options)
            for each in (self.function, self.forward, self.backward, self.plain)
        )
        called = jax.custom_jvp(function)

        @called.defjvp
        def derivative(primals: Sequence[Array], tangents: Sequence[Array]) -> _Both:
            output, saved = forward(*primals)
            leaves, structure = jax.tree.flatten(output)
            saved_leaves, saved_structure = jax.tree.flatten(saved)
            count = len(primals)

            def push(*values: Array) -> list[Array]:
                primals, tangents = values[:count], values[len(values) - count :]
                return jax.tree.leaves(jax.jvp(plain, primals, tangents)[1])

            def pull(values: Sequence[Array], cotangents: Sequence[Array]) -> Sequence[Array]:
                return backward(
                    jax.tree.unflatten(saved_structure, values[count:]),
                    jax.tree.unflatten(structure, cotangents),
                )

            pushed = _linear.bind(
                *primals,
                *saved_leaves,
                *tangents,
                push=push,
                pull=pull,
                linear=count,
                outputs=tuple(map(jax.typeof, leaves)),
            )
            return output, jax.tree.unflatten(structure, pushed)

        return called(*_varying_alike(arrays))


def _varying_alike(arrays: Sequence[Array]) -> list[Array]:
    """Under `jax.shard_map`, arrays that all differ along the axes along which one of them does.

    The gradient of one that did not is then summed over the axis, as JAX does it everywhere.
    """
    axes = frozenset().union(*(jax.typeof(each).manual_axis_type.varying for each in arrays))
    return [
        jax.lax.pcast(each, tuple(missing), to="varying")
        if (missing := axes - jax.typeof(each).manual_axis_type.varying)
        else each
        for each in arrays
    ]


# A function of values, linear in the last few of them, with the transpose that is given.
#
# Args:
#   values: Those in which it need not be linear, and then those in which it is.
#   push: Returns a list of arrays, when called with all values.
#   pull: The transpose: called with the first values, and cotangents of the outputs; returns those
#     of the linear values.
#   linear: How many are linear.
#   outputs: Types of what is returned.
_linear = Primitive("linear_with_transpose")
_linear.multiple_results = True


@_linear.def_impl
def _push(*values: Array, push: Callable[..., list[Array]], **_: Any) -> list[Array]:
    return push(*values)


@_linear.def_abstract_eval
def _types(*values: Any, outputs: Sequence[Any], **_: Any) -> Sequence[Any]:
    return outputs


def _transpose(
    cotangents: Sequence[Any], *values: Any, pull: Callable, linear: int, **_: Any
) -> list[Array | None]:
    given, unknown = values[:-linear], values[-linear:]
    pulled = pull(given, [ad.instantiate_zeros(each) for each in cotangents])
    return [
        *(None for _ in given),
        *(
            cotangent if ad.is_undefined_primal(value) else None
            for value, cotangent in zip(unknown, pulled, strict=True)
        ),
    ]


def _derivative(
    values: Sequence[Array], tangents: Sequence[Any], *, push: Callable, **_: Any
) -> tuple[list[Array], list[Array]]:
    moving = [index for index, each in enumerate(tangents) if not isinstance(each, ad.Zero)]

    def of_moving(*moved: Array) -> list[Array]:
        held = dict(enumerate(values)) | dict(zip(moving, moved, strict=True))
        return push(*held.values())

    return jax.jvp(of_moving, [values[i] for i in moving], [tangents[i] for i in moving])


def _batch(
    axis: Any, values: Sequence[Array], axes: Sequence[int | None], **options: Any
) -> tuple[list[Array], list[int]]:
    """All values are batched along their first axis, so that the transpose sums over none."""
    mapped = partial(jax.vmap, axis_name=axis.name, axis_size=axis.size)
    values = [batching.bdim_at_front(*each, axis.size) for each in zip(values, axes, strict=True)]
    push, pull = mapped(options["push"]), mapped(options["pull"])
    outputs = tuple(jax.tree.map(jax.typeof, jax.eval_shape(push, *values)))
    pushed = _linear.bind(*values, **options | {"push": push, "pull": pull, "outputs": outputs})
    return pushed, [0] * len(pushed)


ad.primitive_jvps[_linear] = _derivative
ad.primitive_transposes[_linear] = _transpose
batching.fancy_primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_push, multiple_results=True))
