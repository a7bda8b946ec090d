"""The training state and the training step: pure functions under `jax.jit`."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from shufflenet_jax.data import IMAGENET, Batch, Preprocessing
from shufflenet_jax.devices import ONE_DEVICE, Devices
from shufflenet_jax.images import normalise
from shufflenet_jax.layers import BatchNorm
from shufflenet_jax.units import Unit


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Everything that a training step reads and writes; what a checkpoint holds.

    Attributes:
      step: Steps taken.
      params: Trainable arrays, a nested dict.
      batch_stats: Running means and variances of BN, a nested dict.
      opt_state: The optimizer's.
      average: The exponential averages of params and batch_stats, by these names; None unless they
        are asked for.
    """

    step: Int[Array, ""]
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    average: dict[str, dict] | None = None

    @property
    def evaluated(self) -> tuple[dict, dict]:
        """The parameters and the statistics of BN that the run is judged by."""
        if self.average is None:
            return self.params, self.batch_stats
        return self.average["params"], self.average["batch_stats"]


@runtime_checkable
class ManyHeaded(Protocol):
    """A network that is trained otherwise than it is called: with dropout, or on several heads."""

    def heads(
        self, images: Float[Array, "b h w 3"], key: Array
    ) -> list[tuple[float, Float[Array, "b classes"]]]:
        """Returns logits with their weights in the loss, those of the network's call first."""
        ...


Learned = tuple[dict, dict, dict[str, Array]]
"""Gradients, statistics of BN, and metrics."""

Fields = tuple[Array, dict, dict, optax.OptState, dict[str, dict] | None]
"""Those of a state. JAX describes the arguments of programs by objects that are no arrays, of which
a `State` cannot be made.
"""


