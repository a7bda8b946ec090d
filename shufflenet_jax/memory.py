"""Whether a training step fits into the memory that there is, found out before anything starts."""

import os
from pathlib import Path

import jax

from shufflenet_jax.data import Batch
from shufflenet_jax.errors import InputError
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import State, TrainStep

_GB = 1e9


def compile_to_fit(
    step: TrainStep, state: State, batch: Batch, recipe: Recipe, held: int = 0
) -> TrainStep:
    """Compiles a training step, which is what tells how much memory it takes.

    Args:
      step: Not compiled yet.
      state: What it starts with.
      batch: The shapes of a batch.
      recipe: Of the step, for what to change.
      held: Bytes of what stays on each device beside it.

    Returns:
      The compiled step, to be used in its place.

    Raises:
      InputError: A device has less memory. Both numbers are named, and what would take less.
    """
    try:
        compiled = step.lower(state, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # what XLA says where a device cannot hold it
            raise
        raise InputError(f"a training step does not fit into memory: {_advice(recipe)}") from error
    needed, there = held + bytes_needed(compiled), bytes_of(jax.local_devices()[0])
    if there is not None and needed > there:
        raise InputError(
            f"a training step needs {needed / _GB:.1f} GB on each device, which has "
            f"{there / _GB:.1f}: {_advice(recipe)}"
        )
    return TrainStep(compiled, step.key)


def bytes_needed(compiled: jax.stages.Compiled) -> int:
    """What a program takes on each device: its arguments, its results, and all that it computes."""
    found = compiled.memory_analysis()
    if found is None:  # on a platform that does not tell
        return 0
    results = found.output_size_in_bytes - found.alias_size_in_bytes  # others take a place again
    return found.argument_size_in_bytes + results + found.temp_size_in_bytes


def bytes_of(device: jax.Device) -> int | None:
    """The memory that JAX may use of a device; None if that is not known.

    Of a CPU it is this machine's, or what its control group may use, shared by all of its devices.
    What other processes use of it now, they may give back before it is needed.
    """
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    if device.platform != "cpu":
        return None
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *_of_control_group()]) // jax.local_device_count()


def _of_control_group() -> list[int]:
    """Its limit, if it has one: that of a container, or of a job of a cluster."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return [int(Path(path).read_text())]
        except (OSError, ValueError):  # none of that version, or "max"
            continue
    return []


def _advice(recipe: Recipe) -> str:
    """What would take less, of what is not done yet."""
    changes = [f"recipe.accumulate={2 * recipe.accumulate} or more"]
    if recipe.precision == "float32":
        changes.append("recipe.precision=bfloat16")
    if not recipe.recompute:
        changes.append("recipe.recompute=true")
    return f"set {', '.join(changes)}, or use more devices"
