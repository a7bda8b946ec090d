"""ShuffleNet V1 of megvii-model/ShuffleNet-Series, by the authors' lab.

Its differences, and what becomes of them here:

* It shuffles behind the depthwise convolution, which works channel by channel: the channels of that
  convolution and of its normalisation are put into the order that they have behind the shuffle.
* It transposes (n, g) to (g, n). Where that leads as many channels from each group to each as the
  paper's order does, which is so for 3 groups and at 2x for 8, the rest is a matter of order, and
  the network becomes a `shufflenet`; elsewhere a `shufflenet_ported` with its shuffle.
* Its classifier has no bias: ours is zero.
* It is given BGR: the inputs of conv1 are put into the order RGB. It is given values from 0 to 255,
  which is a mean of 0 and a deviation of 1/255 in the preprocessing.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from flax import nnx

from shufflenet_jax.data import IMAGENET
from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import Classifier
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.porting.layout import Architecture, Layout, Shapes
from shufflenet_jax.porting.shuffle import (
    Unit,
    as_in_table_1,
    as_ported,
    is_branch_first,
    order_of,
    orders,
    same_routes,
    sizes,
    unshuffled,
)
from shufflenet_jax.porting.slots import Slot, box
from shufflenet_jax.units import ShuffleUnit

_CONV1 = "first_conv.0.weight"
_CLASSIFIER = "classifier.0"
_BGR = np.array([[2, 1, 0]])


def _recognise(shapes: Shapes) -> Architecture | None:
    names = (_unit(number) for number in itertools.count())
    units = list(itertools.takewhile(lambda unit: unit.reduce in shapes, names))
    if _CONV1 not in shapes or not units:
        return None
    for name in (*(unit.expand for unit in units), f"{_CLASSIFIER}.weight"):
        if name not in shapes:
            raise InputError(f"{name} is missing")
    found = sizes(shapes, _CONV1, units)
    num_classes = shapes[f"{_CLASSIFIER}.weight"][0]
    if same_routes(found) and (arguments := as_in_table_1(found)):
        return Architecture("shufflenet", arguments, num_classes)
    arguments = as_ported(found, inverse_shuffle=not same_routes(found))
    return Architecture("shufflenet_ported", arguments, num_classes)


def _unit(number: int) -> Unit:
    name = f"features.{number}.branch_main"
    return Unit(f"{name}_1.0.weight", f"{name}_2.0.weight")


def _slots(family: str, network: nnx.Module) -> Iterator[Slot]:
    if not isinstance(network, Network):
        raise InputError(f"this code has no {family}")
    yield from box("first_conv.0", "first_conv.1", network.conv1, inputs=_BGR)
    units = [unit for stage in network.stages for unit in stage]
    for number, unit in enumerate(units):
        if not isinstance(unit, ShuffleUnit):
            raise InputError(f"this code has no {family}")
        name = f"features.{number}.branch_main"
        if is_branch_first(unit):
            raise InputError(
                f"{name}_2.0.weight: this code puts the shortcut first, and the network does not"
            )
        own = order_of(unit)
        # Of one group, it leaves the shuffle out, which then changes nothing.
        found = orders(own, unshuffled(len(own), unit.groups), unit.groups)
        if found is None:
            raise InputError(
                f"{name}_2.0.weight: the inverse shuffle of this code mixes {unit.groups} groups "
                f"of {len(own) // unit.groups} channels otherwise, which no order of weights undoes"
            )
        yield from box(f"{name}_1.0", f"{name}_1.1", unit.reduce, outputs=found.reduce)
        yield from box(f"{name}_1.3", f"{name}_1.4", unit.depthwise, outputs=found.depthwise)
        yield from box(f"{name}_2.0", f"{name}_2.1", unit.expand, inputs=found.expand)
    assert isinstance(network.classifier, Classifier)
    yield Slot(_CLASSIFIER, network.classifier, has_bias=False)


MEGVII = Layout(
    "megvii",
    _recognise,
    _slots,
    dataclasses.replace(IMAGENET, pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1 / 255,) * 3),
)
"""The layout."""
