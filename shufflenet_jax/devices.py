"""One training run on many devices, of one process or of several: data parallelism.

Every device holds the whole state and works on its share of each batch. XLA could split a program
by itself, but the networks carry activations as (c, h, w, b) and merge h, w and b in matrix
products (`shufflenet_jax.chwn`): it would gather the whole batch on every device first. So the
program is written for one device's share, under `jax.shard_map`, and says itself what it averages
over all.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from shufflenet_jax import chwn
from shufflenet_jax.data import Batch, Share
from shufflenet_jax.errors import InputError

_AXIS = "data"

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Devices:
    """The devices that share the batches of a run.

    Attributes:
      mesh: Of one axis; None for a single device, whose programs are the plain ones.
    """

    mesh: Mesh | None = None

    @classmethod
    def all(cls) -> "Devices":
        """All devices of all processes."""
        count = jax.device_count()
        if count == 1:
            return cls()
        return cls(jax.make_mesh((count,), (_AXIS,), axis_types=(AxisType.Auto,)))

    @property
    def count(self) -> int:
        """How many they are."""
        return self.mesh.size if self.mesh else 1

    def check(self, batch_size: int, accumulate: int = 1, batch_norm: str = "global") -> None:
        """Refuses a batch that cannot be shared out evenly; see `Recipe` for the arguments.

        Raises:
          InputError: The devices do not divide it, or what each computes at a time does not go
            with the images that batch normalisation normalises together. All numbers are named.
        """
        if batch_size % self.count:
            raise InputError(f"batch size {batch_size} does not divide among {self.count} devices")
        if batch_size % (self.count * accumulate):
            raise InputError(
                f"batch size {batch_size} does not divide among {self.count} devices in "
                f"{accumulate} micro-batches each: choose another recipe.accumulate"
            )
        self.normalised_together(batch_norm, batch_size // self.count // accumulate)

    def normalised_together(self, batch_norm: str, images: int) -> tuple[chwn.Axis | None, int]:
        """What batch normalisation takes its statistics of, within `split`.

        Args:
          batch_norm: See `Recipe`.
          images: What each device computes at a time.

        Returns:
          The axis over which they are means, if they are of several devices; and into how many
          parts the images of a device fall, each with statistics of its own.

        Raises:
          InputError: Groups of the size can be made neither within a device nor of whole devices.
        """
        everywhere = chwn.Axis(_AXIS) if self.mesh else None
        if batch_norm in ("device", "global"):
            return (everywhere if batch_norm == "global" else None), 1
        size = int(batch_norm)
        if images % size == 0:
            return None, images // size
        together, rest = divmod(size, images)
        if rest or together > self.count or self.count % together:
            raise InputError(
                f"batch normalisation over {size} images does not go with {self.count} devices "
                f"that compute {images} each at a time: choose another recipe.batch_norm, of "
                f"{images} or less, or less recipe.accumulate"
            )
        return (everywhere if together == self.count else chwn.Axis(_AXIS, together)), 1

    def place(self, tree: Tree) -> Tree:
        """Makes arrays that are split over the devices, of this process's share of each.

        Args:
          tree: A batch, say. What is on the devices already stays as it is.
        """
        return jax.tree.map(functools.partial(self._put, PartitionSpec(_AXIS)), tree)

    def describe(self, batch_size: int, image_shape: tuple[int, int, int]) -> Batch:
        """The shapes of a whole batch that has been placed, in place of its arrays."""
        sharding = NamedSharding(self.mesh, PartitionSpec(_AXIS)) if self.mesh else None

        leaves: list[Any] = [
            jax.ShapeDtypeStruct((batch_size, *rest), dtype, sharding=sharding)
            for dtype, rest in ((np.uint8, image_shape), (np.int32, ()), (np.bool_, ()))
        ]
        return Batch(*leaves)

    def replicate(self, tree: Tree) -> Tree:
        """Copies arrays, equal in all processes, to every device."""
        return jax.tree.map(functools.partial(self._put, PartitionSpec()), tree)

    def _put(self, spec: PartitionSpec, array: Array | np.ndarray) -> Array:
        if self.mesh is None:
            return jnp.asarray(array)
        sharding = NamedSharding(self.mesh, spec)
        if isinstance(array, Array) and array.sharding.is_equivalent_to(sharding, array.ndim):
            return array
        return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    def split(self, function: Callable[..., Tree]) -> Callable[..., Tree]:
        """Runs ``function(batch, *replicated)`` on every device, with its share of the batch.

        JAX refuses to trace it unless all it returns has been through `sum` or `mean`.
        """
        if self.mesh is None:
            return function

        def own(batch: Batch, *replicated: PyTree[Array]) -> Tree:
            # Else JAX would sum the gradient of each parameter where it is used, one by one.
            return function(batch, *self.varying(replicated))

        @functools.wraps(function)
        def whole(batch: Batch, *replicated: PyTree[Array]) -> Tree:
            specs = (PartitionSpec(_AXIS), *(PartitionSpec() for _ in replicated))
            mapped = jax.shard_map(own, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec())
            return mapped(batch, *replicated)

        return whole

    def map(self, function: Callable[..., Tree]) -> Callable[..., Tree]:
        """Runs ``function(own, *replicated)`` on every device, with its share of what is split.

        What it returns is split over the devices in the same way.
        """
        if self.mesh is None:
            return function
        split, whole = PartitionSpec(_AXIS), PartitionSpec()

        def mapped(own: PyTree[Array], *replicated: PyTree[Array]) -> Tree:
            specs = (split, *(whole for _ in replicated))
            on_each = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=split)
            return on_each(own, *replicated)

        return mapped

    def collect(self, tree: Tree) -> Tree:
        """Brings arrays that are split over the devices of all processes to each process, whole."""
        if jax.process_count() == 1:
            return jax.device_get(tree)
        return multihost_utils.process_allgather(tree, tiled=True)

    def sum(self, tree: Tree) -> Tree:
        """Within `split`: the sums over all devices."""
        return jax.lax.psum(tree, _AXIS) if self.mesh else tree

    def mean(self, tree: Tree) -> Tree:
        """Within `split`: the means over all devices."""
        return jax.lax.pmean(tree, _AXIS) if self.mesh else tree

    def varying(self, tree: Tree) -> Tree:
        """Within `split`: equal arrays, as what each device may add its own to."""
        return jax.lax.pcast(tree, _AXIS, to="varying") if self.mesh else tree

    def own_key(self, key: jax.Array) -> jax.Array:
        """Within `split`: a key for random numbers that differ from device to device."""
        return jax.random.fold_in(key, jax.lax.axis_index(_AXIS)) if self.mesh else key


ONE_DEVICE = Devices()


def is_lead() -> bool:
    """Whether this process is the one that writes what a run leaves behind."""
    return jax.process_index() == 0


def share() -> Share:
    """The part of each batch that this process prepares."""
    return Share(jax.process_index(), jax.process_count())


def gather(numbers: Sequence[int]) -> np.ndarray:
    """The numbers of every process, a row each. All processes must ask, and get one answer."""
    return np.asarray(multihost_utils.process_allgather(np.array(numbers, np.int32)))


def from_lead(number: int) -> int:
    """The number that the lead process has. All processes must ask, and get one answer."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))
