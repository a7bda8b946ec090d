"""What `test_devices` runs in processes of its own: ``python tests/many_devices.py NAME ...``."""

import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from shufflenet_jax import InputError, Stem, chwn, shufflenet
from shufflenet_jax.data import Batch, Preprocessing, load
from shufflenet_jax.devices import ONE_DEVICE, Devices
from shufflenet_jax.fit import Intervals, fit
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import create_state, make_evaluate, make_train_step

STEPS = 20
BATCH = 16


def network():
    return shufflenet(
        width=0.25,
        num_classes=10,
        repeats=(1, 1, 1),
        stem=Stem(stride=2, max_pool=False),
        rngs=nnx.Rngs(0),
    )


def random_batch(seed, masked=()):
    rng = np.random.default_rng(seed)
    mask = np.ones(BATCH, bool)
    mask[list(masked)] = False
    return Batch(
        image=rng.integers(0, 256, (BATCH, 16, 16, 3)).astype(np.uint8),
        label=rng.integers(0, 10, BATCH).astype(np.int32),
        mask=mask,
    )


def first(count):
    mesh = jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
    )
    return Devices(mesh)


def train(devices, batches, **options):
    """Losses, and the state after the last batch, flat."""
    optimizer = Recipe(learning_rate=0.05).optimizer(STEPS)
    graphdef, state = create_state(network(), optimizer)
    state = devices.replicate(state)
    step = make_train_step(graphdef, optimizer, 0.1, devices=devices, **options)
    losses = []
    for batch in batches:
        state, metrics = step(state, devices.place(batch))
        losses.append(float(metrics["loss"]))
    return graphdef, state, np.array(losses)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def shard(batch, index, count):
    size = BATCH // count
    return Batch(*(leaf[index * size : (index + 1) * size] for leaf in batch))


def compare(out):
    """Everything that `test_devices` compares, as arrays in one file."""
    found = {}
    batches = [random_batch(seed) for seed in range(STEPS)]
    for name in ("matmul", "direct"):
        with chwn.form(name):
            for count in (1, 2, 8):
                devices = ONE_DEVICE if count == 1 else first(count)
                _, _, found[f"losses_{name}_{count}"] = train(devices, batches)
                _, state, _ = train(devices, batches[:1])
                found[f"params_{name}_{count}"] = flat(state.params)
                found[f"stats_{name}_{count}"] = flat(state.batch_stats)
                # Masked images unevenly spread over the devices, on one of which none is left.
                batch = random_batch(0, masked=(0, 1, 2, 3, 9))
                _, state, found[f"masked_loss_{name}_{count}"] = train(
                    devices, [batch], masked=True
                )
                found[f"masked_params_{name}_{count}"] = flat(state.params)
            _, state, _ = train(first(2), batches[:1], batch_norm="device")
            parts = [
                train(ONE_DEVICE, [shard(batches[0], index, 2)])[1].batch_stats
                for index in range(2)
            ]
            found[f"own_stats_{name}"] = flat(state.batch_stats)
            found[f"own_stats_{name}_by_hand"] = (flat(parts[0]) + flat(parts[1])) / 2
            params = [
                train(ONE_DEVICE, [shard(batches[0], index, 2)])[1].params for index in range(2)
            ]
            found[f"own_params_{name}"] = flat(state.params)
            # The first update is linear in the gradients, so the mean of updates is that of these.
            found[f"own_params_{name}_by_hand"] = (flat(params[0]) + flat(params[1])) / 2
    for count in (1, 8):
        devices = ONE_DEVICE if count == 1 else first(count)
        graphdef, state, _ = train(devices, batches[:1])
        tests = [random_batch(100), random_batch(101, masked=range(5, 16))]
        evaluation = make_evaluate(graphdef, devices)(state, map(devices.place, tests))
        found[f"evaluation_{count}"] = np.array(
            [evaluation.top1_error, evaluation.top5_error, evaluation.loss, evaluation.examples]
        )
    first(8).check(64)
    try:
        first(8).check(60)
    except InputError as error:
        found["refusal"] = str(error)
    np.savez(out, **found)


def run(directory, *cluster):
    """A whole run, as one process of several where cluster is given."""
    if cluster:
        address, count, index = cluster
        jax.distributed.initialize(address, int(count), int(index))
    recipe = Recipe(
        epochs=2,
        batch_size=64,
        learning_rate=0.005,
        preprocessing=Preprocessing(
            image_size=16, crop="shift", flip=False, color=0.0, lighting=0.0
        ),
    )
    print(
        fit(
            network(),
            load("digits"),
            recipe,
            seed=0,
            directory=Path(directory),
            intervals=Intervals(log=1, evaluate=1, checkpoint=1),
        )
    )


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"compare": compare, "run": run}[command](*arguments)
