"""A network as an ONNX graph, which engines for inference read. Maps are NCHW, as ONNX has them.

The graph is written layer by layer, with batch normalisation folded. A shuffle is a reshape, one
transpose and a reshape. What is no layer, unit or network of this library has no graph.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any

import jax
import numpy as np
from flax import nnx

from shufflenet_jax.errors import InputError
from shufflenet_jax.inference import folded_kernel
from shufflenet_jax.layers import Activation, BatchNorm, Conv, ConvNorm, Linear
from shufflenet_jax.models.alexnet import AlexNet
from shufflenet_jax.models.classic import Classic, LargeHead
from shufflenet_jax.models.googlenet import GoogLeNet, Inception
from shufflenet_jax.models.mobilenet import InvertedUnit, LastUnit, SeparableUnit
from shufflenet_jax.models.ported import PortedUnit, unshuffle
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.models.squeezenet import Fire, SqueezeNet
from shufflenet_jax.models.vgg import VGG16
from shufflenet_jax.ops import channel_shuffle, no_shuffle
from shufflenet_jax.trained import Trained
from shufflenet_jax.units import PlainUnit, ResidualUnit, ShuffleUnit, SqueezeExcitation

INPUT = "images"
"""Name of the input: normalised RGB, (batch, 3, height, width)."""

OUTPUT = "logits"

_OPSET = 17
_IR = 9  # what ONNX Runtime 1.17 and later read


@dataclass(frozen=True)
class Maps:
    """A value of the graph: its name, and (channels, height, width), whatever the batch."""

    name: str
    channels: int
    height: int
    width: int


def graph(trained: Trained) -> bytes:
    """Writes the graph of a network, for images of the size of its preprocessing and any batch.

    Its metadata have the labels and the preprocessing, as JSON.

    Raises:
      InputError: The network has a part of the user's own, or images are too small for it.
    """
    import onnx  # of the extra [export]

    size = trained.preprocessing.image_size
    writer = _Writer(onnx)
    writer.network(trained.network, Maps(INPUT, 3, size, size))
    inputs = [
        onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["batch", 3, size, size])
    ]
    shape: list[int | str | None] = ["batch", len(trained.class_names)]
    outputs = [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, shape)]
    made = onnx.helper.make_graph(writer.nodes, trained.name, inputs, outputs, writer.weights)
    model = onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR
    )
    preprocessing = trained.preprocessing
    onnx.helper.set_model_props(
        model,
        {
            "labels": json.dumps(list(trained.class_names)),
            "pixel_mean": json.dumps(list(preprocessing.pixel_mean)),
            "pixel_std": json.dumps(list(preprocessing.pixel_std)),
            "eval_resize": json.dumps(preprocessing.eval_resize),
        },
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


@dataclass
class _Writer:
    """Writes nodes in the order in which they run, by the package of ONNX."""

    onnx: Any
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def network(self, network: nnx.Module, x: Maps) -> None:
        match network:
            case Network():
                self._skeleton(network, x)
            case VGG16() | AlexNet() | SqueezeNet() | GoogLeNet():
                self._classic(network, x)
            case _:
                raise _unknown(network)

    def _skeleton(self, network: Network, x: Maps) -> None:
        x = self._box(network.conv1, x)
        if network.stem.max_pool:
            x = self._pool("MaxPool", x)
        for stage in network.stages:
            for unit in stage:
                x = self.unit(unit, x)
        self._classify(network.classifier, self._mean(x))

    def _classic(self, network: Classic, x: Maps) -> None:
        if min(x.height, x.width) < max(network.upscale_to, network.least_size):
            raise InputError(
                f"images of {x.height}x{x.width} are scaled up, or too small: export needs larger"
            )
        match network:
            case VGG16():
                for block in network.blocks:
                    for conv in block:
                        x = self._relu(self._conv(conv, x))
                    x = self._pool("MaxPool", x, size=2, padding=(0, 0))
                self._large_head(network.head, x)
            case AlexNet():
                for conv in (network.conv1, network.conv2):
                    x = self._relu(self._conv(conv, x))
                    if network.normalise:
                        x = self._response_norm(x)
                    x = self._pool("MaxPool", x, padding=(0, 0))
                for conv in (network.conv3, network.conv4, network.conv5):
                    x = self._relu(self._conv(conv, x))
                self._large_head(network.head, self._pool("MaxPool", x, padding=(0, 0)))
            case SqueezeNet():
                x = self._relu(self._conv(network.conv1, x))
                for fires in network.stages:
                    x = self._pool("MaxPool", x, padding=(0, 1))
                    for fire in fires:
                        x = self.unit(fire, x)
                x = self._relu(self._conv(network.classifier, x))
                self._node("Identity", [self._mean(x)], output=OUTPUT)
            case GoogLeNet():
                x = self._pool("MaxPool", self._box(network.conv1, x), padding=(0, 1))
                x = self._box(network.conv3, self._box(network.conv2, x))
                for number, stage in enumerate(network.stages):
                    x = self._pool("MaxPool", x, size=2 if number == 2 else 3, padding=(0, 1))
                    for unit in stage:
                        x = self.unit(unit, x)
                self._classify(network.classifier, self._mean(x))

    @singledispatchmethod
    def unit(self, unit: nnx.Module, x: Maps) -> Maps:
        raise _unknown(unit)

    @unit.register
    def _(self, unit: ShuffleUnit, x: Maps) -> Maps:
        y = self._shuffle(unit, self._box(unit.reduce, x))
        y = self._box(unit.expand, self._box(unit.depthwise, y))
        if unit.stride == 1:
            return self._relu(self._add(x, y))
        shortcut = self._pool("AveragePool", x)
        is_branch_first = isinstance(unit, PortedUnit) and unit.branch_first
        return self._relu(self._concat([y, shortcut] if is_branch_first else [shortcut, y]))

    @unit.register
    def _(self, unit: PlainUnit, x: Maps) -> Maps:
        return self._box(unit.second, self._box(unit.first, x))

    @unit.register
    def _(self, unit: ResidualUnit, x: Maps) -> Maps:
        y = self._box(unit.expand, self._box(unit.spatial, self._box(unit.reduce, x)))
        if unit.concatenates:
            return self._relu(self._concat([self._pool("AveragePool", x), y]))
        return self._relu(self._add(self._box(unit.project, x) if unit.projects else x, y))

    @unit.register
    def _(self, unit: SqueezeExcitation, x: Maps) -> Maps:
        y = self.unit(unit.unit, x)
        weights = self._node("Relu", [self._linear(unit.squeeze, self._mean(y))])
        weights = self._node("Sigmoid", [self._linear(unit.excite, weights)])
        weights = self._reshape(weights, (0, y.channels, 1, 1))
        return self._like(y, self._node("Mul", [y.name, weights]))

    @unit.register
    def _(self, unit: SeparableUnit, x: Maps) -> Maps:
        return self._box(unit.pointwise, self._box(unit.depthwise, x))

    @unit.register
    def _(self, unit: InvertedUnit, x: Maps) -> Maps:
        y = self._box(unit.expand, x) if unit.expands else x
        y = self._box(unit.reduce, self._box(unit.depthwise, y))
        return self._add(x, y) if unit.adds else y

    @unit.register
    def _(self, unit: LastUnit, x: Maps) -> Maps:
        return self._box(unit.conv, x)

    @unit.register
    def _(self, unit: Fire, x: Maps) -> Maps:
        x = self._relu(self._conv(unit.squeeze, x))
        branches = [self._conv(unit.pointwise, x), self._conv(unit.spatial, x)]
        return self._relu(self._concat(branches))

    @unit.register
    def _(self, unit: Inception, x: Maps) -> Maps:
        pooled = self._pool("MaxPool", x, stride=1)
        return self._concat(
            [
                self._box(unit.one, x),
                self._box(unit.three, self._box(unit.to_three, x)),
                self._box(unit.large, self._box(unit.to_large, x)),
                self._box(unit.pooled, pooled),
            ]
        )

    def _box(self, box: ConvNorm, x: Maps) -> Maps:
        if not (isinstance(box.conv, Conv) and isinstance(box.norm, BatchNorm)):
            raise InputError("the network is folded already: export the one that it is made of")
        kernel, bias = folded_kernel(box.conv, box.norm)
        y = self._convolved(box.conv, np.asarray(kernel), np.asarray(bias), x)
        return self._activated(box.activation, y)

    def _activated(self, activation: Activation | None, x: Maps) -> Maps:
        if activation is None:
            return x
        if activation is jax.nn.relu:
            return self._relu(x)
        if activation is jax.nn.relu6:
            bounds = [self._weight(np.array(each, np.float32)) for each in (0, 6)]
            return self._like(x, self._node("Clip", [x.name, *bounds]))
        raise InputError(f"there is no ONNX of the activation {activation!r}")

    def _conv(self, conv: Conv, x: Maps) -> Maps:
        bias = None if conv.bias is None else np.asarray(conv.bias[...])
        return self._convolved(conv, np.asarray(conv.kernel[...]), bias, x)

    def _convolved(self, conv: Conv, kernel: np.ndarray, bias: np.ndarray | None, x: Maps) -> Maps:
        size = kernel.shape[0]
        padding = size // 2 if conv.padding is None else conv.padding
        names = [self._weight(kernel.transpose(3, 2, 0, 1))]
        names += [] if bias is None else [self._weight(bias)]
        name = self._node(
            "Conv",
            [x.name, *names],
            group=conv.groups,
            kernel_shape=[size, size],
            pads=[padding] * 4,
            strides=[conv.stride] * 2,
        )
        height, width = (
            (each + 2 * padding - size) // conv.stride + 1 for each in (x.height, x.width)
        )
        return Maps(name, kernel.shape[3], height, width)

    def _shuffle(self, unit: ShuffleUnit, x: Maps) -> Maps:
        if unit.groups == 1 or unit.mix is no_shuffle:
            return x
        groups = unit.groups
        if unit.mix is unshuffle:
            groups = x.channels // groups
        elif unit.mix is not channel_shuffle:
            raise InputError(f"there is no ONNX of the mixing {unit.mix!r}")
        split = (0, groups, x.channels // groups, x.height * x.width)
        y = self._node("Transpose", [self._reshape(x.name, split)], perm=[0, 2, 1, 3])
        return self._like(x, self._reshape(y, (0, x.channels, x.height, x.width)))

    def _pool(
        self,
        kind: str,
        x: Maps,
        size: int = 3,
        stride: int = 2,
        padding: tuple[int, int] = (1, 1),
    ) -> Maps:
        before, after = padding
        options: dict[str, Any] = {"count_include_pad": 1} if kind == "AveragePool" else {}
        name = self._node(
            kind,
            [x.name],
            kernel_shape=[size, size],
            pads=[before, before, after, after],
            strides=[stride, stride],
            **options,
        )
        height, width = (
            (each + before + after - size) // stride + 1 for each in (x.height, x.width)
        )
        return Maps(name, x.channels, height, width)

    def _relu(self, x: Maps) -> Maps:
        return self._like(x, self._node("Relu", [x.name]))

    def _add(self, x: Maps, y: Maps) -> Maps:
        return self._like(y, self._node("Add", [x.name, y.name]))

    def _concat(self, maps: Sequence[Maps]) -> Maps:
        name = self._node("Concat", [each.name for each in maps], axis=1)
        first = maps[0]
        return Maps(name, sum(each.channels for each in maps), first.height, first.width)

    def _response_norm(self, x: Maps) -> Maps:
        # ONNX divides alpha by the size of the window.
        name = self._node("LRN", [x.name], size=5, alpha=5e-4, beta=0.75, bias=2.0)
        return self._like(x, name)

    def _mean(self, x: Maps) -> str:
        return self._node("Flatten", [self._node("GlobalAveragePool", [x.name])], axis=1)

    def _large_head(self, head: LargeHead, x: Maps) -> None:
        if (x.height, x.width) != (head.size, head.size):
            raise InputError(
                f"the first linear layer takes maps of {head.size}x{head.size}, and these images "
                f"give {x.height}x{x.width}, which have no ONNX"
            )
        y = self._node("Flatten", [x.name], axis=1)
        for layer in (head.first, head.second):
            y = self._node("Relu", [self._linear(layer, y)])
        self._classify(head.classifier, y)

    def _classify(self, layer: Linear, features: str) -> None:
        self._linear(layer, features, output=OUTPUT)

    def _linear(self, layer: Linear, features: str, output: str | None = None) -> str:
        names = [self._weight(np.asarray(each[...])) for each in (layer.kernel, layer.bias)]
        return self._node("Gemm", [features, *names], output=output)

    def _reshape(self, name: str, shape: tuple[int, ...]) -> str:
        return self._node("Reshape", [name, self._weight(np.array(shape, np.int64))])

    def _like(self, x: Maps, name: str) -> Maps:
        return Maps(name, x.channels, x.height, x.width)

    def _weight(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str | None = None, **options: Any) -> str:
        name = output or f"x{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name=name, **options))
        return name


def _unknown(module: nnx.Module) -> InputError:
    return InputError(f"there is no ONNX of {type(module).__name__}: export to stablehlo")
