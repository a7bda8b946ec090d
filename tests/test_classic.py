"""The classic networks: published counts, dropout, auxiliary heads, and layers of their own."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.tables import paper
from shufflenet_jax import InputError, SparseConv, abstract, complexity
from shufflenet_jax.data import Batch
from shufflenet_jax.initialisation import initialise
from shufflenet_jax.layers import adaptive_avg_pool, dropout, local_response_norm
from shufflenet_jax.models import lenet
from shufflenet_jax.models.classic import Classic
from shufflenet_jax.models.googlenet import GoogLeNet
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import create_state, make_train_step, normalise
from shufflenet_jax.zoo import NETWORKS


def count(name, **arguments):
    return complexity(abstract(NETWORKS[name], **arguments), (224, 224, 3))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        # torchvision's documentation (num_params of the weights) of vgg16, alexnet, squeezenet1_0,
        # resnet50 and resnext50_32x4d.
        ("vgg16", 138_357_544),
        ("alexnet_one_tower", 61_100_840),
        ("squeezenet", 1_248_424),
        ("resnet50", 25_557_032),
        ("resnext50_32x4d", 25_028_904),
        # torchvision's googlenet(aux_logits=True); without, its documentation has 6,624,904.
        ("googlenet", 13_004_888),
        # By the article's figure 2: 34,944 + 307,456 + 885,120 + 663,936 + 442,624 in convolutions
        # and 37,752,832 + 16,781,312 + 4,097,000 in linear layers; BVLC's bvlc_alexnet has as many.
        ("alexnet", 60_965_224),
    ],
)
def test_published_parameters(name, params):
    assert count(name).params == params


def test_googlenet_without_auxiliary_heads():
    assert count("googlenet", auxiliary=False).params == 6_624_904  # torchvision's documentation
    assert count("googlenet", auxiliary=False).macs == count("googlenet").macs


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        # torchvision's documentation (GFLOPS of the weights, which are multiply-adds).
        ("vgg16", 15.47),
        ("alexnet_one_tower", 0.71),
        ("googlenet", 1.50),
        ("squeezenet", 0.82),
        ("resnet50", 4.09),
        ("resnext50_32x4d", 4.23),
        # By the article's figure 2: 666 million in convolutions and 59 in linear layers.
        ("alexnet", 0.724),
    ],
)
def test_published_multiply_adds(name, gmacs):
    assert count(name).macs / 1e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize("name", ["vgg16", "googlenet", "alexnet", "squeezenet"])
def test_mflops_of_table_6(name):
    mflops, _ = paper.TABLE6[name]
    assert count(name).macs / 1e6 == pytest.approx(mflops, rel=0.03)


@pytest.mark.parametrize(
    "name", ["vgg16", "googlenet", "alexnet", "alexnet_one_tower", "squeezenet"]
)
def test_least_size_is_the_smallest_that_leaves_something(name):
    network = abstract(NETWORKS[name], num_classes=7)
    graphdef, state = nnx.split(network)

    def forward(state, x):
        return nnx.merge(graphdef, state).forward(x, train=False, key=None)

    def maps(size):
        return jax.ShapeDtypeStruct((3, size, size, 2), jnp.float32)

    least = network.least_size
    assert jax.eval_shape(forward, state, maps(least)).shape == (2, 7)
    with pytest.raises(InputError, match=r"a window of .* is larger than maps of"):
        jax.eval_shape(forward, state, maps(least - 1))
    with pytest.raises(InputError, match=f"needs images of at least {least}x{least}, not"):
        network(jnp.ones((2, least, least - 1, 3)))


@pytest.mark.parametrize("name", ["alexnet", "alexnet_one_tower", "squeezenet"])
def test_networks_that_need_large_images_can_scale_them_up(name):
    assert abstract(NETWORKS[name]).upscale_to == 0
    assert abstract(NETWORKS[name], upscale_to=64).upscale_to == 64


def test_lenet5_has_60000_parameters_and_340908_connections():
    """As the article counts them (section II.B), biases, poolings and codes included."""
    network = abstract(NETWORKS["lenet5"])
    counted = complexity(network, (32, 32, 1))
    assert counted.params == 60_000
    # Outputs of C1, C3, C5 and F6, each of which has a bias; and the two poolings.
    biases = 28 * 28 * 6 + 10 * 10 * 16 + 120 + 84
    assert counted.macs + biases + 5880 + 2000 == 340_908


def test_c3_sees_only_what_its_table_says():
    conv = SparseConv(lenet.C3_TABLE, 5, rngs=nnx.Rngs(0))
    one_map_each = jnp.tile(jnp.eye(6)[:, None, None], (1, 5, 5, 1))
    seen = jax.jit(lambda x: conv(x))(one_map_each)
    seen = np.asarray(seen)[:, 0, 0]  # its biases are zero
    assert [tuple(np.flatnonzero(row)) for row in seen] == list(lenet.C3_TABLE)


def test_lenet5_sees_32x32_in_gray():
    network = lenet.LeNet5(rngs=nnx.Rngs(0))
    gray = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 1)), jnp.float32)
    colours = jnp.tile(gray, (1, 1, 1, 3))
    both = jax.jit(lambda *kinds: [network(each) for each in kinds])
    logits, of_colours = both(gray, colours)
    assert logits.shape == (2, 10)
    np.testing.assert_allclose(of_colours, logits, atol=1e-4)
    with pytest.raises(InputError, match="LeNet-5 needs images of 32x32, not 28x28"):
        network(jnp.zeros((2, 28, 28, 1)))


def test_lenet5_prefers_the_nearest_code():
    codes = abstract(lenet.LeNet5)._codes(84)
    assert set(np.unique(codes)) == {-1, 1}
    distances = ((codes[:, :, None] - codes[:, None]) ** 2).sum(0)
    np.testing.assert_allclose(codes.T @ codes, 84 - distances / 2)


def test_local_response_norm_by_hand():
    x = np.random.default_rng(0).normal(scale=50, size=(7, 2, 2, 1)).astype(np.float32)
    expected = np.empty_like(x)
    for channel in range(7):
        near = x[max(0, channel - 2) : channel + 3]
        expected[channel] = x[channel] / (2 + 1e-4 * (near**2).sum(0)) ** 0.75
    np.testing.assert_allclose(local_response_norm(jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 4, 6, 7, 13])
def test_adaptive_pool_by_hand(length):
    """Every value of the result is the mean from floor(i n / 6) to ceil((i + 1) n / 6)."""
    x = np.random.default_rng(0).normal(size=(2, length, 9, 1)).astype(np.float32)
    found = jax.jit(adaptive_avg_pool, static_argnums=1)(jnp.asarray(x), 6)
    for i in range(6):
        for j in range(6):
            rows = slice(int(np.floor(i * length / 6)), int(np.ceil((i + 1) * length / 6)))
            columns = slice(int(np.floor(j * 9 / 6)), int(np.ceil((j + 1) * 9 / 6)))
            expected = x[:, rows, columns].mean((1, 2))
            np.testing.assert_allclose(found[:, i, j], expected, atol=1e-6)


def test_dropout_keeps_the_mean_and_drops_the_rate():
    dropped = jax.jit(lambda key: dropout(jnp.ones((100, 100)), 0.3, key))(jax.random.key(0))
    dropped = np.asarray(dropped)
    assert float((dropped == 0).mean()) == pytest.approx(0.3, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    assert len(np.unique(dropped)) == 2
    assert (dropout(jnp.ones(5), 0.3, None) == 1).all()


class Small(Classic):
    """A network with a head like VGG's, but small enough to train in a test."""

    least_size = 16

    def __init__(self, *, upscale_to=0, rngs):
        self.upscale_to = upscale_to
        self.linear = nnx.Linear(3, 64, rngs=rngs)
        self.classifier = nnx.Linear(64, 10, rngs=rngs)

    def forward(self, x, *, train, key):
        del train
        x = jax.nn.relu(self.linear(x.mean((1, 2)).T))
        return self.classifier(dropout(x, 0.5, key))


