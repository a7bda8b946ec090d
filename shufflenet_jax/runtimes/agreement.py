"""Whether what was exported computes what the network does."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from shufflenet_jax.errors import InputError
from shufflenet_jax.trained import Trained

TOLERANCE = 1e-4
"""Greatest difference of a logit, over the largest one."""

Runs = Callable[[Float[np.ndarray, "b h w 3"]], Float[np.ndarray, "b classes"]]
"""An exported network: logits of normalised images."""


def difference(trained: Trained, runs: Runs, tolerance: float = TOLERANCE) -> float:
    """Runs both on drawn images, of batches of 1 and of 3.

    Returns:
      The greatest difference of a logit, over the largest one.

    Raises:
      InputError: It is above the tolerance; both are named.
    """
    graphdef, state = nnx.split(trained.network)
    ours = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))
    random, found = np.random.default_rng(0), 0.0
    for batch in (1, 3):
        shape = (batch, *trained.preprocessing.image_shape)
        pixels = random.integers(0, 256, shape, np.uint8)
        images = np.asarray(trained.normalise(pixels))
        expected, logits = np.asarray(ours(state, images)), runs(images)
        largest = max(float(np.abs(expected).max()), 1e-30)
        found = float(np.maximum(found, np.abs(logits - expected).max() / largest))
    if not found <= tolerance:  # nor is a NaN
        raise InputError(
            f"what was exported differs from the network by {found:.2g} of the largest logit, and "
            f"{tolerance:.2g} are allowed: nothing was written"
        )
    return found
