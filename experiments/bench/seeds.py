"""Several seeds of one cell: as one program, in turn, or a process each on its own processor.

`run` trains them a process each. This is the measurement behind that choice.
"""

from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import get_context
from statistics import median
from threading import Barrier
from time import perf_counter

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.bench import inputs, machine
from experiments.bench.measure import fresh_process, in_fresh_process, processors
from experiments.bench.workloads import Net, Workload
from experiments.report import markdown
from shufflenet_jax.data import Batch
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import create_state, make_train_step

ROUNDS = 2
"""Times that each way is measured, in processes of its own, the ways in turns."""

_STEPS = 12
_WAYS = ("a process each", "in turn", "vmap", "lax.map")


def table(threads: int) -> str:
    """Measures every way for cells as sweeps on a laptop have them; a Markdown table."""
    made = markdown.table("training step", *(f"{way}, ms" for way in _WAYS))
    for net, batch in ((Net(3, 0.25, 24), 32), (Net(3, 0.5, 32), 128)):
        workload = Workload(net, "train", batch, threads)
        taken: dict[str, list[float]] = {way: [] for way in _WAYS}
        for way in _WAYS * ROUNDS:
            taken[way].append(_step_of_a_seed(workload, way))
        best = median(taken[_WAYS[0]])
        entries = [
            f"{median(times):.1f} [{min(times):.1f}, {max(times):.1f}] {median(times) / best:.2f}"
            for times in taken.values()
        ]
        made.add_row(str(workload), *entries)
    found = in_fresh_process(threads, machine.describe)
    return (
        f"{markdown.render(made)}\n\nTime of one step of one seed, {threads} seeds on {threads} "
        f"processors: median of {ROUNDS} rounds [least, most], and the ratio to a process each. "
        f"{found['processor']}, jax {found['versions']['jax']}."
    )


def _step_of_a_seed(workload: Workload, way: str) -> float:
    """The time in ms in which one seed takes one step, with as many seeds as processors."""
    if way != _WAYS[0]:
        return in_fresh_process(workload.threads, _time, workload, way, None)
    own = processors(workload.threads)
    with get_context("spawn").Manager() as manager, ExitStack() as stack:
        together = manager.Barrier(len(own))
        pools = [stack.enter_context(fresh_process([processor])) for processor in own]
        waiting = [pool.submit(_time, workload, way, together) for pool in pools]
        times = [each.result() for each in waiting]
    return sum(times) / len(times) / len(own)


def _time(workload: Workload, way: str, together: Barrier | None) -> float:
    """The median time in ms of a step, for each of the seeds that it advances."""
    seeds = workload.threads if way in ("vmap", "lax.map") else 1
    run = _steps(workload, way, seeds)
    run()
    run()
    if together:
        together.wait()
    times = []
    for _ in range(_STEPS):
        start = perf_counter()
        run()
        times.append(1000 * (perf_counter() - start))
    return median(times) / seeds


def _steps(workload: Workload, way: str, seeds: int) -> Callable[[], Array]:
    """Returns what takes one step of every seed, each on its own images, and returns the losses."""
    net = workload.subject
    assert isinstance(net, Net)
    network = inputs.network(net)
    optimizer = Recipe(learning_rate=1e-3).make_optimizer(1000)
    graphdef, initial = create_state(network, optimizer)
    train_step = make_train_step(graphdef, optimizer, 0.0)
    # As a list, because a `State` is of one seed.
    leaves, structure = jax.tree.flatten(initial)

    def step(state: list[Array], batch: Batch) -> tuple[list[Array], Array]:
        after, metrics = train_step(jax.tree.unflatten(structure, state), batch)
        return jax.tree.leaves(after), metrics["loss"]

    random = jax.random.key(0)
    shape = (workload.threads, workload.batch, net.image_size, net.image_size, 3)
    batch = Batch(
        image=jax.random.randint(random, shape, 0, 256, jnp.int32).astype(jnp.uint8),
        label=jax.random.randint(random, shape[:2], 0, 10, jnp.int32),
        mask=jnp.ones(shape[:2], bool),
    )
    if seeds == 1:
        states, batch = leaves, jax.tree.map(lambda leaf: leaf[0], batch)
        advance = step
    else:
        states = [jnp.stack([leaf] * seeds) for leaf in leaves]
        advance = {
            "vmap": jax.vmap(step),
            "lax.map": lambda states, batch: lax.map(lambda one: step(*one), (states, batch)),
        }[way]
    advance = jax.jit(advance, donate_argnums=0)

    def run() -> Array:
        nonlocal states
        states, losses = jax.block_until_ready(advance(states, batch))
        return losses

    return run
