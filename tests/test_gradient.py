"""Every way to differentiate, in the fast form and in the direct one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from shufflenet_jax import chwn
from shufflenet_jax.chwn import form


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


PARAMS = {
    "image": normal(0, (3, 3, 3, 5)) / 5,
    "scale": 1 + normal(1, (5,)) / 5,
    "bias": normal(2, (5,)) / 5,
    "depthwise": normal(3, (3, 3, 1, 5)) / 3,
    "down": normal(4, (3, 3, 1, 5)) / 3,
    "dense": normal(5, (3, 3, 5, 2)) / 6,
}
IMAGES = normal(6, (3, 6, 6, 4))
DIRECTION = jax.tree.map(lambda leaf: normal(leaf.size, leaf.shape), PARAMS)


def loss(params, images, axis=None):
    """Something of every operation that has a gradient or a program of its own."""
    x = chwn.conv(images, params["image"])
    x, _, _ = chwn.batch_norm(x, params["scale"], params["bias"], 1e-5, axis)
    x = chwn.add_relu(x, chwn.conv(x, params["depthwise"], groups=5))
    x = chwn.max_pool(x) + chwn.conv(x, params["down"], stride=2, groups=5)
    return jnp.square(chwn.conv(x, params["dense"])).mean()


def assert_close(ours, theirs):
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = np.abs(other).max()
        assert scale > 0
        np.testing.assert_allclose(mine, other, atol=2e-4 * scale)


def forward(params):
    return jax.jvp(partial(loss, images=IMAGES), (params,), (DIRECTION,))


def forward_over_reverse(params):
    return jax.jvp(jax.grad(partial(loss, images=IMAGES)), (params,), (DIRECTION,))[1]


def reverse_over_forward(params):
    return jax.grad(lambda params: forward(params)[1])(params)


def reverse_over_reverse(params):
    def slope(params):
        gradients = jax.grad(loss)(params, IMAGES)
        along = jax.tree.map(lambda a, b: (a * b).sum(), gradients, DIRECTION)
        return sum(jax.tree.leaves(along))

    return jax.grad(slope)(params)


def of_every_image(params):
    """The gradients of each image alone."""
    images = jnp.moveaxis(IMAGES, -1, 0)[..., None]
    return jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, images)


WAYS = {
    "matmul": (
        forward,
        of_every_image,
        forward_over_reverse,
        reverse_over_forward,
        reverse_over_reverse,
    ),
    "direct": (forward, of_every_image, forward_over_reverse),
}


@pytest.fixture(scope="module")
def derivatives():
    """By form and way, of one program a form."""
    found = {}
    for name, ways in WAYS.items():
        with form(name):
            program = jax.jit(lambda params, ways=ways: [way(params) for way in ways])
            found[name] = dict(zip(ways, program(PARAMS), strict=True))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS["direct"])
def test_derivatives_of_both_forms_agree(derivatives, way):
    assert_close(derivatives["matmul"][way], derivatives["direct"][way])


@pytest.mark.parametrize("way", [reverse_over_forward, reverse_over_reverse])
def test_hessian_vector_products_agree_in_every_order(derivatives, way):
    fast = derivatives["matmul"]
    assert_close(fast[way], fast[forward_over_reverse])


def test_gradients_go_back_through_a_loop():
    """Of two steps of descent, recomputed on the way back."""

    def after_steps(kernel):
        def value(kernel):
            return jnp.square(chwn.conv(IMAGES, kernel, stride=2, groups=3)).mean()

        def step(kernel, _):
            return kernel - 0.1 * jax.grad(value)(kernel), None

        return value(jax.lax.scan(step, kernel, None, length=2)[0])

    kernel, found = normal(0, (3, 3, 1, 3)), {}
    for name in ("matmul", "direct"):
        with form(name):
            found[name] = jax.jit(jax.grad(jax.checkpoint(after_steps)))(kernel)
    assert_close(found["matmul"], found["direct"])


def test_a_batch_in_parts_has_the_gradient_of_all_of_it():
    """Whether the parts are mapped by `jax.vmap` or, on devices, by `jax.shard_map`.

    Images differ from part to part and parameters do not; the statistics are those of the batch.
    """
    mesh = jax.make_mesh((1,), ("parts",), axis_types=(jax.sharding.AxisType.Auto,))
    by_image = PartitionSpec(None, None, None, "parts")

    def mapped(params):
        parts = jnp.moveaxis(IMAGES.reshape(3, 6, 6, 2, 2), 3, 0)
        named = jax.vmap(partial(loss, axis=chwn.Axis("parts")), (None, 0), axis_name="parts")
        return named(params, parts).mean()

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), by_image),
        out_specs=PartitionSpec(),
    )
    def on_devices(params, images):
        def mean(params):
            return jax.lax.pmean(loss(params, images, axis=chwn.Axis("parts")), "parts")

        return jax.grad(mean)(params)

    @jax.jit
    def gradients(params):
        return jax.grad(loss)(params, IMAGES), jax.grad(mapped)(params), on_devices(params, IMAGES)

    with form("matmul"):
        whole, *in_parts = gradients(PARAMS)
    for each in in_parts:
        assert_close(each, whole)
