"""Convolution, pooling and layout as the networks use them inside: activations as (c, h, w, b).

With channels first and the batch last, the slice of one group is contiguous and the fastest axis is
long, so on a CPU a grouped 1x1 convolution is a batched matrix product and a depthwise one is nine
multiply-adds of shifted images. XLA's own lowering of a convolution with `feature_group_count` is
several times slower there: `python -m experiments bench` measures by how much.

A `Form` is one way to compute all operations. Two of them compute the same functions, and both can
be differentiated in forward and reverse mode:

* ``DIRECT``: `lax.conv_general_dilated` and `lax.reduce_window`, one call each. The reference that
  the tests hold the other form against, what `complexity` counts, and the default on accelerators.
* ``MATMUL``: matrix products and shifts. The default on a CPU.

`form` overrides the choice: ``with form(DIRECT): ...``. A function under `jax.jit` is traced anew
under another form. A third form is ``DIRECT._replace(conv=...)``.
"""

from shufflenet_jax.chwn.axis import Axis
from shufflenet_jax.chwn.direct import DIRECT
from shufflenet_jax.chwn.form import Form
from shufflenet_jax.chwn.layout import by_group, from_nhwc, per_channel, to_nhwc
from shufflenet_jax.chwn.matmul import MATMUL
from shufflenet_jax.chwn.operations import (
    active_form,
    add_relu,
    avg_pool,
    batch_norm,
    conv,
    form,
    global_avg_pool,
    max_pool,
    pointwise,
)
from shufflenet_jax.chwn.window import Window

__all__ = [
    "DIRECT",
    "MATMUL",
    "Axis",
    "Form",
    "Window",
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
