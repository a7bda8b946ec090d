"""Convolution, pooling and layout as the networks use them inside: activations as (c, h, w, b).

With channels first and the batch last, the slice of one group is contiguous and the fastest axis is
long, so on a CPU a grouped 1x1 convolution is a batched matrix product and a depthwise one is nine
multiply-adds of shifted images. XLA's own lowering of a convolution with `feature_group_count` is
several times slower there: `python -m experiments bench` measures by how much.

Two forms compute the same functions:

* ``direct``: `lax.conv_general_dilated` and `lax.reduce_window`, one call each. The reference that
  the tests hold the other form against, what `complexity` counts, and the default on accelerators.
* ``matmul``: matrix products and shifts. The default on a CPU.

`form` overrides the choice while a network is traced: ``with form("direct"): ...``.
"""

from shufflenet_jax.chwn.layout import from_nhwc, per_channel, to_nhwc
from shufflenet_jax.chwn.operations import (
    active_form,
    add_relu,
    avg_pool,
    batch_norm,
    by_group,
    conv,
    form,
    global_avg_pool,
    max_pool,
    pointwise,
)

__all__ = [
    "active_form",
    "add_relu",
    "avg_pool",
    "batch_norm",
    "by_group",
    "conv",
    "form",
    "from_nhwc",
    "global_avg_pool",
    "max_pool",
    "per_channel",
    "pointwise",
    "to_nhwc",
]
