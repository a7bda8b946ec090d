"""What a network says of the images of a split: one by one, and altogether."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from shufflenet_jax.data import IMAGENET, Batch, Preprocessing
from shufflenet_jax.devices import ONE_DEVICE, Devices
from shufflenet_jax.images import normalise
from shufflenet_jax.predictions import NOT_ASKED, PREDICTION, Predictions
from shufflenet_jax.train import State, compiler_options


@dataclass(frozen=True)
class Evaluation:
    """Errors over a whole split, in percent, and the mean cross-entropy."""

    top1_error: float
    top5_error: float
    loss: float
    examples: int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Answers:
    """What a network says of images, in their order.

    Attributes:
      prediction: The class with the largest logit.
      top1, top5: Whether the label is that one, and whether it is among the best five.
      loss: The cross-entropy.
      counts: False for an image that could not be read, and for what fills up the last batch.
    """

    prediction: Int[Array | np.ndarray, " n"]
    top1: Bool[Array | np.ndarray, " n"]
    top5: Bool[Array | np.ndarray, " n"]
    loss: Float[Array | np.ndarray, " n"]
    counts: Bool[Array | np.ndarray, " n"]

    def evaluation(self) -> Evaluation:
        """The errors over the images that count."""
        examples = int(self.counts.sum())
        top1, top5 = (int((hit & self.counts).sum()) for hit in (self.top1, self.top5))
        return Evaluation(
            top1_error=100 * (1 - top1 / examples),
            top5_error=100 * (1 - top5 / examples),
            loss=float(np.mean(np.asarray(self.loss)[self.counts], dtype=np.float64)),
            examples=examples,
        )

    def predictions(self, examples: int) -> Predictions:
        """What is said of each image; `NOT_ASKED` of those that could not be read.

        Args:
          examples: How many there are in the split.
        """
        made = np.empty(examples, PREDICTION)
        made["predicted"] = np.where(self.counts, self.prediction, NOT_ASKED)[:examples]
        made["right"] = np.asarray(self.top1 & self.counts)[:examples]
        return made


def make_evaluate(
    graphdef: nnx.GraphDef,
    devices: Devices = ONE_DEVICE,
    preprocessing: Preprocessing = IMAGENET,
    precision: str = "float32",
    deterministic: bool = False,
) -> Callable[[State, Iterable[Batch]], Answers]:
    """Returns ``evaluate(state, batches)``, which asks about every image exactly once.

    Args:
      graphdef: From `create_state`.
      devices: What each batch is split over; they must hold state and batches.
      preprocessing: Of the images; what normalises pixels is in it.
      precision, deterministic: See `Recipe`.
    """

    @partial(jax.jit, compiler_options=compiler_options(deterministic))
    @devices.map
    def ask(batch: Batch, params: dict, batch_stats: dict) -> Answers:
        images = normalise(
            batch.image, preprocessing.pixel_mean, preprocessing.pixel_std, precision
        )
        logits = nnx.merge(graphdef, params, batch_stats)(images, train=False)
        _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
        hits = best == batch.label[:, None]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
        return Answers(best[:, 0], hits[:, 0], hits.any(-1), loss, batch.mask)

    def evaluate(state: State, batches: Iterable[Batch]) -> Answers:
        parts = [devices.collect(ask(batch, *state.evaluated)) for batch in batches]
        return jax.tree.map(lambda *each: np.concatenate(each), *parts)

    return evaluate
