"""The forward pass of every network against an independent implementation, under its weights.

Needs torchvision and pytorchcv: pip install -e '.[parity]'.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import ShuffleUnit, shufflenet
from shufflenet_jax.layers import BatchNorm, Conv, Linear
from shufflenet_jax.zoo import NETWORKS

HOW = "pip install -e '.[parity]'"
torch = pytest.importorskip("torch", reason=f"PyTorch is not installed: {HOW}")
torchvision = pytest.importorskip("torchvision", reason=f"torchvision is not installed: {HOW}")
model_provider = pytest.importorskip(
    "pytorchcv.model_provider", reason=f"pytorchcv is not installed: {HOW}"
)

pytestmark = pytest.mark.slow

TORCHVISION = {
    "vgg16": "vgg16",
    "alexnet_one_tower": "alexnet",
    "googlenet": "googlenet",
    "squeezenet": "squeezenet1_0",
    "mobilenet_v2": "mobilenet_v2",
    "resnet50": "resnet50",
    "resnext50_32x4d": "resnext50_32x4d",
}

PYTORCHCV = {
    "mobilenet_v1_1.0": "mobilenet_w1",
    "mobilenet_v1_0.75": "mobilenet_w3d4",
    "mobilenet_v1_0.5": "mobilenet_wd2",
    "mobilenet_v1_0.25": "mobilenet_wd4",
    "shufflenet_g1_1x": "shufflenet_g1_w1",
    "shufflenet_g2_1x": "shufflenet_g2_w1",
    "shufflenet_g3_1x": "shufflenet_g3_w1",
    "shufflenet_g4_1x": "shufflenet_g4_w1",
    "shufflenet_g8_1x": "shufflenet_g8_w1",
    "shufflenet_g3_0.5x": "shufflenet_g3_wd2",
    "shufflenet_g3_0.25x": "shufflenet_g3_wd4",
}


class BranchFirst(ShuffleUnit):
    """The unit as pytorchcv has it: of the two that are concatenated, the shortcut is the last."""

    def forward(self, x, *, train):
        y = super().forward(x, train=train)
        return y if self.stride == 1 else jnp.roll(y, -x.shape[0], axis=0)


def layers(module):
    """Convolutions, normalisations and linear layers in the order in which they were defined."""
    if isinstance(module, (BatchNorm, Conv, Linear)):
        yield module
    else:
        parts = module if isinstance(module, nnx.List) else vars(module).values()
        for part in parts:
            if isinstance(part, nnx.Module):
                yield from layers(part)


def torch_layers(module):
    """The same of a module of PyTorch."""
    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def randomise(model):
    """Gives every bias and every BN values that show when two are swapped or one is left out."""
    generator = torch.Generator().manual_seed(0)

    def fill(tensor, low, high):
        tensor.data.uniform_(low, high, generator=generator)

    for layer in torch_layers(model):
        if isinstance(layer, torch.nn.BatchNorm2d):
            fill(layer.weight, 0.5, 1.5)
            fill(layer.running_mean, -0.2, 0.2)
            fill(layer.running_var, 0.5, 2)
        else:  # so that values neither fade nor explode from layer to layer
            fan_in = layer.weight[0].numel()
            layer.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        if layer.bias is not None:
            fill(layer.bias, -0.2, 0.2)


def copy_weights(model, network):
    """Copies all weights, layer by layer; both must have the same layers in the same order."""
    for theirs, ours in zip(torch_layers(model), layers(network), strict=True):
        weight = theirs.weight.detach().numpy()
        if isinstance(ours, Conv):
            put(ours.kernel, weight.transpose(2, 3, 1, 0))
        elif isinstance(ours, Linear):
            put(ours.kernel, weight.T)
        else:
            assert ours.epsilon == theirs.eps
            put(ours.scale, weight)
            put(ours.mean, theirs.running_mean.numpy())
            put(ours.var, theirs.running_var.numpy())
        if theirs.bias is None:
            assert ours.bias is None
        else:
            put(ours.bias, theirs.bias.detach().numpy())


def put(variable, values):
    assert variable.shape == values.shape
    variable[...] = jnp.asarray(values)


def assert_close(ours, theirs):
    theirs = theirs.detach().numpy()
    spread = theirs.std()
    assert spread > 0.01 * np.abs(theirs).max() > 0  # the logits depend on something
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * spread)


def images(size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def compare(model, network, size=(224, 224)):
    randomise(model)
    copy_weights(model, network)
    batch = images(size)
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()))
    assert_close(jax.jit(lambda x: network(x))(batch), theirs)


def of_torchvision(name, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of initialisations to come
        return torchvision.models.get_model(name, weights=None, **arguments)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    compare(of_torchvision(TORCHVISION[name]), NETWORKS[name](rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("name", ["alexnet_one_tower", "squeezenet", "googlenet"])
def test_images_of_other_sizes(name):
    """The adaptive pool, and max pools that round up, where sizes are odd."""
    size = (191, 258)
    compare(of_torchvision(TORCHVISION[name]), NETWORKS[name](rngs=nnx.Rngs(0)), size)


def test_two_group_convolutions_and_normalisation_of_alexnet():
    """The network of 2012 out of PyTorch's layers: torchvision has only the one-tower form."""
    nn = torch.nn

    def norm():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # alpha is of the mean there

    def conv(i, o, k, **arguments):
        return [nn.Conv2d(i, o, k, **arguments), nn.ReLU()]

    model = nn.Sequential(
        *conv(3, 96, 11, stride=4, padding=2),
        norm(),
        nn.MaxPool2d(3, 2),
        *conv(96, 256, 5, padding=2, groups=2),
        norm(),
        nn.MaxPool2d(3, 2),
        *conv(256, 384, 3, padding=1),
        *conv(384, 384, 3, padding=1, groups=2),
        *conv(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        *(nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()),
        nn.Linear(4096, 1000),
    )
    compare(model, NETWORKS["alexnet"](rngs=nnx.Rngs(0)))


def test_all_heads_of_googlenet_in_training():
    """With the statistics of the batch; dropout is off on both sides."""
    model = of_torchvision("googlenet", init_weights=False)
    network = NETWORKS["googlenet"](rngs=nnx.Rngs(0))
    randomise(model)
    copy_weights(model, network)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    batch = images((128, 128))
    theirs = model.train()(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()))
    # The statistics move, so what is traced is a copy.
    heads = jax.jit(lambda x: nnx.clone(network).heads(x, None))(batch)
    ours = [logits for _, logits in heads]
    for mine, other in zip(
        ours, (theirs.logits, theirs.aux_logits1, theirs.aux_logits2), strict=True
    ):
        assert_close(mine, other)


@pytest.mark.parametrize("name", [name for name in PYTORCHCV if name.startswith("mobilenet")])
def test_pytorchcv_mobilenets(name):
    compare(model_provider.get_model(PYTORCHCV[name]), NETWORKS[name](rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("name", [name for name in PYTORCHCV if name.startswith("shufflenet")])
def test_pytorchcv_shufflenets(name):
    groups, width = map(float, name.removeprefix("shufflenet_g").removesuffix("x").split("_"))
    network = shufflenet(
        groups=int(groups),
        width=width,
        conv1_channels=int(24 * width),  # pytorchcv scales them below 12
        unit=BranchFirst,
        rngs=nnx.Rngs(0),
    )
    compare(model_provider.get_model(PYTORCHCV[name]), network)
