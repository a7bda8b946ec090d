"""From an encoded image to what a network sees, with PIL throughout."""

import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from PIL import Image, ImageEnhance

from shufflenet_jax.data.decode import naming, opened, rgb
from shufflenet_jax.errors import InputError
from shufflenet_jax.pixels import PIXEL_MEAN, PIXEL_STD

if TYPE_CHECKING:  # it imports JAX, and images are prepared without
    from jaxtyping import Array

_Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

# How much finer than asked for an image is before it is resized properly; what is finer still
# is first thinned out by whole factors, which is cheap.
_REDUCING_GAP = 2

_RANGE = "two numbers, least and greatest, from {} to {}"

# The greatest image_size: beyond it a batch of a few fills the memory.
_LARGEST = 8192

# Principal components of ImageNet's RGB values from 0 to 1, from fb.resnet.torch's imagenet.lua.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


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
        return self.crop == "shift" and not self.color and not self.lighting

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
) -> UInt8[np.ndarray, "s s 3"]:
    """Decodes and augments an image; what it does depends on ``moves`` and ``rng`` alone.

    Args:
      moves: Of this one image.
      rng: Draws all that is not a move; nothing where `Preprocessing.only_moves`.
    """
    size = preprocessing.image_size
    image: Image.Image
    with naming(key):
        image = opened(encoded)
        if preprocessing.crop == "shift":
            box = _central_box(image.size, preprocessing.eval_resize)
        else:
            box = _random_box(image.size, preprocessing.scale, preprocessing.ratio, rng)
        image = _resized(image, box, size)
    x, y, flip = (each.item() for each in moves)
    if x or y:
        image = image.crop((x, y, x + size, y + size))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if preprocessing.color:
        image = _color_jittered(image, preprocessing.color, rng)
    pixels = np.asarray(image)
    if preprocessing.lighting:
        noise = _EIGENVECTORS @ (_EIGENVALUES * rng.normal(0, preprocessing.lighting, size=3))
        shifted = pixels + np.round(255 * noise).astype(np.int16)
        pixels = shifted.clip(0, 255).astype(np.uint8)
    return pixels


def eval_image(
    preprocessing: Preprocessing, encoded: bytes, key: str
) -> UInt8[np.ndarray, "s s 3"]:
    """Decodes an image, and cuts out the central square of it, resized."""
    with naming(key):
        image = opened(encoded)
        box = _central_box(image.size, preprocessing.eval_resize)
        return np.asarray(_resized(image, box, preprocessing.image_size))


def _resized(image: Image.Image, box: _Box, size: int) -> Image.Image:
    """Resizes a part of an image, just opened, to a square."""
    width, height = image.size
    # A JPEG decodes faster to 1/2, 1/4 or 1/8 of its size.
    least = (
        math.ceil(width * _REDUCING_GAP * size / (box[2] - box[0])),
        math.ceil(height * _REDUCING_GAP * size / (box[3] - box[1])),
    )
    _, extent = image.draft(None, least) or (None, (0, 0, width, height))
    image = rgb(image)
    x, y = extent[2] / width, extent[3] / height
    left, top = box[0] * x, box[1] * y
    right, bottom = min(box[2] * x, image.width), min(box[3] * y, image.height)
    return image.resize(
        (size, size),
        # Bicubic as in fb.resnet.torch's transforms.lua, whose recipe ResNeXt's is.
        Image.Resampling.BICUBIC,
        box=(left, top, right, bottom),
        reducing_gap=_REDUCING_GAP,
    )


def _central_box(size: tuple[int, int], zoom: float) -> _Box:
    side = min(size) / zoom
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def _random_box(
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> _Box:
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


def _color_jittered(image: Image.Image, color: float, rng: np.random.Generator) -> Image.Image:
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index in rng.permutation(len(enhancers)):
        image = enhancers[index](image).enhance(rng.uniform(1 - color, 1 + color))
    return image
