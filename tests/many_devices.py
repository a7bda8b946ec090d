"""What `test_devices` runs in processes of its own: ``python tests/many_devices.py NAME ...``."""

import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from shufflenet_jax import InputError, Network, ShuffleUnit, Stem, chwn, interruption
from shufflenet_jax.data import Batch, Preprocessing, load
from shufflenet_jax.devices import ONE_DEVICE, Devices
from shufflenet_jax.evaluation import make_evaluate
from shufflenet_jax.fit import Intervals, Preempted, fit
from shufflenet_jax.initialisation import initialise
from shufflenet_jax.inputs import Streamed
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.resident import Resident
from shufflenet_jax.train import create_state, make_train_step

STEPS = 20
BATCH = 16

GROUPED = {
    "groups": {"batch_norm": "4"},
    "accumulated": {"accumulate": 2, "masked": True},
    "accumulated_groups": {"accumulate": 2, "batch_norm": "4"},
    "averaged_anew": {"recompute": True, "ema": 0.5, "deterministic": True},
}
"""Options of a step whose results do not depend on the number of devices.

Of 8, two or four normalise together, and each computes two images or one at a time.
"""


def network():
    """Small, for it is compiled for every number of devices: a unit of stride 2 and one of 1.

    Started with nothing at zero, so that every weight has a gradient from the first step on.
    """
    made = Network(
        partial(ShuffleUnit, groups=3),
        channels=(48,),
        repeats=(2,),
        conv1_channels=12,
        num_classes=10,
        stem=Stem(stride=2, max_pool=False),
        rngs=nnx.Rngs(0),
    )
    initialise(made, "he", nnx.Rngs(0))
    return made


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
    """The first few of the devices; one is a run's on a single device."""
    if count == 1:
        return ONE_DEVICE
    mesh = jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
    )
    return Devices(mesh)


@cache
def compiled(form, devices, **options):
    """The graph, a function that makes the first state, and the training step, compiled once."""
    optimizer = Recipe(learning_rate=0.05).make_optimizer(STEPS)
    graphdef, state = create_state(network(), optimizer, averaged="ema" in options)
    step = make_train_step(graphdef, optimizer, 0.1, devices=devices, **options)

    def advance(state, batch):
        with chwn.form(form):
            return step(state, batch)

    return graphdef, lambda: jax.tree.map(jnp.copy, state), advance


def train(form, devices, batches, **options):
    """Losses, and the state after the last batch."""
    graphdef, new_state, step = compiled(form, devices, **options)
    state, losses = devices.replicate(new_state()), []
    for batch in batches:
        state, metrics = step(state, devices.place(batch))
        losses.append(float(metrics["loss"]))
    return graphdef, state, np.array(losses)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def shard(batch, index, count):
    size = BATCH // count
    return jax.tree.map(lambda leaf: leaf[index * size : (index + 1) * size], batch)


def compare(out, form):
    """Everything that `test_devices` compares of a form, as arrays in one file."""
    found = {}
    batches = [random_batch(seed) for seed in range(STEPS)]
    for count in (1, 2, 8):
        devices = first(count)
        _, _, found[f"losses_{form}_{count}"] = train(form, devices, batches)
        _, state, _ = train(form, devices, batches[:1])
        found[f"params_{form}_{count}"] = flat(state.params)
        found[f"stats_{form}_{count}"] = flat(state.batch_stats)
        # Masked images unevenly spread over the devices, on one of which none is left.
        batch = random_batch(0, masked=(0, 1, 2, 3, 9))
        _, state, losses = train(form, devices, [batch], masked=True)
        found[f"masked_loss_{form}_{count}"] = losses
        found[f"masked_params_{form}_{count}"] = flat(state.params)
    _, state, _ = train(form, first(2), batches[:1], batch_norm="device")
    parts = [train(form, ONE_DEVICE, [shard(batches[0], index, 2)])[1] for index in range(2)]
    # The first update is linear in the gradients, so the mean of updates is that of these.
    for name, of in (("stats", lambda s: s.batch_stats), ("params", lambda s: s.params)):
        found[f"own_{name}_{form}"] = flat(of(state))
        found[f"own_{name}_{form}_by_hand"] = sum(flat(of(part)) for part in parts) / 2
    for count in (1, 2, 8):
        for name, options in GROUPED.items():
            if form == "matmul" or name == "groups":
                _, state, losses = train(form, first(count), batches[:2], **options)
                found[f"{name}_losses_{form}_{count}"] = losses
                params, batch_stats = state.evaluated
                found[f"{name}_params_{form}_{count}"] = flat(params)
                found[f"{name}_stats_{form}_{count}"] = flat(batch_stats)
    if form == "matmul":
        for count in (1, 8):
            _, state, losses = train(form, first(count), batches[:2], precision="bfloat16")
            found[f"bfloat16_losses_{count}"] = losses
            assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
        stay(found)
        stream(found)
        evaluate(form, batches[:1], found)
        first(8).check(64)
        try:
            first(8).check(60)
        except InputError as error:
            found["refusal"] = str(error)
        refused = []
        for batch_size, accumulate, batch_norm in ((64, 16, "global"), (64, 1, "12"), (64, 2, "6")):
            try:
                first(8).check(batch_size, accumulate, batch_norm)
            except InputError as error:
                refused.append(str(error))
        found["refusals"] = np.array(refused)
    np.savez(out, **found)


