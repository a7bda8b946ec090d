"""A network as StableHLO, which JAX, and whatever else reads it, runs without this package."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export
from jaxtyping import Float

from shufflenet_jax.inference import fold
from shufflenet_jax.runtimes.agreement import difference
from shufflenet_jax.trained import Trained


def stablehlo(trained: Trained) -> tuple[bytes, float]:
    """Exports a network, its batch normalisation folded.

    ``jax.export.deserialize(content).call(images)`` gives the logits, (b, classes), of normalised
    images, (b, h, w, 3), of any batch, on CPU, GPU and TPU; ``.mlir_module()`` is the StableHLO.

    Args:
      trained: The network; images are of the size of its preprocessing.

    Returns:
      The content of a file, and the difference from the network; see `difference`.

    Raises:
      InputError: The difference is above the tolerance.
    """
    graphdef, state = nnx.split(fold(trained.network))

    @jax.jit  # the weights are constants of the program, so that the file is all that there is
    def network(images: Float[jax.Array, "b h w 3"]) -> Float[jax.Array, "b classes"]:
        return nnx.merge(graphdef, state)(images)

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *trained.preprocessing.image_shape), jnp.float32)
    content = bytes(export.export(network, platforms=("cpu", "cuda", "tpu"))(images).serialize())
    loaded = export.deserialize(bytearray(content))
    return content, difference(trained, lambda images: np.asarray(loaded.call(images)))
