"""How the colours of training images change: drawn here, and done on the devices (`recolor`)."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

if TYPE_CHECKING:  # it imports JAX, and images are prepared without
    from jaxtyping import Array

BRIGHTNESS, CONTRAST, SATURATION = range(3)

# Principal components of ImageNet's RGB values from 0 to 1, from fb.resnet.torch's imagenet.lua.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


class Colors(NamedTuple):
    """How the colours of some images change. A single image has no first axis.

    Attributes:
      order: What changes first, second and third: `BRIGHTNESS`, `CONTRAST` and `SATURATION`.
      factor: By how much each of them does, in that order; 1 changes nothing.
      light: What is then added to R, G and B, in levels of 0 to 255.
    """

    order: "Int32[np.ndarray | Array, '*b 3']"
    factor: "Float32[np.ndarray | Array, '*b 3']"
    light: "Int32[np.ndarray | Array, '*b 3']"


def unchanged(count: int) -> Colors:
    """The colours of so many images as they are."""
    return Colors(
        np.tile(np.arange(3, dtype=np.int32), (count, 1)),
        np.ones((count, 3), np.float32),
        np.zeros((count, 3), np.int32),
    )


_UNCHANGED = Colors(*(each[0] for each in unchanged(1)))


def draw_colors(color: float, lighting: float, rng: np.random.Generator) -> Colors:
    """Draws how the colours of one image change.

    Args:
      color: See `Preprocessing`.
      lighting: See `Preprocessing`.
      rng: Nothing is drawn for what is 0.
    """
    order, factor, light = _UNCHANGED
    if color:
        order = rng.permutation(3).astype(np.int32)
        factor = rng.uniform(1 - color, 1 + color, 3).astype(np.float32)
    if lighting:
        noise = EIGENVECTORS @ (EIGENVALUES * rng.normal(0, lighting, size=3))
        light = np.round(255 * noise).astype(np.int32)
    return Colors(order, factor, light)