@dataclass(frozen=True)
class TrainStep:
    """``train_step(state, batch) -> (state, metrics)``; the state is donated.

    Attributes:
      program: What computes it, called with the key, the fields of the state, and the batch.
      key: Of dropout.
    """

    program: jax.stages.Wrapped | jax.stages.Compiled
    key: Array

    def __call__(self, state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        fields, metrics = self.program(self.key, _fields(state), batch)
        return State(*fields), metrics

    def lower(self, state: State, batch: Batch) -> jax.stages.Lowered:
        """The program for arguments of these shapes, before XLA compiles it."""
        assert isinstance(self.program, jax.stages.Wrapped)  # or else it is compiled
        return self.program.lower(self.key, _fields(state), batch)


def _fields(state: State) -> Fields:
    return state.step, state.params, state.batch_stats, state.opt_state, state.average


def split(network: nnx.Module) -> tuple[nnx.GraphDef, dict, dict]:
    """Splits a network into its structure, its trainable arrays and its BN statistics."""
    graphdef, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, batch_stats = map(nnx.to_pure_dict, states)
    return graphdef, params, batch_stats


def create_state(
    network: nnx.Module, optimizer: optax.GradientTransformation, *, averaged: bool = False
) -> tuple[nnx.GraphDef, State]:
    """Returns the network's structure and the state before the first step.

    Args:
      network: Freshly initialised.
      optimizer: Of the steps.
      averaged: Whether the steps average weights, as `Recipe.ema` has it.
    """
    graphdef, params, batch_stats = split(network)
    # One program, where each shape of a parameter would be one; and for once it is not worth while
    # to optimise it.
    init = jax.jit(optimizer.init, compiler_options={"xla_backend_optimization_level": 0})
    step = jnp.zeros((), jnp.int32)
    average = None
    if averaged:  # in arrays of its own, as those of a state are donated one by one
        whole = {"params": params, "batch_stats": batch_stats}
        average = jax.tree.map(lambda leaf: jax.device_put(np.array(leaf)), whole)
    return graphdef, State(step, params, batch_stats, init(params), average)


def compiler_options(deterministic: bool) -> dict[str, bool] | None:
    """What XLA is told of a program; see `Recipe.deterministic`."""
    return {"xla_gpu_deterministic_ops": True} if deterministic else None


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    label_smoothing: float,
    seed: int = 0,
    *,
    masked: bool = False,
    batch_norm: str = "global",
    accumulate: int = 1,
    precision: str = "float32",
    recompute: bool = False,
    deterministic: bool = False,
    ema: float = 0.0,
    preprocessing: Preprocessing = IMAGENET,
    learnable: dict | None = None,
    devices: Devices = ONE_DEVICE,
) -> TrainStep:
    """Returns a training step under `jax.jit`.

    Metrics are the mean loss, of all heads where there are several, and the top-1 error in percent
    over the batch, before the update. What dropout drops depends on the seed, the step, the
    micro-batch and the device alone: with other devices, other values are dropped.

    Args:
      graphdef: From `create_state`.
      optimizer: Of the state.
      label_smoothing: Share of the target spread over all classes.
      seed: Of dropout. All seeds are one program.
      masked: Leave masked images out of the loss and the metrics, and count them ("skipped"); batch
        normalisation sees them all the same. Without it every image counts, in a program of its
        own: on a whole batch the two differ in the last bits.
      batch_norm, accumulate, precision, recompute, deterministic, ema: See `Recipe`.
      preprocessing: Of the images; what normalises pixels is in it.
      learnable: Marks the params that have gradients; the network then evaluates. Without it, all
        have.
      devices: What the batch is split over; they must hold state and batch.
    """

    def mean(
        values: Shaped[Array, " b"], batch: Batch, count: Float[Array, ""] | None
    ) -> Float[Array, ""]:
        if not masked:
            return values.mean()
        total = jnp.where(batch.mask, values.astype(jnp.float32), 0).sum()
        if count is None:
            count = mean_count(batch)
        return total / jnp.where(count > 0, count, 1)

    def mean_count(batch: Batch) -> Float[Array, ""]:
        # The mean, over devices whose counts may differ, of what is divided by it is that over the
        # batch.
        return devices.mean(batch.mask.sum(dtype=jnp.float32))

    def loss_of(
        params: dict,
        batch_stats: dict,
        batch: Batch,
        key: Array,
        count: Float[Array, ""] | None,
    ) -> tuple[Array, tuple[Array, dict]]:
        if learnable is not None:
            params = jax.tree.map(
                lambda each, learns: each if learns else lax.stop_gradient(each), params, learnable
            )
        network = nnx.merge(graphdef, params, batch_stats, copy=True)
        axis, parts = devices.normalised_together(batch_norm, len(batch.label))
        network.set_attributes(BatchNorm, axis=axis, parts=parts, raise_if_not_found=False)
        network.set_attributes(Unit, recompute=recompute, raise_if_not_found=False)
        images = normalise(
            batch.image, preprocessing.pixel_mean, preprocessing.pixel_std, precision
        )
        if learnable is not None:
            heads = [(1.0, network(images, train=False))]
        elif isinstance(network, ManyHeaded):
            heads = network.heads(images, devices.own_key(key))
        else:
            heads = [(1.0, network(images, train=True))]
        _, logits = heads[0]
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch.label, logits.shape[-1]), label_smoothing
        )
        loss = sum(
            weight * mean(optax.softmax_cross_entropy(each, targets), batch, count)
            for weight, each in heads
        )
        assert isinstance(loss, Array)  # of one head at least
        return loss, (logits, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat)))

    def learn_at_once(
        batch: Batch, params: dict, batch_stats: dict, key: Array, count: Array | None = None
    ) -> Learned:
        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(
            params, batch_stats, batch, key, count
        )
        wrong = mean(jnp.argmax(logits, axis=-1) != batch.label, batch, count)
        return grads, batch_stats, {"loss": loss, "top1_error": 100 * wrong}

    def learn_in_turn(batch: Batch, params: dict, batch_stats: dict, key: Array) -> Learned:
        count = mean_count(batch) / accumulate if masked else None

        def add(total: Learned, each: tuple[Batch, Array]) -> tuple[Learned, None]:
            part, number = each
            own_key = jax.random.fold_in(key, number)
            learned = learn_at_once(part, params, batch_stats, own_key, count)
            return jax.tree.map(jnp.add, total, learned), None

        # Not runs of images: which are together would depend on the number of devices.
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(-1, accumulate, *leaf.shape[1:]).swapaxes(0, 1), batch
        )
        zero = devices.varying(jnp.zeros((), jnp.float32))
        zeros = jax.tree.map(jnp.zeros_like, (params, batch_stats))
        start = (*zeros, {"loss": zero, "top1_error": zero})
        total, _ = jax.lax.scan(add, start, (parts, jnp.arange(accumulate)))
        return jax.tree.map(lambda leaf: leaf / accumulate, total)

    @devices.split
    def learn(batch: Batch, params: dict, batch_stats: dict, key: Array) -> Learned:
        learn_all = learn_at_once if accumulate == 1 else learn_in_turn
        grads, batch_stats, metrics = devices.mean(learn_all(batch, params, batch_stats, key))
        if masked:
            metrics["skipped"] = devices.sum((~batch.mask).sum())
        return grads, batch_stats, metrics

    @partial(jax.jit, donate_argnums=1, compiler_options=compiler_options(deterministic))
    def train_step(key: Array, fields: Fields, batch: Batch) -> tuple[Fields, dict[str, Array]]:
        state = State(*fields)
        key = jax.random.fold_in(key, state.step)
        grads, batch_stats, metrics = learn(batch, state.params, state.batch_stats, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            now = {"params": params, "batch_stats": batch_stats}
            least = (1 + state.step) / (10 + state.step)
            average = optax.incremental_update(now, average, 1 - jnp.minimum(ema, least))
        return (state.step + 1, params, batch_stats, opt_state, average), metrics

    return TrainStep(train_step, jax.random.key(seed))
