"""From an encoded image to what a network sees: which part of it, moved and mirrored."""

import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from shufflenet_jax.data.colors import Colors, draw_colors
from shufflenet_jax.data.decode import naming
from shufflenet_jax.data.part import Box, cut_out
from shufflenet_jax.errors import InputError
from shufflenet_jax.pixels import PIXEL_MEAN, PIXEL_STD

if TYPE_CHECKING:  # it imports JAX, and images are prepared without
    from jaxtyping import Array

_RANGE = "two numbers, least and greatest, from {} to {}"

# The greatest image_size: beyond it a batch of a few fills the memory.
_LARGEST = 8192


@dataclass(frozen=True)
class Preprocessing:
    """How images become network inputs. The defaults are for ImageNet.

    Attributes:
      image_size: Height and width of the result, in pixels.
      crop: What training sees. "random_resized": a random part of the image. "shift": the
        evaluation image, moved about and padded with zeros; for small images.
      scale: Least and greatest area of a random part, as fractions of the image.
      ratio: Least and greatest width over height of a random part.
      shift: Greatest shift in x and in y, as a fraction of image_size.
      flip: Mirror every other training image, at random.
      color: c: brightness, contrast and saturation change, in random order, by factors uniform
        in [1 - c, 1 + c], as in fb.resnet.torch and ResNeXt. 0 is off.
      lighting: Standard deviation of AlexNet's noise along the principal components of RGB
        values. 0 is off.
      eval_resize: Shorter side of the evaluation image, over image_size, before its central
        square is cut out.
      pixel_mean, pixel_std: What pixels in [0, 1] are normalised by, by channel (R, G, B); see
        `shufflenet_jax.normalise`. Weights of other code may be for another range than ImageNet's.
    """

    image_size: int = 224
    crop: str = "random_resized"
    # "Slightly less aggressive scale augmentation", says section 4, and gives no value. The lower
    # bound is tensorpack's for networks narrower than 1x (examples/ImageNetModels/shufflenet.py);
    # for 1x it keeps Inception's 0.08.
    scale: tuple[float, float] = (0.49, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    shift: float = 0.125
    flip: bool = True
    color: float = 0.4
    lighting: float = 0.1
    eval_resize: float = 256 / 224
    pixel_mean: tuple[float, float, float] = PIXEL_MEAN
    pixel_std: tuple[float, float, float] = PIXEL_STD

    def __post_init__(self) -> None:
        for name, valid, rule in (
            ("image_size", _whole(self.image_size), f"at least 1, at most {_LARGEST}, and whole"),
            ("crop", self.crop in ("random_resized", "shift"), "'random_resized' or 'shift'"),
            ("scale", _span(self.scale, 1e-6, 1.0), _RANGE.format(1e-6, 1)),
            ("ratio", _span(self.ratio, 0.01, 100.0), _RANGE.format(0.01, 100)),
            ("shift", _number(self.shift, 0.0, 1.0), "in [0, 1]"),
            ("flip", isinstance(self.flip, bool), "true or false"),
            ("color", _number(self.color, 0.0, 1.0), "in [0, 1]"),
            ("lighting", _number(self.lighting, 0.0, 10.0), "in [0, 10]"),
            ("eval_resize", _number(self.eval_resize, 1.0, 100.0), "in [1, 100]"),
            ("pixel_mean", _by_channel(self.pixel_mean, 0.0, 1.0), "three numbers in [0, 1]"),
            ("pixel_std", _by_channel(self.pixel_std, 1e-3, 10.0), "three numbers in [0.001, 10]"),
        ):
            if not valid:
                raise InputError(f"{name} is {getattr(self, name)!r}, but must be {rule}")

    @property
    def only_moves(self) -> bool:
        """Whether training sees the evaluation images, moved and mirrored, and no other pixels."""
        return self.crop == "shift" and not self.recolors

    @property
    def recolors(self) -> bool:
        """Whether the colours of training images change."""
        return bool(self.color or self.lighting)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the result."""
        return self.image_size, self.image_size, 3


class Moves(NamedTuple):
    """How some training images are moved and mirrored.

    Attributes:
      x, y: Pixels by which what is seen lies further right and down than the image; what is
        beyond its edges is zero.
      flip: Whether it is then mirrored, left for right.
    """

    x: "Int32[np.ndarray | Array, ' b']"
    y: "Int32[np.ndarray | Array, ' b']"
    flip: "Bool[np.ndarray | Array, ' b']"

    def of(self, place: int) -> "Moves":
        """Those of one image, without an axis."""
        return Moves(*(each[place] for each in self))


def draw_moves(preprocessing: Preprocessing, count: int, rng: np.random.Generator) -> Moves:
    """Draws the moves of so many images; those of random parts are mirrored only."""
    bound = 0
    if preprocessing.crop == "shift":
        bound = round(preprocessing.shift * preprocessing.image_size)
    x, y = rng.integers(-bound, bound, (2, count), np.int32, endpoint=True)
    return Moves(x, y, (rng.random(count) < 0.5) & preprocessing.flip)


def _number(value: object, least: float, greatest: float) -> bool:
    # A comparison with NaN is false.
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    return value <= greatest and not value < least


def _whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and _number(value, 1.0, float(_LARGEST))


def _span(value: object, least: float, greatest: float) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(_number(bound, least, greatest) for bound in value)
        and value[0] <= value[1]
    )


def _by_channel(value: object, least: float, greatest: float) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 3
        and all(_number(each, least, greatest) for each in value)
    )


IMAGENET = Preprocessing()
"""That of ImageNet."""


def train_image(
    preprocessing: Preprocessing,
    encoded: bytes,
    key: str,
    moves: Moves,
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "s s 3"], Colors]:
    """Decodes, crops and mirrors an image, and draws how its colours are to change.

    All depends on ``moves`` and ``rng`` alone.

    Args:
      moves: Of this one image.
      rng: Draws all that is not a move; nothing where `Preprocessing.only_moves`.
    """

    def choose(extent: tuple[int, int]) -> Box:
        if preprocessing.crop == "shift":
            return _central_box(extent, preprocessing.eval_resize)
        return _random_box(extent, preprocessing.scale, preprocessing.ratio, rng)

    with naming(key):
        pixels = cut_out(encoded, choose, preprocessing.image_size)
    pixels = _moved(pixels, *(each.item() for each in moves))
    return pixels, draw_colors(preprocessing.color, preprocessing.lighting, rng)


def eval_image(
    preprocessing: Preprocessing, encoded: bytes, key: str
) -> UInt8[np.ndarray, "s s 3"]:
    """Decodes an image, and cuts out the central square of it, resized."""
    with naming(key):
        return cut_out(
            encoded,
            lambda extent: _central_box(extent, preprocessing.eval_resize),
            preprocessing.image_size,
        )


def _moved(
    pixels: UInt8[np.ndarray, "s s 3"], x: int, y: int, flip: bool
) -> UInt8[np.ndarray, "s s 3"]:
    """Sees an image from further right and down, with zeros beyond it, and then mirrored."""
    if x or y:
        size = len(pixels)
        seen = np.zeros_like(pixels)
        seen[max(0, -y) : size - max(0, y), max(0, -x) : size - max(0, x)] = pixels[
            max(0, y) : size + min(0, y), max(0, x) : size + min(0, x)
        ]
        pixels = seen
    if flip:
        # As wholes, pixels are reversed in half the time.
        whole = np.ascontiguousarray(pixels).view("V3")
        pixels = np.ascontiguousarray(whole[:, ::-1]).view(np.uint8)
    return pixels


def _central_box(size: tuple[int, int], zoom: float) -> Box:
    side = min(size) / zoom
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def _random_box(
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """A part with its area uniform in ``scale`` and its shape log-uniform in ``ratio``.

    Inception's augmentation (arXiv 1409.4842, section 6). The central square where ten tries
    do not fit into the image.
    """
    for _ in range(10):
        area = rng.uniform(*scale) * size[0] * size[1]
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = math.sqrt(area * shape), math.sqrt(area / shape)
        if width <= size[0] and height <= size[1]:
            left, top = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
            return left, top, left + width, top + height
    return _central_box(size, zoom=1.0)
