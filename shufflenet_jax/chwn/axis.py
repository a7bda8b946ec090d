"""The mapped axis over which a batch may be spread."""

from typing import NamedTuple

from jax import lax
from jaxtyping import Array


class Axis(NamedTuple):
    """An axis of `jax.shard_map` or `jax.vmap`, each place of which has a part of a batch.

    Attributes:
      name: Of the axis.
      together: How many neighbours along it have one batch, the first few, the next few and so on;
        0 for all.
    """

    name: str
    together: int = 0

    def mean(self, values: Array) -> Array:
        """The mean over the parts of a batch."""
        if not self.together:
            return lax.pmean(values, self.name)
        size, own = lax.axis_size(self.name), range(self.together)
        groups = [[start + each for each in own] for start in range(0, size, self.together)]
        # JAX has no mean over a part of an axis under `jax.shard_map`.
        return lax.all_gather(values, self.name, axis_index_groups=groups).mean(0)


def mean_over(axis: Axis | None, values: Array) -> Array:
    """The mean over a mapped axis, if there is one."""
    return axis.mean(values) if axis else values
