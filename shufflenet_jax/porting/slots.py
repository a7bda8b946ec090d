"""Where a layer of ours stands in a state dict of PyTorch, and the way there and back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int64

from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import BatchNorm, Conv, ConvNorm, Linear
from shufflenet_jax.porting.tensors import Tensors


@dataclass(frozen=True)
class Slot:
    """A layer of ours, and its name in a state dict.

    Attributes:
      name: Of the module of PyTorch, as ``features.0.conv``.
      layer: Ours.
      outputs: Our output o is their output ``outputs[o]``; None for the same order.
      inputs: By group, our input i of a group is their ``inputs[group, i]``; None as well.
      has_bias: Whether their module has one. Ours is zero then.
      is_conv: Of a linear layer: whether theirs is a 1x1 convolution.
    """

    name: str
    layer: Conv | BatchNorm | Linear
    outputs: Int64[np.ndarray, " o"] | None = None
    inputs: Int64[np.ndarray, "g i"] | None = None
    has_bias: bool = True
    is_conv: bool = False

    def variables(self) -> Iterator[tuple[str, nnx.Variable]]:
        """Its variables, each with its name in the state dict."""
        layer = self.layer
        if isinstance(layer, BatchNorm):
            yield f"{self.name}.weight", layer.scale
            yield f"{self.name}.bias", layer.bias
            yield f"{self.name}.running_mean", layer.mean
            yield f"{self.name}.running_var", layer.var
            return
        yield f"{self.name}.weight", layer.kernel
        if layer.bias is not None:
            yield f"{self.name}.bias", layer.bias

    def shape(self, variable: nnx.Variable) -> tuple[int, ...]:
        """Of their tensor."""
        return _theirs(variable.shape, self.is_conv)

    def ours(self, tensor: np.ndarray) -> np.ndarray:
        """One of their tensors as our variable."""
        if tensor.ndim == 1:
            return tensor if self.outputs is None else tensor[self.outputs]
        kernel = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
        if self.is_conv:
            kernel = kernel[0, 0]
        if self.outputs is not None:
            kernel = kernel[..., self.outputs]
        return kernel if self.inputs is None else _by_group(kernel, self.inputs)

    def theirs(self, values: np.ndarray) -> np.ndarray:
        """Undoes `ours`."""
        if values.ndim == 1:
            return values if self.outputs is None else values[np.argsort(self.outputs)]
        if self.inputs is not None:
            values = _by_group(values, np.argsort(self.inputs, axis=1))
        if self.outputs is not None:
            values = values[..., np.argsort(self.outputs)]
        if self.is_conv:
            values = values[None, None]
        return values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T


def box(
    conv: str,
    norm: str,
    layer: ConvNorm,
    *,
    outputs: Int64[np.ndarray, " o"] | None = None,
    inputs: Int64[np.ndarray, "g i"] | None = None,
) -> list[Slot]:
    """The slots of a convolution and of its batch normalisation.

    Args:
      conv, norm: Their names in the state dict.
      layer: Ours.
      outputs, inputs: See `Slot`.
    """
    assert isinstance(layer.conv, Conv)
    assert isinstance(layer.norm, BatchNorm)
    return [
        Slot(conv, layer.conv, outputs=outputs, inputs=inputs),
        Slot(norm, layer.norm, outputs=outputs),
    ]


def fill(slots: Iterable[Slot], tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Gives every layer its weights, in place.

    Args:
      slots: Of all layers of a network, which may be abstract.
      tensors: The state dict.
      source: What to call where it comes from.

    Raises:
      InputError: A tensor is missing, too many, of another shape, or holds no numbers.
    """
    left = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    for slot in slots:
        for name, variable in slot.variables():
            if name.endswith(".bias") and not slot.has_bias:
                if name in left:
                    raise InputError(f"{source}: {name} is there, which its code does not have")
                variable.set_value(jax.device_put(np.zeros(variable.shape, np.float32)))
                continue
            if name not in left:
                raise InputError(f"{source} lacks {name}")
            tensor, shape = tensors[name], slot.shape(variable)
            if tensor.shape != shape:
                raise InputError(
                    f"{source}: {name} is of shape {list(tensor.shape)}, not {list(shape)} as in "
                    "the network that the other tensors are of"
                )
            if tensor.dtype.kind not in "fV":  # bfloat16 is of NumPy's kind V
                raise InputError(f"{source}: {name} holds {tensor.dtype}, not floating numbers")
            values = slot.ours(tensor.astype(np.float32))
            variable.set_value(jax.device_put(np.ascontiguousarray(values)))
            left.remove(name)
    if left:
        raise InputError(f"{source} has {min(left)}, for which the network has no place")


def state_dict_of(slots: Iterable[Slot]) -> Tensors:
    """Undoes `fill`.

    Raises:
      InputError: A bias is not zero, and there is no place for it.
    """
    tensors: Tensors = {}
    for slot in slots:
        for name, variable in slot.variables():
            values = np.asarray(variable[...])
            if name.endswith(".bias") and not slot.has_bias:
                if values.any():
                    raise InputError(
                        f"{name} is not zero, and the code that is to load it has no such tensor"
                    )
                continue
            tensors[name] = np.ascontiguousarray(slot.theirs(values))
        if isinstance(slot.layer, BatchNorm):
            tensors[f"{slot.name}.num_batches_tracked"] = np.array(0)
    return tensors


def _theirs(shape: tuple[int, ...], is_conv: bool) -> tuple[int, ...]:
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return outputs, inputs, height, width
    return (*shape[::-1], 1, 1) if is_conv and len(shape) == 2 else shape[::-1]


def _by_group(kernel: np.ndarray, order: Int64[np.ndarray, "g i"]) -> np.ndarray:
    parts = np.split(kernel, len(order), axis=-1)
    return np.concatenate(
        [part[..., each, :] for part, each in zip(parts, order, strict=True)], axis=-1
    )