def stay(found):
    """Batches of images that stay on the devices; steps 80 to 89 run across epochs."""
    preprocessing = Preprocessing(image_size=16, crop="shift", color=0.0, lighting=0.0)
    for count in (1, 8):
        devices = first(count)
        resident = Resident(
            load("digits"), preprocessing, BATCH, devices, 0, {"train": None, "test": None}, int
        )
        batches = [*resident.train(0, 90, 80), *resident.test()]
        for batch in batches:
            assert len(devices.place(batch).image.addressable_shards) == count
        for name in ("image", "label", "mask"):
            leaves = [getattr(batch, name) for batch in batches]
            found[f"resident_{name}_{count}"] = np.stack(leaves)


def stream(found):
    """Batches whose colours change on the devices."""
    for count in (1, 8):
        streamed = Streamed(
            load("digits"),
            Preprocessing(image_size=16),
            BATCH,
            first(count),
            0,
            {"train": None, "test": None},
            int,
        )
        batches = list(streamed.train(0, 8, 4))
        assert len(batches[0].image.addressable_shards) == count
        found[f"streamed_image_{count}"] = np.stack([batch.image for batch in batches])


def evaluate(form, batches, found):
    """After a step."""
    for count in (1, 8):
        devices = first(count)
        graphdef, state, _ = train(form, devices, batches)
        tests = [random_batch(100), random_batch(101, masked=range(5, 16))]
        evaluation = make_evaluate(graphdef, devices)(state, map(devices.place, tests)).evaluation()
        found[f"evaluation_{count}"] = np.array(
            [evaluation.top1_error, evaluation.top5_error, evaluation.loss, evaluation.examples]
        )


def connect(address, count, index):
    """Makes this process one of several."""
    jax.distributed.initialize(address, int(count), int(index))


def start(network, directory, batch_size, epochs, **options):
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=0.005,
        preprocessing=Preprocessing(
            image_size=16, crop="shift", flip=False, color=0.0, lighting=0.0
        ),
    )
    return fit(
        network,
        load("digits"),
        recipe,
        seed=0,
        directory=Path(directory),
        intervals=Intervals(log=1, evaluate=1, checkpoint=1),
        **options,
    )


def run(directory, *cluster):
    """A whole run, as one process of several where cluster is given."""
    if cluster:
        connect(*cluster)
    print(start(network(), directory, batch_size=64, epochs=2))


class Linear(nnx.Module):
    """Compiles at once."""

    def __init__(self):
        self.classifier = nnx.Linear(16 * 16 * 3, 10, rngs=nnx.Rngs(0))

    def __call__(self, images, *, train=False):
        del train
        return self.classifier(images.reshape(len(images), -1))


def interrupt(directory, *cluster):
    """A run of several processes, of which the second is told to end at its 30th step.

    Prints at which step it ended, and how many questions the processes had asked each other.
    """
    connect(*cluster)
    questions, ask = [], interruption.gather

    def gather(numbers):
        questions.append(numbers)
        return ask(numbers)

    interruption.gather = gather
    interruption.SECONDS = 1e6  # however slow this machine is, questions grow rarer each time
    steps, told = [], []

    def interrupted():
        if len(steps) < 30 or told or jax.process_index() != 1:
            return False
        told.append(True)  # once, as a signal is sent once
        return True

    try:
        start(
            Linear(),
            directory,
            batch_size=16,
            epochs=2,
            interrupted=interrupted,
            on_progress=steps.append,
        )
    except Preempted as preempted:
        print(preempted.step, len(questions))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"compare": compare, "run": run, "interrupt": interrupt}[command](*arguments)
