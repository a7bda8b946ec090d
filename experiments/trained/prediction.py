"""What a trained network takes images for."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from shufflenet_jax.data import IMAGE_SUFFIXES, eval_image
from shufflenet_jax.errors import InputError
from shufflenet_jax.trained import Trained

BEST = 5
"""Labels that are told of an image."""


@dataclass(frozen=True)
class Guess:
    """A label, and the probability that the network gives it."""

    label: str
    probability: float


@dataclass(frozen=True)
class Predicted:
    """What is said of an image.

    Attributes:
      image: Its path, as given.
      guesses: The best labels, the most probable first.
      error: Why there are none.
    """

    image: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None


def images_in(paths: Iterable[Path]) -> list[Path]:
    """The images of paths, in order; of a folder, all below it that are images by their names.

    Raises:
      InputError: There is no such path, or a folder has no images.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                Path(folder, name)
                for folder, _, names in os.walk(path)
                for name in names
                if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
            )
            if not inside:
                raise InputError(f"{path} has no images in it")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"there is no image {path}")
    return found


def predict(trained: Trained, paths: Sequence[Path], batch_size: int = 32) -> Iterator[Predicted]:
    """Classifies images, in their order; one that cannot be read is named, and passed over."""
    ask = _asked(trained)
    for start in range(0, len(paths), batch_size):
        some = paths[start : start + batch_size]
        said: list[Predicted | None] = []
        images = np.zeros(
            (min(batch_size, len(paths)), *trained.preprocessing.image_shape), np.uint8
        )
        for place, path in enumerate(some):
            try:
                images[place] = eval_image(trained.preprocessing, path.read_bytes(), str(path))
                said.append(None)
            except OSError as error:
                said.append(Predicted(str(path), error=f"cannot read {path}: {error.strerror}"))
            except InputError as error:
                said.append(Predicted(str(path), error=str(error)))
        probabilities = ask(images)
        for path, row, known in zip(some, probabilities, said, strict=False):
            best = np.argsort(-row, kind="stable")[:BEST]
            guesses = tuple(Guess(trained.class_names[each], float(row[each])) for each in best)
            yield known or Predicted(str(path), guesses)


def _asked(trained: Trained) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what gives the probabilities of a batch of images."""
    graphdef, state = nnx.split(trained.network)

    @jax.jit
    def ask(state: nnx.State, images: jax.Array) -> jax.Array:
        return jax.nn.softmax(nnx.merge(graphdef, state)(trained.normalise(images)))

    return lambda images: np.asarray(ask(state, jax.numpy.asarray(images)))


def as_text(said: Predicted) -> str:
    """A line for the image, and one for each label."""
    lines = [f"{100 * each.probability:6.2f}%  {each.label}" for each in said.guesses]
    return "\n".join([said.image, *lines])


def as_json(said: Iterable[Predicted]) -> str:
    """All of it."""
    rows = [
        {"image": each.image, "error": each.error}
        if each.error
        else {"image": each.image, "top5": [vars(guess) for guess in each.guesses]}
        for each in said
    ]
    return json.dumps(rows, indent=1)