def test_smaller_images_are_scaled_up_and_larger_ones_are_not():
    plain, scaled = Small(rngs=nnx.Rngs(0)), Small(upscale_to=40, rngs=nnx.Rngs(0))
    small = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 12, 3)), jnp.float32)
    large = jax.image.resize(small, (2, 40, 40, 3), "bilinear")
    with pytest.raises(InputError, match="at least 16x16, not 12x12"):
        plain(small)
    of_small, of_large, expected = jax.jit(
        lambda small, large: (scaled(small), scaled(large), plain(large))
    )(small, large)
    np.testing.assert_allclose(of_small, expected, rtol=1e-5)
    np.testing.assert_array_equal(of_large, expected)


def trained(steps, restart_at=None, seed=0):
    """Losses of a run; at a step everything but the state is made anew, as when a run resumes."""
    optimizer = Recipe(learning_rate=0.01).make_optimizer(steps=10)
    rng = np.random.default_rng(0)
    batch = Batch(
        image=rng.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8),
        label=rng.integers(0, 10, 8).astype(np.int32),
        mask=np.ones(8, bool),
    )
    graphdef, state = create_state(Small(rngs=nnx.Rngs(0)), optimizer)
    train_step = make_train_step(graphdef, optimizer, 0.0, seed)
    losses = []
    for step in range(steps):
        if step == restart_at:
            graphdef, _ = create_state(Small(rngs=nnx.Rngs(1)), optimizer)
            train_step = make_train_step(graphdef, optimizer, 0.0, seed)
        state, metrics = train_step(state, batch)
        losses.append(metrics["loss"].item())
    return losses


