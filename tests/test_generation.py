"""What runs of this generation of the code compute: records of another are not its results."""

import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import Stem, shufflenet
from shufflenet_jax.data import Preprocessing, load
from shufflenet_jax.fit import Intervals, fit
from shufflenet_jax.generation import GENERATION
from shufflenet_jax.metrics import read_metrics
from shufflenet_jax.recipe import Recipe

MOVED = Preprocessing(image_size=16, crop="shift", color=0.0, lighting=0.0)
CROPPED = Preprocessing(image_size=16)

LOSSES = {
    (1, MOVED): (
        2.302585,
        2.292257,
        2.263026,
        2.272713,
        2.218754,
        2.173603,
        2.178885,
        2.127731,
        2.079566,
        2.09355,
        2.301017,
    ),
    (1, CROPPED): (
        2.302585,
        2.292798,
        2.257048,
        2.285619,
        2.200655,
        2.195098,
        2.165806,
        2.126545,
        2.073432,
        2.107257,
        2.300916,
    ),
}
"""Of the first steps on digits, and then of the test, by generation and preprocessing.

A change of rounding leaves them. Where another change is meant, `GENERATION` is raised and its
losses are put here.
"""


@pytest.mark.slow
@pytest.mark.parametrize("preprocessing", [MOVED, CROPPED])
def test_losses_are_those_of_this_generation(preprocessing, tmp_path):
    network = shufflenet(
        groups=2,
        width=0.25,
        num_classes=10,
        repeats=(1, 2, 1),
        stem=Stem(stride=2, max_pool=False),
        rngs=nnx.Rngs(0),
    )
    recipe = Recipe(epochs=1, batch_size=128, learning_rate=0.1, preprocessing=preprocessing)
    intervals = Intervals(log=1, evaluate=1, checkpoint=1)
    fit(network, load("digits"), recipe, seed=0, directory=tmp_path, intervals=intervals)
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    assert len(losses) == 11
    np.testing.assert_allclose(losses, LOSSES[GENERATION, preprocessing], rtol=1e-3)
