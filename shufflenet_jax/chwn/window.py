"""Square windows that move over a map: what stands under each tap, and the way back."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

_OfAxes = tuple[int, int, int, int]
_Edges = tuple[int, int]


class Window(NamedTuple):
    """A square window that moves over a map: its size and step, and the padding of the map."""

    size: int
    stride: int
    padding: tuple[int, int]

    def of_all_axes(self) -> tuple[_OfAxes, _OfAxes, tuple[_Edges, _Edges, _Edges, _Edges]]:
        """Sizes, strides and padding for (c, h, w, b), as `lax.reduce_window` takes them."""
        return (
            (1, self.size, self.size, 1),
            (1, self.stride, self.stride, 1),
            ((0, 0), self.padding, self.padding, (0, 0)),
        )

    def places(self, length: int) -> int:
        """How many windows fit into a padded axis."""
        return (length + sum(self.padding) - self.size) // self.stride + 1

    def pad(self, x: Array, fill: float = 0.0) -> Array:
        """The map and what stands around it."""
        edges = (*self.padding, 0)
        return lax.pad(x, jnp.array(fill, x.dtype), ((0, 0, 0), edges, edges, (0, 0, 0)))

    def shifts(self, x: Array, fill: float = 0.0) -> Iterator[Array]:
        """The values under each tap, in row-major order: each (c, h2, w2, b)."""
        size, stride, _ = self
        channels, height, width, batch = x.shape
        padded = self.pad(x, fill)
        span_h, span_w = (stride * (self.places(length) - 1) + 1 for length in (height, width))
        for i in range(size):
            for j in range(size):
                limits = (channels, i + span_h, j + span_w, batch)
                yield lax.slice(padded, (0, i, j, 0), limits, (1, stride, stride, 1))

    def unshift(
        self, weigh: Callable[..., Array], maps: Sequence[Array], shape: tuple[int, ...]
    ) -> Array:
        """The transpose of `shifts`: what the windows give back to every position of their input.

        Position s n + a of an axis, in phase a, is under tap a + before - s m of window n + m, for
        a few m. So for each pair of m, for rows and columns, one term: the maps, moved, times what
        `weigh` makes of the taps. All phases are computed at once, along axes of their own, which
        XLA turns into one loop without a branch.

        Args:
          weigh: Called with the taps of every phase, for rows and columns, where `size` means
            none, and with the maps as (c, h3, 1, w3, 1, b); returns the term, (c, h3, s, w3, s, b).
          maps: Arrays over the windows, (c, h2, w2, b).
          shape: Of the input, (c, h, w, b).
        """
        channels, height, width, batch = shape
        stride = self.stride
        counts = tuple(-(-length // stride) for length in (height, width))
        moves = {}
        for move in range(-self.size, self.padding[0] + 1):
            taps = np.arange(stride) + self.padding[0] - stride * move
            if np.any(there := (taps >= 0) & (taps < self.size)):
                moves[move] = np.where(there, taps, self.size)
        first, last = min(moves), max(moves)

        def moved(x: Array, down: int, right: int) -> Array:
            ends = (last + count - have for count, have in zip(counts, x.shape[1:3], strict=True))
            edges = [(0, 0, 0), *((-first, end, 0) for end in ends), (0, 0, 0)]
            x = lax.pad(x, jnp.zeros((), x.dtype), edges)
            x = lax.slice_in_dim(x, down - first, down - first + counts[0], axis=1)
            return lax.slice_in_dim(x, right - first, right - first + counts[1], axis=2)

        total = sum(
            weigh(rows, columns, *(moved(x, down, right)[:, :, None, :, None] for x in maps))
            for down, rows in moves.items()
            for right, columns in moves.items()
        )
        assert isinstance(total, Array)  # of one term at least
        whole = total.reshape(channels, stride * counts[0], stride * counts[1], batch)
        return whole[:, :height, :width]
