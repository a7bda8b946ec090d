"""Ours, and the plain form in JAX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, PyTree

from experiments.bench import inputs, plain
from experiments.bench.peers import Forms, Prepared
from experiments.bench.workloads import Operation, Workload
from shufflenet_jax import chwn
from shufflenet_jax.inference import fold
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.ops import channel_shuffle
from shufflenet_jax.recipe import kernels
from shufflenet_jax.train import split


def forms(workload: Workload, network: Network | None, variant: str) -> Forms:
    """Ours, or with the variant "plain" the plain form."""
    is_plain = variant == "plain"
    layout = "NHWC" if is_plain else "CHWN"
    return {layout: lambda: _prepare(workload, network, is_plain)}


def _prepare(workload: Workload, network: Network | None, is_plain: bool) -> Prepared:
    if isinstance(workload.subject, Operation):
        return _operation(workload.subject, workload, is_plain)
    assert network is not None
    own: nnx.Module
    if is_plain:
        own = plain.PlainNetwork(network)
    else:
        own = fold(network) if workload.mode == "infer" else nnx.clone(network)
    if precision() == jnp.bfloat16:
        for _, module in nnx.iter_modules(own):
            if hasattr(module, "dtype"):
                module.dtype = jnp.bfloat16
    prepare_network = _training if workload.mode == "train" else _inference
    return prepare_network(workload, own)


def precision() -> jnp.dtype:
    """What this machine computes in: bfloat16 on an accelerator, as networks are trained there."""
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)


def matmul(size: int) -> Callable[[], Array]:
    """Returns what multiplies two square matrices, to measure the machine's peak."""
    x = jnp.ones((size, size), precision())
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(x, x).block_until_ready()


def inference(network: nnx.Module, images: Array) -> Callable[[], Array]:
    """Returns what computes a network's logits of these images, to completion."""
    graphdef, params, batch_stats = split(network)

    @jax.jit
    def forward(params: dict, batch_stats: dict, images: Array) -> Array:
        return nnx.merge(graphdef, params, batch_stats)(images, train=False)

    return lambda: forward(params, batch_stats, images).block_until_ready()


def _inference(workload: Workload, network: nnx.Module) -> Prepared:
    images = jnp.asarray(inputs.batch(workload)[0], precision())
    return Prepared(inference(network, images), _as_float32)


def _training(workload: Workload, network: nnx.Module) -> Prepared:
    graphdef, params, batch_stats = split(network)
    optimizer = optax.chain(
        optax.add_decayed_weights(inputs.WEIGHT_DECAY, mask=kernels),
        optax.sgd(inputs.LEARNING_RATE, inputs.MOMENTUM, nesterov=True),
    )
    images_there, labels_there = inputs.batch(workload)
    images, labels = jnp.asarray(images_there, precision()), jnp.asarray(labels_there)

    def loss_of(
        params: dict, batch_stats: dict, images: Array, labels: Array
    ) -> tuple[Array, dict]:
        network = nnx.merge(graphdef, params, batch_stats, copy=True)
        logits = network(images, train=True).astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    @jax.jit(donate_argnums=0)
    def step(
        state: tuple[dict, dict, optax.OptState], images: Array, labels: Array
    ) -> tuple[tuple[dict, dict, optax.OptState], Array]:
        params, batch_stats, opt_state = state
        (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(
            params, batch_stats, images, labels
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), batch_stats, opt_state), loss

    # The steps donate the state, and the other peers still need the weights.
    params, batch_stats = jax.tree.map(jnp.copy, (params, batch_stats))
    state = (params, batch_stats, optimizer.init(params))

    def run() -> Array:
        nonlocal state
        state, loss = jax.block_until_ready(step(state, images, labels))
        return loss

    return Prepared(run, _as_float32)


def _operation(operation: Operation, workload: Workload, is_plain: bool) -> Prepared:
    given = inputs.arguments(operation, workload.batch)
    compute = (_plain_operation if is_plain else _our_operation)(operation)
    x = jnp.asarray(given.x, precision())
    x = x if is_plain else chwn.from_nhwc(x)
    weights = [jnp.asarray(each) for each in given.weights]

    @jax.jit
    def forward(x: Array, *weights: Array) -> tuple[Array, ...]:
        return (compute(x, *weights),)

    @jax.jit
    def forward_and_backward(x: Array, *weights: Array) -> tuple[Array, ...]:
        y, gradients_of = jax.vjp(compute, x, *weights)
        return y, *gradients_of(y)

    chosen = forward_and_backward if workload.mode == "train" else forward

    def result(outputs: tuple[Array, ...]) -> list[np.ndarray]:
        maps = [each if is_plain else chwn.to_nhwc(each) for each in outputs[:2]]
        return _as_float32([*maps, *outputs[2:]])

    return Prepared(lambda: jax.block_until_ready(chosen(x, *weights)), result)


def _our_operation(operation: Operation) -> Callable[..., Array]:
    def norm_relu(x: Array, scale: Array, bias: Array) -> Array:
        return jax.nn.relu(chwn.batch_norm(x, scale, bias, 1e-5)[0])

    def conv(x: Array, kernel: Array) -> Array:
        return chwn.conv(x, kernel.astype(x.dtype), operation.stride, operation.groups)

    by_kind: dict[str, Callable[..., Array]] = {
        "conv": conv,
        "norm_relu": norm_relu,
        "channel_shuffle": lambda x: channel_shuffle(x, operation.groups, axis=0),
        "max_pool": chwn.max_pool,
        "avg_pool": chwn.avg_pool,
    }
    return by_kind[operation.kind]


def _plain_operation(operation: Operation) -> Callable[..., Array]:
    def norm_relu(x: Array, scale: Array, bias: Array) -> Array:
        norm = nnx.BatchNorm(operation.channels, epsilon=1e-5, dtype=x.dtype, rngs=nnx.Rngs(0))
        norm.scale, norm.bias = nnx.Param(scale), nnx.Param(bias)
        return jax.nn.relu(norm(x, use_running_average=False))

    def conv(x: Array, kernel: Array) -> Array:
        return plain.conv(x, kernel.astype(x.dtype), operation.stride, operation.groups)

    by_kind: dict[str, Callable[..., Array]] = {
        "conv": conv,
        "norm_relu": norm_relu,
        "channel_shuffle": lambda x: channel_shuffle(x, operation.groups),
        "max_pool": plain.max_pool,
        "avg_pool": plain.avg_pool,
    }
    return by_kind[operation.kind]


def _as_float32(arrays: PyTree[Array]) -> list[np.ndarray]:
    return [np.asarray(each, np.float32) for each in jax.tree.leaves(arrays)]
