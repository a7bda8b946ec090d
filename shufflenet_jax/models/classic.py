"""What the networks before residuals share: dropout, a least size of images, and a large head."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.images import Images, check_images
from shufflenet_jax.layers import (
    Classifier,
    Linear,
    adaptive_avg_pool,
    dropout,
    flatten,
)

Logits = Float[Array, "b classes"]


class Classic(nnx.Module):
    """A network with dropout. Subclasses write `forward`.

    Attributes:
      widths: Output channels of its blocks, as built.
      least_size: Height and width below which nothing is left of an image.
      upscale_to: Smaller images are scaled up to that height and width first; 0 for never.
    """

    widths: tuple[int, ...]
    least_size: int
    upscale_to: int = 0

    def __call__(self, images: Images, *, train: bool = False, key: Array | None = None) -> Logits:
        """Returns logits, in float32.

        Args:
          images: Normalised, (b, h, w, 3), of type float32, bfloat16 or float16, in which the
            network computes.
          train: Whether batch statistics normalise, where there is batch normalisation.
          key: What dropout is drawn from; without one nothing is dropped.

        Raises:
          InputError: The images are too small, or of another type or shape.
        """
        return self.forward(self._checked(images), train=train, key=key)

    def heads(self, images: Images, key: Array | None) -> list[tuple[float, Logits]]:
        """The logits to train on, each with its weight in the loss; those of `__call__` first."""
        return [(1.0, self(images, train=True, key=key))]

    def forward(self, x: Float[Array, "c h w b"], *, train: bool, key: Array | None) -> Logits:
        raise NotImplementedError

    def _checked(self, images: Images) -> Float[Array, "3 h2 w2 b"]:
        """The images in the layout used inside."""
        checked = check_images(images)
        batch, height, width, channels = checked.shape
        if min(height, width) < self.upscale_to:
            height, width = max(height, self.upscale_to), max(width, self.upscale_to)
            checked = jax.image.resize(checked, (batch, height, width, channels), "bilinear")
        least = self.least_size
        if min(height, width) < least:
            name = type(self).__name__
            raise InputError(
                f"{name} needs images of at least {least}x{least}, not {height}x{width}"
            )
        return chwn.from_nhwc(checked)


class LargeHead(nnx.Module):
    """Two linear layers of 4,096 outputs, each with ReLU and dropout, and the classifier.

    Args:
      channels: Of the map that is classified.
      size: Its height and width; others are averaged to it, which lets a network take images of
        other sizes than it was made for.
      num_classes: Outputs of the classifier.
      rngs: Source of the initial weights.
    """

    def __init__(self, channels: int, size: int, num_classes: int, *, rngs: nnx.Rngs):
        hidden = 4096
        self.size = size
        self.first = Linear(channels * size**2, hidden, rngs=rngs)
        self.second = Linear(hidden, hidden, rngs=rngs)
        self.classifier = Classifier(hidden, num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "c h w b"], key: Array | None) -> Logits:
        first, second = split_key(key, 2)
        x = flatten(adaptive_avg_pool(x, self.size))
        x = dropout(jax.nn.relu(self.first(x)), 0.5, first)
        x = dropout(jax.nn.relu(self.second(x)), 0.5, second)
        return self.classifier(x)


def check_upscale(upscale_to: int) -> int:
    """Returns the size to scale small images up to; 0 for never.

    Raises:
      InputError: It is negative.
    """
    if upscale_to < 0:
        raise InputError(f"upscale_to must be a size, or 0 for never, not {upscale_to}")
    return upscale_to


def split_key(key: Array | None, count: int) -> list[Array | None]:
    """As many keys as asked for; None each if there is none to split."""
    return [None] * count if key is None else list(jax.random.split(key, count))
