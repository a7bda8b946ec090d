"""A trace of some training steps, for Perfetto and TensorBoard."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

_SETTLED = 2
"""Steps before the first that is traced, in which memory is taken and input gets ahead."""


class Profile:
    """Traces some steps, from the third on.

    Args:
      directory: Receives plugins/profile/TIME/, which TensorBoard shows, and therein
        perfetto_trace.json.gz.
      steps: How many; 0 for none.
    """

    def __init__(self, directory: Path, steps: int):
        self._directory = directory
        self._before, self._left = _SETTLED, steps
        self._traces = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """What is done within the block belongs to a step."""
        if not self._left or self._before:
            self._before = max(0, self._before - 1)
            yield
            return
        if not self._traces:
            jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
            self._traces = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        self._left -= 1
        if not self._left:
            jax.block_until_ready(jax.live_arrays())  # else the last step would be cut off
            self.close()

    def close(self) -> None:
        """Ends the trace, if it goes on still."""
        if self._traces:
            self._traces, self._left = False, 0
            jax.profiler.stop_trace()
