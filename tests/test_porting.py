"""Weights of PyTorch: the same logits here and there, whatever the orders of the other code."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import InputError, Stem, Trained, load_torch, normalise, torch_state_dict, zoo
from shufflenet_jax.data import IMAGENET
from shufflenet_jax.porting.shuffle import orders, shuffled, unshuffled

HOW = "pip install -e '.[parity]'"
torch = pytest.importorskip("torch", reason=f"PyTorch is not installed: {HOW}")

import megvii  # noqa: E402

SMALL = {"num_classes": 10, "repeats": (2, 1, 2)}


def randomise(model):
    """Gives every bias and every BN values that show when two are swapped or one is left out."""
    generator = torch.Generator().manual_seed(0)

    def fill(tensor, low, high):
        tensor.data.uniform_(low, high, generator=generator)

    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            fill(layer.weight, 0.5, 1.5)
            fill(layer.bias, -0.2, 0.2)
            fill(layer.running_mean, -0.2, 0.2)
            fill(layer.running_var, 0.5, 2)
        elif isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            fan_in = layer.weight[0].numel()
            layer.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if layer.bias is not None:
                fill(layer.bias, -0.2, 0.2)
    return model.eval()


def pixels(size, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)


def theirs(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


@partial(jax.jit, static_argnums=0)
def _logits(graphdef, state, images):
    return nnx.merge(graphdef, state)(images)


def ours(trained, images):
    """Of pixels, or of images that are normalised; one program for all weights of a network."""
    if images.dtype == np.uint8:
        images = trained.normalise(images)
    return np.asarray(_logits(*nnx.split(trained.network), images))


def assert_close(ours, theirs):
    """Within 1e-4 of the largest logit, or of 1; and the logits depend on something."""
    assert theirs.std() > 0.01 * np.abs(theirs).max() > 0
    scale = max(1.0, np.abs(theirs).max())
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale)


def assert_same_state(found, expected):
    expected = {name: each.numpy() for name, each in expected.items()}
    assert found.keys() == expected.keys()
    for name, each in found.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(each, expected[name], err_msg=name)


def bgr(images):
    return images[..., ::-1].astype(np.float32)


def small(groups=3, width=0.5, **options):
    return randomise(megvii.ShuffleNetV1(groups, width, **{**SMALL, **options}))


MEGVII = [(groups, width) for groups in megvii.CHANNELS for width in megvii.CHANNELS[groups]]


@pytest.mark.parametrize(
    ("groups", "width"),
    [pytest.param(*case, marks=pytest.mark.slow) for case in MEGVII],
)
def test_megvii_at_every_size(groups, width):
    """BGR from 0 to 255 there, RGB here; and the state dict comes back to the bit."""
    model = randomise(megvii.ShuffleNetV1(groups, width))
    trained = load_torch(model.state_dict())
    assert trained.provenance["imported_from"] == "megvii"
    images = pixels(64)
    assert_close(ours(trained, images), theirs(model, bgr(images)))
    ordinary = groups == 3 or width == 2.0
    assert trained.name == ("shufflenet" if ordinary else "shufflenet_ported")
    assert_same_state(torch_state_dict(trained, "megvii"), model.state_dict())


def test_the_order_of_a_shuffle_is_one_of_weights_where_groups_divide():
    """The permutations make one shuffle of the other, and are of the channels of a group."""
    for groups, size in itertools.product((1, 2, 3, 4, 8), (1, 2, 3, 6, 8, 12, 16, 18, 24)):
        channels = groups * size
        mine, other = shuffled(channels, groups), unshuffled(channels, groups)
        found = orders(mine, other, groups)
        if found is None:
            assert size % groups
            continue
        before = np.arange(channels) + 100
        ours_after = before[found.reduce][mine]  # what our last convolution sees
        theirs_after = before[other].reshape(groups, size)
        np.testing.assert_array_equal(ours_after, before[found.depthwise])
        for group in range(groups):
            np.testing.assert_array_equal(
                ours_after.reshape(groups, size)[group], theirs_after[group][found.expand[group]]
            )
        np.testing.assert_array_equal(found.reduce // size, np.arange(channels) // size)


def test_where_groups_do_not_divide_the_tensor_is_named():
    arguments = {"groups": 8, "width": 0.5, "repeats": [1, 1, 1]}
    network = zoo.build("shufflenet", arguments, num_classes=2, rngs=nnx.Rngs(0))
    trained = Trained(network, IMAGENET, ("a", "b"), 0, "shufflenet", arguments)
    with pytest.raises(InputError, match=r"features.0.branch_main_2.0.weight.*8 groups of 6"):
        torch_state_dict(trained, "megvii")


def test_each_difference_of_megvii_shows(monkeypatch):
    """Without one of them, the logits are others: none is without effect on these weights."""
    model, images = small(), pixels(32)
    trained = load_torch(model.state_dict())
    expected = theirs(model, bgr(images))
    assert_close(ours(trained, images), expected)

    def differs(found):
        assert np.abs(found - expected).max() > 1e-2 * np.abs(expected).max()

    differs(ours(trained, images[..., ::-1].copy()))  # BGR
    differs(ours(trained, normalise(images)))  # 0 to 255, no mean
    for what in ("depthwise", "expand", "reduce"):
        unit = trained.network.stages[0][1]
        layer = getattr(unit, what).conv
        kept = layer.kernel[...]
        order = np.random.default_rng(0).permutation(kept.shape[-1 if what != "expand" else -2])
        layer.kernel[...] = kept[..., order] if what != "expand" else kept[..., order, :]
        differs(ours(trained, images))
        layer.kernel[...] = kept
    assert not np.asarray(trained.network.classifier.bias[...]).any()


def test_a_bias_that_the_other_code_lacks_is_named():
    trained = load_torch(small().state_dict())
    trained.network.classifier.bias[...] = trained.network.classifier.bias[...] + 1
    with pytest.raises(InputError, match=r"megvii: classifier.0.bias is not zero"):
        torch_state_dict(trained, "megvii")


@pytest.mark.parametrize("groups", [3, 8])
def test_small_images(groups):
    """A stem of stride 1 without a pool, which is said, and 10 classes, which the shapes say."""
    model, images = small(groups, stem=(1, False)), pixels(16)
    trained = load_torch(model.state_dict(), stem=Stem(stride=1, max_pool=False))
    assert len(trained.class_names) == 10
    assert_close(ours(trained, images), theirs(model, bgr(images)))


def test_stage_2_without_a_stride():
    model, images = small(stride=1), pixels(32)
    trained = load_torch(model.state_dict())
    assert trained.arguments["strides"] == [1, 2, 2]
    assert_close(ours(trained, images), theirs(model, bgr(images)))
    assert_same_state(torch_state_dict(trained, "megvii"), model.state_dict())


def test_where_a_state_dict_may_stand():
    model = small()
    expected = load_torch(model.state_dict())
    prefixed = {f"module.{name}": each for name, each in model.state_dict().items()}
    for content in (
        prefixed,
        {"state_dict": prefixed, "epoch": 3},
        {"model": model.state_dict(), "ema": model.state_dict()},
        {name: each.numpy() for name, each in model.state_dict().items()},
    ):
        found = load_torch(content, layout="megvii")
        jax.tree.map(
            np.testing.assert_array_equal,
            *(nnx.to_pure_dict(nnx.state(each.network)) for each in (found, expected)),
        )


def changed(name, change):
    tensors = dict(small().state_dict())
    tensors[name] = change(tensors[name])
    return tensors


def without(name):
    tensors = dict(small().state_dict())
    del tensors[name]
    return tensors


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: without("features.1.branch_main_1.4.running_var"), "lacks .*1.4.running_var"),
        (lambda: without("classifier.0.weight"), "classifier.0.weight is missing"),
        (
            lambda: changed("features.1.branch_main_1.0.weight", lambda each: each[:-4]),
            r"features.1.branch_main_2.0.weight has 120 outputs",
        ),
        (
            lambda: changed("features.2.branch_main_1.1.bias", lambda each: each[:-1]),
            r"features.2.branch_main_1.1.bias is of shape \[59\], not \[60\]",
        ),
        (
            lambda: changed("first_conv.0.weight", lambda each: each[:, :, :1, :1]),
            r"first_conv.0.weight is of shape \[12, 3, 1, 1\]",
        ),
        (
            lambda: changed("classifier.0.weight", lambda each: each.long()),
            "classifier.0.weight holds int64",
        ),
        (
            lambda: {**small().state_dict(), "classifier.0.bias": torch.ones(10)},
            "classifier.0.bias is there, which its code does not have",
        ),
        (lambda: {**small().state_dict(), "extra.weight": torch.ones(1)}, "has extra.weight"),
        (lambda: {"a.weight": torch.ones(1)}, "has tensors such as a.weight, which are none of"),
        (lambda: {"a": 1}, "holds no dictionary of tensors"),
        (
            lambda: {"x": {"a": torch.ones(1)}, "y": {"a": torch.ones(1)}},
            "several dictionaries of tensors, x, y",
        ),
    ],
)
def test_what_does_not_fit_is_named(tensors, message):
    with pytest.raises(InputError, match=message) as caught:
        load_torch(tensors())
    assert "\n" not in str(caught.value)


def test_unknown_layouts_and_names():
    with pytest.raises(InputError, match="unknown layout 'megvi'; did you mean megvii"):
        load_torch(small().state_dict(), layout="megvi")
    with pytest.raises(InputError, match="none of pytorchcv"):
        load_torch(small().state_dict(), layout="pytorchcv")
    with pytest.raises(InputError, match="of 10 classes, and 2 have names"):
        load_torch(small().state_dict(), class_names=("a", "b"))


PYTORCHCV = {
    "shufflenet_g1_w1": 64,
    "shufflenet_g2_w1": 64,
    "shufflenet_g3_w1": 64,
    "shufflenet_g4_w1": 64,
    "shufflenet_g8_w1": 64,
    "shufflenet_g1_w3d4": 64,
    "shufflenet_g3_w3d4": 64,
    "shufflenet_g1_wd2": 64,
    "shufflenet_g3_wd2": 64,
    "shufflenet_g1_wd4": 64,
    "shufflenet_g3_wd4": 64,
    "mobilenet_w1": 64,
    "mobilenet_w3d4": 64,
    "mobilenet_wd2": 64,
    "mobilenet_wd4": 64,
    "mobilenetv2_w1": 64,
    "mobilenetv2_w3d4": 64,
    "mobilenetv2_wd2": 64,
    "mobilenetv2_wd4": 64,
    "mobilenetv2b_w1": 64,
    "mobilenetv2b_w3d4": 64,
    "mobilenetv2b_wd2": 64,
    "mobilenetv2b_wd4": 64,
    "resnet50b": 64,
    "resnext50_32x4d": 64,
    "vgg16": 224,
    "alexnetb": 224,
    "squeezenet_v1_0": 224,
}
"""The size of the images."""

TORCHVISION = {
    "vgg16": 224,
    "alexnet": 224,
    "googlenet": 64,
    "squeezenet1_0": 64,
    "mobilenet_v2": 64,
    "resnet50": 64,
    "resnext50_32x4d": 64,
}


def of_pytorchcv(name, size):
    provider = pytest.importorskip("pytorchcv.model_provider", reason=HOW)
    model = randomise(provider.get_model(name))
    for layer in model.modules():  # of their own size, 224
        if size != 224 and isinstance(layer, torch.nn.AvgPool2d) and layer.kernel_size == 7:
            layer.kernel_size = layer.stride = size // 32
    return model


def both_ways(model, layout, size):
    trained = load_torch(model.state_dict(), "auto" if layout != "pytorchcv_b" else layout)
    assert trained.provenance["imported_from"] == layout
    images = np.asarray(trained.normalise(pixels(size)))
    assert_close(ours(trained, images), theirs(model, images))
    state = torch_state_dict(trained, layout)
    assert_same_state(state, model.state_dict())


@pytest.mark.parametrize(
    "name",
    [
        name if name == "shufflenet_g3_wd4" else pytest.param(name, marks=pytest.mark.slow)
        for name in PYTORCHCV
    ],
)
def test_pytorchcv(name):
    layout = "pytorchcv_b" if name == "resnet50b" else "pytorchcv"
    both_ways(of_pytorchcv(name, PYTORCHCV[name]), layout, PYTORCHCV[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    torchvision = pytest.importorskip("torchvision", reason=HOW)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = randomise(torchvision.models.get_model(name, weights=None, **options))
    both_ways(model, "torchvision", TORCHVISION[name])


@pytest.mark.slow
def test_a_network_of_pytorchcv_that_is_not_here_is_named():
    with pytest.raises(InputError, match=r"features.stage2.unit1.conv.weight has one group"):
        load_torch(of_pytorchcv("alexnet", 224).state_dict())
    model = of_pytorchcv("resnet50", 224)  # its tensors have the names and shapes of resnet50b's
    with pytest.raises(
        InputError, match=r"unit1.body.conv1.conv.weight has the stride in resnet50"
    ):
        load_torch(model.state_dict())
    with pytest.raises(InputError, match="has the stride in resnet50"):
        torch_state_dict(load_torch(model.state_dict(), "pytorchcv_b"), "pytorchcv")


def test_the_order_of_a_concatenation_is_named():
    arguments = {"width": 0.25, "repeats": [1, 1, 1]}
    network = zoo.build("shufflenet", arguments, num_classes=2, rngs=nnx.Rngs(0))
    trained = Trained(network, IMAGENET, ("a", "b"), 0, "shufflenet", arguments)
    with pytest.raises(InputError, match=r"stage1.unit1.expand_conv3.weight.*branch first"):
        torch_state_dict(trained, "pytorchcv")
    with pytest.raises(InputError, match=r"shufflenet in the layout of torchvision"):
        torch_state_dict(trained, "torchvision")
