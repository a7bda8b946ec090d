"""Budgets: the paper's setting, and what can be trained with less. Each is a whole configuration.

A budget says which data, which stem and which recipe; every key can be overridden from the command
line (``--config.recipe.epochs=30``). `experiments.sweep.configuration` turns the result into
library objects.
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.sweep.configuration import arguments_of
from experiments.sweep.identity import nested
from experiments.sweep.settings import default_settings
from shufflenet_jax.data import MEMORY_GB, Preprocessing
from shufflenet_jax.errors import InputError, did_you_mean
from shufflenet_jax.intervals import Intervals
from shufflenet_jax.models.skeleton import IMAGENET_STEM, Stem
from shufflenet_jax.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Budget:
    """One setting.

    Attributes:
      data: Name of the data set.
      stem: The networks' stem.
      recipe: How they are trained.
      intervals: How often a run logs, evaluates and saves.
      verdict: What a table made with it can and cannot say.
      memory_gb: Most that its images may take on each device, decoded.
    """

    data: str
    stem: Stem
    recipe: Recipe
    intervals: Intervals
    verdict: str
    memory_gb: float = MEMORY_GB


_SMALL_IMAGES = Preprocessing(image_size=32, crop="shift", color=0.0, lighting=0.0, eval_resize=1.0)

_NO_POOL = Stem(stride=2, max_pool=False)

# As long as in arXiv 1707.08819, which introduced these images.
_ALL_OF_IMAGENET = Recipe(
    epochs=40, batch_size=256, learning_rate=0.25, preprocessing=_SMALL_IMAGES
)

BUDGETS = {
    "digits": Budget(
        data="digits",
        stem=_NO_POOL,
        recipe=Recipe(
            epochs=10,
            batch_size=32,
            learning_rate=0.03,
            preprocessing=dataclasses.replace(_SMALL_IMAGES, image_size=24, flip=False),
        ),
        intervals=Intervals(log=20, evaluate=5, checkpoint=5),
        verdict="Digits (1,797 images of 8x8) proves the machinery, not the paper's claims.",
    ),
    "cifar10": Budget(
        data="cifar10",
        # Of stride 2, so that maps are 16, 8, 4 and 2 wide: what is compared are the 1x1
        # convolutions, and on larger maps a run takes four times as long.
        stem=_NO_POOL,
        recipe=Recipe(epochs=20, batch_size=64, learning_rate=0.1, preprocessing=_SMALL_IMAGES),
        intervals=Intervals(log=100, evaluate=2, checkpoint=1),
        verdict="CIFAR-10 at a reduced budget shows tendencies, not the paper's claims.",
    ),
    "tiny_imagenet": Budget(
        data="tiny_imagenet",
        # With its pool, so that maps are as wide as those of CIFAR-10.
        stem=IMAGENET_STEM,
        recipe=Recipe(
            epochs=20,
            batch_size=64,
            learning_rate=0.1,
            preprocessing=dataclasses.replace(_SMALL_IMAGES, image_size=64),
        ),
        intervals=Intervals(log=100, evaluate=2, checkpoint=1),
        verdict="Small images of 200 classes of ImageNet show tendencies, not the paper's claims.",
        memory_gb=2.0,
    ),
    "imagenet32": Budget(
        data="imagenet_resized/32x32",
        stem=_NO_POOL,
        recipe=_ALL_OF_IMAGENET,
        intervals=Intervals(log=100, evaluate=4, checkpoint=1),
        verdict="All of ImageNet, but small images: tendencies, not the paper's claims.",
        memory_gb=5.0,
    ),
    "imagenet64": Budget(
        data="imagenet_resized/64x64",
        stem=IMAGENET_STEM,
        recipe=dataclasses.replace(
            _ALL_OF_IMAGENET, preprocessing=dataclasses.replace(_SMALL_IMAGES, image_size=64)
        ),
        intervals=Intervals(log=100, evaluate=4, checkpoint=1),
        verdict="All of ImageNet, but small images: tendencies, not the paper's claims.",
    ),
    "imagenette": Budget(
        data="imagenette/320px-v2",
        stem=IMAGENET_STEM,
        recipe=Recipe(
            epochs=60,
            batch_size=64,
            learning_rate=0.1,
            preprocessing=Preprocessing(image_size=128),
        ),
        intervals=Intervals(log=50, evaluate=5, checkpoint=1),
        verdict="Ten classes of ImageNet at a reduced budget show tendencies, not the claims.",
    ),
    "paper": Budget(
        data="imagenet2012",
        stem=IMAGENET_STEM,
        # Of 1024 images on 4 GPUs, each normalised its own, as all frameworks did in 2017.
        recipe=Recipe(batch_norm="256"),
        intervals=Intervals(log=100, evaluate=10, checkpoint=1),
        verdict="This is the paper's setting; see the README for where it had to be guessed.",
    ),
}


def budget(name: str) -> ConfigDict:
    """Returns the configuration of a budget.

    Keys: ``network`` (name of the family, and the arguments that `zoo.FAMILIES` gives it),
    ``data`` (name; dir, "" for TFDS's own default; workers, the processes that prepare images, -1
    for as many as suit the machine; memory_gb, what decoded images may take on each device; broken
    and broken_budget, the fields of `Broken`), ``init`` (dir and sha256, of the trained network
    that training starts from; "" for none), ``recipe``, ``intervals`` and ``limits`` (the fields
    of `Recipe`, `Intervals` and `Limits`), ``trackers`` (names with commas), ``ray`` and ``slurm``
    (those of the engines).

    Raises:
      InputError: There is none of that name.
    """
    if name not in BUDGETS:
        raise InputError(f"unknown budget {name!r}{did_you_mean(name, BUDGETS)}")
    chosen, rest = BUDGETS[name], nested(default_settings())
    return ConfigDict(
        {
            "network": {
                "name": "shufflenet",
                **arguments_of("shufflenet"),
                "stem": dataclasses.asdict(chosen.stem),
            },
            "data": {"name": chosen.data, **rest.pop("data"), "memory_gb": chosen.memory_gb},
            "recipe": dataclasses.asdict(chosen.recipe),
            "intervals": dataclasses.asdict(chosen.intervals),
            "init": {"sha256": "", **rest.pop("init")},
            **rest,
        }
    )
