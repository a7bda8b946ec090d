"""Table 8: measured time of one image, against what the multiply-adds promise.

Claim:   On one core, ShuffleNet 0.5x is about 13 times faster than AlexNet, at like error, where
         multiply-adds promise 18; ShuffleNet 1x is about 3 times faster than MobileNet.
Command: python -m experiments run table8
Time:    3 minutes, on a machine that does nothing else.
Expect:  Times of this machine, not of a phone: only the speedups can be compared. On a server's
         processor ShuffleNet 0.5x was 14 times faster than AlexNet at 224x224 and 10 times at the
         larger sizes, where AlexNet's linear layers no longer weigh; ShuffleNet 1x was 2.4 to 2.9
         times faster than MobileNet.

Each network infers one image on one thread, with random weights, batch normalisation folded into
the convolutions. All run on the same operations (`shufflenet_jax.chwn`). AlexNet takes images of
any size because the map before its linear layers is averaged to 6x6. For each size a fresh process
times the networks in turns, so that a machine that slows down slows all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.bench import machine, peer_jax
from experiments.bench.measure import in_fresh_process, in_turns
from experiments.report import markdown
from experiments.tables import paper
from shufflenet_jax import complexity, fold
from shufflenet_jax.zoo import NETWORKS

REFERENCE = "alexnet"
"""What speedups are over."""

ROUNDS = 15
"""Turns that each network takes at each size."""

TOLERANCE = 0.8
"""A claim of a speedup holds if at every size ours is at least so much of it."""


@dataclass(frozen=True)
class Claimed:
    """That one network is so many times faster than another."""

    fast: str
    slow: str
    speedup: float


CLAIMS = (
    Claimed("shufflenet_g3_0.5x", "alexnet", 13),
    Claimed("shufflenet_g3_1x", "mobilenet_v1_1.0", 3),
)


@dataclass(frozen=True)
class Timed:
    """One network at one size: the milliseconds of each turn, and its multiply-adds."""

    milliseconds: tuple[float, ...]
    macs: int

    @property
    def median(self) -> float:
        return median(self.milliseconds)


Size = tuple[int, int]
Times = dict[Size, dict[str, Timed]]


def table() -> str:
    """Measures every network at every size; ours beside the paper's, and the claims."""
    described = in_fresh_process(1, machine.describe)
    times = measure(paper.TABLE8_SIZES, list(paper.TABLE8_MILLISECONDS), ROUNDS)
    versions = ", ".join(f"{name} {described['versions'][name]}" for name in ("jax", "flax"))
    return (
        f"{as_markdown(times)}\n\nMedians of {ROUNDS} turns, in brackets the quartiles; the "
        "paper's are of a Snapdragon 820. Measured on one thread of "
        f"{described['processor']}, {versions}.\n\nClaims of the paper:\n\n{verdicts(times)}"
    )


def measure(sizes: Sequence[Size], names: Sequence[str], rounds: int) -> Times:
    """Times networks on one thread, one image at a time, each size in a process of its own."""
    return {size: in_fresh_process(1, _measure, size, names, rounds) for size in sizes}


def _measure(size: Size, names: Sequence[str], rounds: int) -> dict[str, Timed]:
    built = {name: NETWORKS[name](rngs=nnx.Rngs(0)) for name in names}
    image = jax.random.normal(jax.random.key(0), (1, *size, 3), jnp.float32)
    runs = {name: peer_jax.inference(fold(network), image) for name, network in built.items()}
    for run in runs.values():
        run()  # compiles
    turns = in_turns(runs, rounds, least=3)
    return {
        name: Timed(tuple(turns[name]), complexity(network, (*size, 3)).macs)
        for name, network in built.items()
    }


def as_markdown(times: Times) -> str:
    """A row for each network at each size."""
    made = markdown.table(
        "network",
        "image",
        "MACs, M",
        "ours, ms",
        "paper's, ms",
        "speedup over AlexNet",
        "paper's",
        "of MACs",
    )
    for index, (size, networks) in enumerate(times.items()):
        reference = networks[REFERENCE]
        for name, timed in networks.items():
            theirs = paper.TABLE8_MILLISECONDS
            low, _, high = quantiles(timed.milliseconds, n=4, method="inclusive")
            made.add_row(
                name,
                "x".join(map(str, size)),
                f"{timed.macs / 1e6:.0f}",
                f"{timed.median:.2f} [{low:.2f} to {high:.2f}]",
                f"{theirs[name][index]:.1f}",
                f"{reference.median / timed.median:.1f}",
                f"{theirs[REFERENCE][index] / theirs[name][index]:.1f}",
                f"{reference.macs / timed.macs:.1f}",
            )
    return markdown.render(made)


def verdicts(times: Times) -> str:
    """A line for each claim: ours at each size, the paper's, and whether it holds."""
    lines = []
    for claim in CLAIMS:
        ours = [each[claim.slow].median / each[claim.fast].median for each in times.values()]
        theory = [each[claim.slow].macs / each[claim.fast].macs for each in times.values()]
        holds = min(ours) >= TOLERANCE * claim.speedup
        lines.append(
            f"* {claim.fast} is about {claim.speedup:g} times faster than {claim.slow}: here "
            f"{_listed(ours)} times at {', '.join('x'.join(map(str, size)) for size in times)}, "
            f"where multiply-adds promise {_listed(theory)}. "
            f"**{'holds' if holds else 'does not hold'}**"
        )
    lines.append(
        f"\nA speedup holds if at every size it is at least {TOLERANCE:g} of the paper's. Whether "
        "the error is like that of the slower network is for tables 5 and 6 to say."
    )
    return "\n".join(lines)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