def test_seeds_of_a_network_with_dropout_are_one_program():
    optimizer = Recipe().make_optimizer(steps=10)
    graphdef, state = create_state(Small(rngs=nnx.Rngs(0)), optimizer)
    batch = Batch(np.zeros((8, 16, 16, 3), np.uint8), np.zeros(8, np.int32), np.ones(8, bool))

    def program(seed):
        train_step = make_train_step(graphdef, optimizer, 0.0, seed)
        return train_step.lower(state, batch).as_text()

    assert program(0) == program(1)


def test_dropout_in_training_depends_on_seed_and_step_alone():
    losses = trained(6)
    assert losses == trained(6, restart_at=3)
    assert losses != trained(6, seed=1)
    # With another mask at each step, the loss on one batch does not fall at every step.
    assert any(later > earlier for earlier, later in pairwise(losses))


class TwoHeaded(Small):
    """As `Small`, with an auxiliary head, and without dropout."""

    def __init__(self, *, rngs):
        super().__init__(rngs=rngs)
        self.auxiliary = nnx.Linear(3, 10, rngs=rngs)

    def heads(self, images, key):
        del key
        return [(1.0, self(images)), (0.3, self.auxiliary(images.mean((1, 2))))]


def test_the_loss_is_the_weighted_sum_over_all_heads():
    network, optimizer = TwoHeaded(rngs=nnx.Rngs(0)), Recipe().make_optimizer(steps=10)
    batch = Batch(
        image=np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8),
        label=np.arange(8, dtype=np.int32),
        mask=np.ones(8, bool),
    )
    heads = network.heads(normalise(jnp.asarray(batch.image)), None)
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(logits, batch.label).mean()
        for _, logits in heads
    ]
    before = np.array(network.auxiliary.kernel[...])
    graphdef, state = create_state(network, optimizer)
    moved, metrics = make_train_step(graphdef, optimizer, 0.0)(state, batch)
    assert metrics["loss"].item() == pytest.approx(
        losses[0].item() + 0.3 * losses[1].item(), rel=1e-5
    )
    assert (moved.params["auxiliary"]["kernel"] != before).all()


@pytest.mark.slow
def test_googlenet_trains_on_three_heads():
    network = GoogLeNet(num_classes=10, rngs=nnx.Rngs(0))
    initialise(
        network, "he", nnx.Rngs(0)
    )  # with weights that pass gradients on from the first step
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    of_heads = nnx.All(nnx.Param, nnx.PathContains("auxiliary"))
    graphdef, auxiliary, rest = nnx.split(network, of_heads, ...)

    @jax.jit
    def outputs(auxiliary):
        def loss(auxiliary):
            heads = nnx.merge(graphdef, auxiliary, rest, copy=True).heads(images, None)
            return sum(jax.nn.logsumexp(logits) for _, logits in heads), heads

        called = nnx.merge(graphdef, auxiliary, rest, copy=True)(images, train=True)
        return jax.grad(loss, has_aux=True)(auxiliary), called

    (gradients, heads), called = outputs(auxiliary)
    assert [(weight, logits.shape) for weight, logits in heads] == [
        (1.0, (4, 10)),
        (0.3, (4, 10)),
        (0.3, (4, 10)),
    ]
    np.testing.assert_allclose(heads[0][1], called, atol=1e-5)
    assert len(leaves := jax.tree.leaves(gradients)) == 2 * 7
    assert all((leaf != 0).any() for leaf in leaves)
    # The whole step is traced; to compile it takes a minute.
    optimizer = Recipe().make_optimizer(steps=10)
    graphdef, state = create_state(network, optimizer)
    batch = Batch(np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, np.int32), np.ones(4, bool))
    train_step = make_train_step(graphdef, optimizer, 0.0)
    lowered = train_step.lower(state, batch)
    metrics = 2
    assert len(jax.tree.leaves(lowered.out_info)) == len(jax.tree.leaves(state)) + metrics
