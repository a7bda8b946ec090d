"""How much a group of channels depends on the others, in the trained networks of a sweep.

Figure 1 says which groups can know of which; this is how much they do. Of each stage it looks at
what enters its units of stride 1, and at what leaves the last of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from experiments.report import markdown
from experiments.sweep.build import data_dir_of
from experiments.sweep.workdir import Sweep
from shufflenet_jax import Network, ShuffleUnit, chwn, data, load_trained
from shufflenet_jax.data import Example, Examples, eval_batches
from shufflenet_jax.errors import InputError

IMAGES = 500
"""Test images that networks are asked about."""

_PROBES = 4
"""Random directions in the outputs of a group, along which derivatives are taken."""


@dataclass(frozen=True)
class Flow:
    """Of one stage. Rows are groups of its outputs, columns groups of its inputs.

    Attributes:
      gradient: Mean squares of the derivatives of outputs by inputs, each row as shares of 1.
      ablation: Mean squares of what outputs change by where a group of inputs has its mean over
        images and places instead, each row as shares of 1.
      lost: By how many percentage points the error of the network then rises, for each group of
        inputs.
    """

    gradient: Float[np.ndarray, "g g"]
    ablation: Float[np.ndarray, "g g"]
    lost: Float[np.ndarray, " g"]


Flows = Mapping[str, Flow]
"""By the name of the stage."""


def from_others(shares: Float[np.ndarray, "g g"]) -> float:
    """The share of what a group depends on that is of the other groups, 0 to 1."""
    return float(1 - np.diag(shares).mean())


def of_network(
    network: nnx.Module, images: Float[Array, "b h w 3"], labels: Int[np.ndarray, " b"]
) -> Flows:
    """Measures every stage that has units of stride 1.

    Args:
      network: A trained ShuffleNet of more than one group.
      images: Normalised.
      labels: Of the images.

    Raises:
      InputError: Another network.
    """
    if not isinstance(network, Network):
        raise InputError("groups of channels are those of a ShuffleNet")
    units = [unit for stage in network.stages for unit in stage]
    groups = {unit.groups if isinstance(unit, ShuffleUnit) else 1 for unit in units}
    if len(groups) > 1 or groups == {1}:
        raise InputError("groups of channels are those of a ShuffleNet with more than one")
    (count,) = groups
    x = chwn.from_nhwc(jax.jit(lambda images: network.features(images)["stem"])(images))
    found = {}
    for number, (first, *others) in enumerate(network.stages):
        x = _through([first])(x)
        if others:
            later = [unit for stage in network.stages[number + 1 :] for unit in stage]
            logits = _through(later, then=lambda y: network.classifier(chwn.global_avg_pool(y).T))
            found[f"stage{number + 2}"] = _of_stage(_through(others), logits, x, labels, count)
            x = _through(others)(x)
    if not found:
        raise InputError("no stage of the network has units of stride 1")
    return found


def _through(units: list, then: Callable[[Array], Array] = lambda x: x) -> Callable:
    """Returns what takes maps of (c, h, w, b) through units, and on."""

    @jax.jit
    def run(x: Array) -> Array:
        for unit in units:
            x = unit.forward(x, train=False)
        return then(x)

    return run


def _of_stage(
    along: Callable[[Array], Array],
    logits: Callable[[Array], Array],
    x: Float[Array, "c h w b"],
    labels: Int[np.ndarray, " b"],
    groups: int,
) -> Flow:
    def is_of(group: Array | int, maps: Array) -> Array:
        channels = len(maps)
        return (jnp.arange(channels) // (channels // groups) == group)[:, None, None, None]

    def squares(maps: Array) -> Array:
        return jnp.square(maps).reshape(groups, -1).sum(axis=-1)

    # Maps are arguments: as constants XLA would fold them, which takes minutes.
    @jax.jit
    def derivatives(x: Array, group: int, key: Array) -> Array:
        y, back = jax.vjp(along, x)
        direction = jnp.where(is_of(group, y), jax.random.normal(key, y.shape), 0.0)
        return squares(back(direction)[0])

    @jax.jit
    def without(x: Array, y: Array, group: int) -> tuple[Array, Array]:
        mean = x.mean(axis=(1, 2, 3), keepdims=True)
        outputs = along(jnp.where(is_of(group, x), mean, x))
        return squares(outputs - y), (logits(outputs).argmax(-1) != labels).mean(dtype=jnp.float32)

    y = along(x)

    keys = jax.random.split(jax.random.key(0), _PROBES)
    gradient = np.array(
        [sum(np.asarray(derivatives(x, group, key)) for key in keys) for group in range(groups)]
    )
    changes, errors = zip(*(without(x, y, group) for group in range(groups)), strict=True)
    error = np.mean(np.asarray(logits(y)).argmax(-1) != labels)
    return Flow(
        gradient=_shares(gradient),
        ablation=_shares(np.array(changes).T),
        lost=100 * (np.array(errors) - error),
    )


def _shares(squares: Float[np.ndarray, "g g"]) -> Float[np.ndarray, "g g"]:
    return squares / squares.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class _Some:
    """Some of the images, evenly spread: those of class folders lie class by class."""

    examples: Examples
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        return self.examples[index * len(self.examples) // self.count]


def of_sweep(sweep: Sweep) -> dict[str, list[Flows]]:
    """Measures all trained ShuffleNets of a sweep that have groups; by cell, one a seed.

    Raises:
      InputError: There are none, or their data are not at hand.
    """
    found = {}
    for cell in sweep.cells:
        values = sweep.values_of(cell)
        runs = [run for run in sweep.runs_of(cell) if run.status == "done"]
        runs = [run for run in runs if (run.directory / "checkpoints").is_dir()]
        if values["network.name"] != "shufflenet" or values["network.groups"] == 1 or not runs:
            continue
        dataset = data.load(values["data.name"], data_dir_of(values))
        flows = []
        for run in runs:
            trained = load_trained(run.directory)
            some = _Some(dataset.test, min(IMAGES, len(dataset.test)))
            batches = eval_batches(some, trained.preprocessing, batch_size=len(some))
            (batch,) = islice(batches, 1)
            batches.close()
            images = trained.normalise(batch.image)
            flows.append(of_network(trained.network, images, np.asarray(batch.label)))
        found[cell.name] = flows
    if not found:
        raise InputError("no trained ShuffleNet with groups, and with its checkpoints, is there")
    return found


def table(by_cell: Mapping[str, list[Flows]]) -> str:
    """The means over seeds, in Markdown."""
    made = markdown.table(
        "network", "stage", "seeds", "by gradient", "by ablation", "error, one group lost"
    )
    for name, flows in by_cell.items():
        for stage in flows[0]:
            of_seeds = [each[stage] for each in flows]
            made.add_row(
                name,
                stage,
                str(len(of_seeds)),
                f"{100 * fmean(from_others(each.gradient) for each in of_seeds):.0f}%",
                f"{100 * fmean(from_others(each.ablation) for each in of_seeds):.0f}%",
                f"{fmean(each.lost.mean() for each in of_seeds):+.1f}",
            )
    return (
        f"{markdown.render(made)}\n\nHow much of what a group of channels depends on is of other "
        f"groups, from what enters the units of stride 1 of a stage to what leaves the last: "
        f"shares of mean squared derivatives, and of mean squared changes where a group has its "
        f"mean instead. Then the rise of the error in points where one group has, on {IMAGES} test "
        f"images. All g groups alike would be (g - 1) / g."
    )
