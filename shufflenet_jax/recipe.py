"""Training recipes as data: the paper's (section 4), and scaled-down budgets."""

import math
import operator
from dataclasses import dataclass, field

import jax
import optax

from shufflenet_jax.data import Preprocessing
from shufflenet_jax.errors import InputError

DECAYS = ("linear", "cosine")
"""How the learning rate falls."""

OPTIMIZERS = ("sgd", "adam", "adamw", "lamb")
"""What makes updates of gradients."""

PRECISIONS = ("float32", "bfloat16")
"""What networks can be trained in. float16 would need its loss scaled."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the paper's, on ImageNet.

    Attributes:
      epochs: Passes over the training images. 3e5 iterations of 1024 images are 240 of ImageNet.
      batch_size: Images a step.
      learning_rate: At the first step, or after the warm-up; falls to 0 at the last.
      warmup: Epochs in which the rate rises to it first, linearly from step to step.
      decay: How it falls: "linear" or "cosine" (arXiv 1608.03983).
      scale_rate: Whether learning_rate is for batches of rate_batch images, and is scaled linearly
        to batch_size (arXiv 1706.02677).
      rate_batch: See scale_rate; 0 for batch_size.
      optimizer: "sgd", with Nesterov momentum (from ResNeXt's settings), "adam", "adamw" or "lamb".
      momentum: Of SGD; of the others it is beta_1. All else of them is as in optax.
      weight_decay: L2 penalty on the kernels of convolutions and linear layers; BN and biases are
        left out, as in the authors' later code. AdamW and LAMB take it off apart from the gradient.
      ema: Decay of an exponential average of parameters and statistics of BN over the steps, which
        then is what is evaluated; 0 for none. Early on it is less, (1 + step) / (10 + step), so
        that how the network started is soon forgotten.
      label_smoothing: Share of the target spread over all classes.
      clip_norm: Gradients whose norm, of all together, is greater are scaled down to it (arXiv
        1211.5063); 0 for none. Deep networks without batch normalisation need it.
      batch_norm: What BN normalises by: "global", the statistics of all images that are computed
        at a time, so that the number of devices changes nothing but rounding; "device", those of
        each device's share of them, without communication; or a number, as "256": those of so many
        images, on any number of devices. The running statistics are the mean over all groups of a
        step.
      accumulate: Micro-batches that a step is computed in, one after the other, which takes as much
        less memory for activations. Every so many-th image is of the same. Gradients are the means
        over all of the batch; but for BN, which sees a micro-batch at a time, they are those of the
        whole batch.
      precision: What networks compute in, forward and backward: "float32" or "bfloat16". Logits,
        loss, parameters, statistics of BN and updates are float32 with either.
      recompute: Whether the gradient computes the insides of units once more in place of keeping
        them, which takes less memory and a third more time. AlexNet, VGG-16 and LeNet-5 have no
        units, and keep all.
      deterministic: Whether a GPU is to compute the same bits each time, by operations and choices
        of XLA that may be slower. A CPU does so anyway.
      backbone_rate: Learning rate of all layers but the classifier, over that of the classifier.
        With 0 they stay what they are, and evaluate: their batch normalisation keeps its
        statistics, and nothing is dropped. For networks that start from trained weights.
      preprocessing: Image size, augmentation and the evaluation crop.

    Raises:
      InputError: A value that no run can use; the field is named.
    """

    epochs: int = 240
    batch_size: int = 1024
    learning_rate: float = 0.5
    warmup: float = 0.0
    decay: str = "linear"
    scale_rate: bool = False
    rate_batch: int = 0
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 4e-5
    ema: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    batch_norm: str = "global"
    accumulate: int = 1
    precision: str = "float32"
    recompute: bool = False
    deterministic: bool = False
    backbone_rate: float = 1.0
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        for names, kind, rule, holds in (
            (
                ("epochs", "batch_size", "accumulate"),
                int,
                "an integer of at least 1",
                lambda n: n >= 1,
            ),
            (
                ("learning_rate", "weight_decay", "clip_norm", "warmup", "backbone_rate"),
                (int, float),
                "a finite number, not negative",
                lambda x: 0 <= x < math.inf,
            ),
            (
                ("momentum", "label_smoothing", "ema"),
                (int, float),
                "a number in [0, 1)",
                lambda x: 0 <= x < 1,
            ),
            (
                ("batch_norm",),
                str,
                "global, device or a number of images",
                lambda text: text in ("global", "device") or _is_count(text),
            ),
            (("precision",), str, "float32 or bfloat16", lambda text: text in PRECISIONS),
            (("rate_batch",), int, "a number of images, or 0", lambda n: n >= 0),
            (("decay",), str, "linear or cosine", lambda text: text in DECAYS),
            (("optimizer",), str, "sgd, adam, adamw or lamb", lambda text: text in OPTIMIZERS),
            (("recompute", "deterministic", "scale_rate"), bool, "true or false", lambda _: True),
            (("preprocessing",), Preprocessing, "a Preprocessing", lambda _: True),
        ):
            for name in names:
                value = getattr(self, name)
                # A truth value is an integer to Python.
                fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
                if not fits or not holds(value):
                    raise InputError(f"{name} must be {rule}, not {value!r}")
        if self.warmup >= self.epochs:
            raise InputError(f"warmup of {self.warmup} epochs leaves nothing of {self.epochs}")
        if self.batch_size % self.accumulate:
            raise InputError(
                f"batch_size {self.batch_size} does not divide into accumulate={self.accumulate} "
                "micro-batches"
            )
        at_a_time = self.batch_size // self.accumulate
        if _is_count(self.batch_norm) and at_a_time % int(self.batch_norm):
            raise InputError(
                f"batch_norm={self.batch_norm} does not divide the {at_a_time} images that are "
                "computed at a time (batch_size / accumulate): choose a number that does, global "
                "or device"
            )

    def steps(self, num_examples: int) -> int:
        """Training steps on a data set of that many images."""
        return max(1, self.epochs * num_examples // self.batch_size)

    def make_optimizer(
        self, steps: int, head: optax.Params | None = None
    ) -> optax.GradientTransformation:
        """What makes updates of gradients.

        Args:
          steps: Of the whole run.
          head: Marks the parameters of the classifier (`shufflenet_jax.finetuning.head_of`); needed
            for a backbone_rate that is not 1.
        """
        rate, momentum = self.schedule(steps), self.momentum
        penalty = optax.add_decayed_weights(self.weight_decay, mask=kernels)
        match self.optimizer:
            case "adam":
                rules = [penalty, optax.adam(rate, momentum)]
            case "adamw":
                rules = [optax.adamw(rate, momentum, weight_decay=self.weight_decay, mask=kernels)]
            case "lamb":
                rules = [optax.lamb(rate, momentum, weight_decay=self.weight_decay, mask=kernels)]
            case _:
                rules = [penalty, optax.sgd(rate, momentum, nesterov=True)]
        if self.backbone_rate != 1:
            backbone = jax.tree.map(operator.not_, head)
            rules.append(optax.masked(optax.scale(self.backbone_rate), backbone))
        clip = optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()
        return optax.chain(clip, *rules)

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rate at each step, from 0 to steps - 1."""
        warm = round(steps * self.warmup / self.epochs)
        if self.decay == "cosine":
            falling = optax.cosine_decay_schedule(self.rate, steps - warm)
        else:
            falling = optax.linear_schedule(self.rate, 0.0, steps - warm)
        if not warm:
            return falling
        # At its first step too it learns something.
        rising = optax.linear_schedule(self.rate / warm, self.rate, max(1, warm - 1))
        return optax.join_schedules([rising, falling], [warm])

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        if self.scale_rate and self.rate_batch:
            return self.learning_rate * self.batch_size / self.rate_batch
        return float(self.learning_rate)


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def kernels(params: optax.Params) -> optax.Params:
    """Marks the parameters that weight decay applies to: kernels, not BN's vectors nor biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
