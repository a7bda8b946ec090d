"""Units, features and operations within other people's models, and under JAX's transformations."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.nnx import bridge
from jax.sharding import Mesh, PartitionSpec

from shufflenet_jax import (
    ShuffleUnit,
    Stem,
    channel_shuffle,
    depthwise,
    grouped_pointwise,
    shufflenet,
)

UNIT = partial(ShuffleUnit, 12, 24, 2, groups=3)


def maps(*shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


class Theirs(nnx.Module):
    """Someone else's model: their layers around a unit and two operations of ours."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 12, (3, 3), rngs=rngs)
        self.unit = UNIT(rngs=rngs)
        self.pointwise = nnx.Param(jax.random.normal(rngs.params(), (1, 1, 8, 24)))
        self.spatial = nnx.Param(jax.random.normal(rngs.params(), (3, 3, 1, 24)))
        self.last = nnx.Linear(24, 2, rngs=rngs)

    def __call__(self, images, *, train=False):
        x = self.unit(nnx.relu(self.first(images)), train=train)
        x = channel_shuffle(grouped_pointwise(x, self.pointwise[...], 3), 3)
        return self.last(depthwise(x, self.spatial[...]).mean((1, 2)))


def test_a_unit_in_a_model_of_nnx_learns():
    """By flax's own optimizer and transformations; batch statistics move."""
    model = Theirs(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.01), wrt=nnx.Param)
    images, labels = maps(8, 8, 8, 3), jnp.arange(8, dtype=jnp.int32) % 2
    before = np.array(model.unit.reduce.norm.mean[...])

    @nnx.jit
    def step(model, optimizer):
        def loss_of(model):
            logits = model(images, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    assert (np.array(model.unit.reduce.norm.mean[...]) != before).any()


def test_a_unit_in_a_model_of_linen():
    """Through flax's bridge: parameters and statistics are in Linen's collections."""

    class Model(linen.Module):
        @linen.compact
        def __call__(self, images, train=False):
            x = linen.relu(linen.Conv(12, (3, 3))(images))
            unit = bridge.to_linen(ShuffleUnit, 12, 24, 2, groups=3, name="unit")
            return linen.Dense(2)(unit(x, train=train).mean((1, 2)))

    model, images = Model(), maps(4, 8, 8, 3)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert {"params"} < set(variables)
    others = [name for name in variables if name != "params"]
    train = jax.jit(lambda variables: model.apply(variables, images, True, mutable=others))
    logits, moved = train(variables)
    assert logits.shape == (4, 2)
    statistics = [
        jax.tree.leaves({k: v for k, v in each.items() if k != "params"})
        for each in (variables, moved)
    ]
    assert any((a != b).any() for a, b in zip(*statistics, strict=True))

    @jax.jit
    @jax.grad
    def gradient(params):
        return model.apply({**variables, "params": params}, images).sum()

    grads = gradient(variables["params"])
    assert all(np.isfinite(each).all() for each in jax.tree.leaves(grads))
    assert any(np.any(each) for each in jax.tree.leaves(grads["unit"]))


def test_features_of_a_network_under_a_head_of_ones_own():
    """In plain JAX: the network is a function of a tree of arrays; only the head is trained."""
    backbone = shufflenet(
        width=0.25, repeats=(1, 1, 1), stem=Stem(1, False), num_classes=1, rngs=nnx.Rngs(0)
    )
    graphdef, state = nnx.split(backbone)
    images = maps(4, 16, 16, 3)

    @jax.jit
    def loss_of(head, images):
        found = nnx.merge(graphdef, state).features(images)
        assert list(found) == ["stem", "stage2", "stage3", "stage4"]
        assert [each.shape[1] for each in found.values()] == [16, 8, 4, 2]
        return ((found["stage3"].mean((1, 2)) @ head - 1) ** 2).mean()

    head = jnp.zeros((backbone.widths[2], 1))
    moved = head - 0.01 * jax.grad(loss_of)(head, images)
    assert loss_of(moved, images) < loss_of(head, images)


@pytest.fixture(scope="module")
def unit():
    """As plain JAX has it: a pure function, and its arrays."""
    graphdef, state = nnx.split(UNIT(rngs=nnx.Rngs(0)))
    return lambda state, x: nnx.merge(graphdef, state)(x), state


def close(one, other, **tolerance):
    np.testing.assert_allclose(
        np.asarray(one, np.float32), np.asarray(other, np.float32), **({"atol": 1e-5} | tolerance)
    )


def test_jit_vmap_and_scan(unit):
    call, state = unit
    stacks = maps(3, 2, 8, 8, 12)
    expected = [call(state, each) for each in stacks]
    close(jnp.stack([jax.jit(call)(state, each) for each in stacks]), jnp.stack(expected))
    close(jax.jit(jax.vmap(call, (None, 0)))(state, stacks), jnp.stack(expected))
    _, scanned = jax.lax.scan(lambda carry, each: (carry, call(state, each)), None, stacks)
    close(scanned, jnp.stack(expected))


def test_units_with_weights_of_their_own_by_vmap(unit):
    """An ensemble: the states are stacked, and one program serves all of them."""
    call, _ = unit
    states = [nnx.split(UNIT(rngs=nnx.Rngs(seed)))[1] for seed in range(2)]
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *states)
    x = maps(2, 8, 8, 12)
    together = jax.jit(jax.vmap(call, (0, None)))(stacked, x)
    close(together, jnp.stack([call(state, x) for state in states]))


def test_grad_agrees_with_differences(unit):
    call, state = unit
    x, direction = maps(1, 4, 4, 12), maps(1, 4, 4, 12)[:, ::-1]
    loss = jax.jit(lambda x: (call(state, x) ** 2).sum())
    step = 1e-2
    slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    close((jax.grad(loss)(x) * direction).sum(), slope, rtol=2e-2)
    _, forward = jax.jvp(loss, (x,), (direction,))
    close(forward, (jax.grad(loss)(x) * direction).sum(), rtol=1e-4)


def test_shard_map(unit):
    call, state = unit
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("batch",))
    x = maps(2 * len(devices), 8, 8, 12)
    sharded = jax.jit(
        jax.shard_map(
            call,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec("batch")),
            out_specs=PartitionSpec("batch"),
        )
    )
    close(sharded(state, x), call(state, x))


@pytest.mark.slow
def test_shard_map_over_four_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    command = [sys.executable, "-m", "pytest", "-q", "-n0", f"{__file__}::test_shard_map"]
    subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, check=True)


def test_bfloat16(unit):
    call, state = unit
    x = maps(2, 8, 8, 12)
    found = jax.jit(call)(state, x.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    expected = np.asarray(call(state, x))
    close(found, expected, atol=0.05 * np.abs(expected).max())
    half = x.astype(jnp.bfloat16)
    kernel = maps(1, 1, 4, 24, dtype=jnp.bfloat16)
    assert channel_shuffle(grouped_pointwise(half, kernel, 3), 3).dtype == jnp.bfloat16
    assert depthwise(half, maps(3, 3, 1, 12, dtype=jnp.bfloat16)).dtype == jnp.bfloat16
