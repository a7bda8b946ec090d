"""LeNet-5 (LeCun et al., 1998), the first network with sparsely connected convolution.

Its layer C3 has a table of which maps each of its outputs sees, "to keep the number of connections
within reasonable bounds" and to break the symmetry: what group convolution does with a rule. As in
the article there are 60,000 trainable parameters: pooling has a coefficient and a bias for each
map, and the last layer measures distances to fixed codes. The reimplementations with 61,706
parameters have a dense C3, pooling without parameters and a linear last layer.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.images import Images, check_images
from shufflenet_jax.layers import Conv, Linear, check_positive, flatten

C3_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
"""The maps of S2 that each map of C3 sees (the article's table I)."""

SIZE = 32
"""Height and width of its images, in pixels."""


class SparseConv(nnx.Module):
    """A convolution each of whose outputs sees its own choice of the inputs; with bias, unpadded.

    >>> network = nnx.eval_shape(lambda: SparseConv(C3_TABLE, 5, rngs=nnx.Rngs(0)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network)))
    1516

    Args:
      table: The input channels that each output channel sees.
      kernel_size: Height and width of the kernels.
      rngs: Source of the initial weights.
    """

    def __init__(self, table: Sequence[Sequence[int]], kernel_size: int, *, rngs: nnx.Rngs):
        self.table = tuple(map(tuple, table))
        self.convs = nnx.List(
            [
                Conv(len(inputs), 1, kernel_size, padding=0, bias=True, rngs=rngs)
                for inputs in self.table
            ]
        )

    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "c2 h2 w2 b"]:
        seen = (x[jnp.array(inputs)] for inputs in self.table)
        return jnp.concatenate([conv(each) for conv, each in zip(self.convs, seen, strict=True)])


class Subsampling(nnx.Module):
    """The mean of 2x2, times a coefficient and plus a bias that each channel learns."""

    def __init__(self, channels: int):
        self.coefficient = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "c h2 w2 b"]:
        pooled = chwn.avg_pool(x, size=2, padding=(0, 0))
        coefficient, bias = (
            chwn.per_channel(each[...].astype(x.dtype)) for each in (self.coefficient, self.bias)
        )
        return pooled * coefficient + bias


class LeNet5(nnx.Module):
    """Three convolutions, two subsamplings, a linear layer, and distances to the classes' codes.

    It sees gray: colours are averaged. The codes are drawn at random, which the article allows; it
    has drawings of the characters.

    Args:
      num_classes: How many codes there are.
      rngs: Source of the initial weights.

    Attributes:
      widths: Output channels of C1, C3 and C5.
    """

    def __init__(self, *, num_classes: int = 10, rngs: nnx.Rngs):
        check_positive(num_classes=num_classes)
        self.num_classes = num_classes
        first, third, fifth = self.widths = (6, len(C3_TABLE), 120)
        self.c1 = Conv(1, first, 5, padding=0, bias=True, rngs=rngs)
        self.s2 = Subsampling(first)
        self.c3 = SparseConv(C3_TABLE, 5, rngs=rngs)
        self.s4 = Subsampling(third)
        self.c5 = Conv(third, fifth, 5, padding=0, bias=True, rngs=rngs)
        self.f6 = Linear(fifth, 84, role="classifier", rngs=rngs)

    def __call__(self, images: Images, *, train: bool = False) -> Float[Array, "b classes"]:
        """Returns logits, in float32: minus half the squared distance to the code of each class.

        Args:
          images: Normalised, (b, 32, 32, c) with any number of channels, of type float32, bfloat16
            or float16, in which the network computes.
          train: Makes no difference.

        Raises:
          InputError: The images are not 32x32, or of another type or shape.
        """
        del train
        images = check_images(images, channels=None)
        _, height, width, _ = images.shape
        if (height, width) != (SIZE, SIZE):
            raise InputError(f"LeNet-5 needs images of {SIZE}x{SIZE}, not {height}x{width}")
        x = chwn.from_nhwc(images.mean(-1, keepdims=True))
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            x = _squash(layer(x))
        x = _squash(self.f6(flatten(x)))
        # The squares of the distance that are the same for every class make no difference.
        with jax.named_scope("head"):
            return x.astype(jnp.float32) @ self._codes(x.shape[-1])

    def _codes(self, length: int) -> Float[Array, "length classes"]:
        """A column of 1 and -1 for each class, always the same."""
        return jax.random.rademacher(jax.random.key(0), (length, self.num_classes), jnp.float32)


def _squash(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The article's sigmoid, through (1, 1) and (-1, -1) (its appendix A)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


lenet5 = LeNet5
"""By the name that it has beside the other constructors."""
