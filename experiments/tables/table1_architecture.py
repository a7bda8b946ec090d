"""Table 1: the architecture of ShuffleNet 1x, and what it costs.

Claim:   At about the same complexity, more groups allow more channels.
Command: python -m experiments run table1
Time:    seconds; nothing is trained.
Expect:  Every size, channel and, rounded, every complexity as in the paper.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.report import markdown
from experiments.tables import paper
from shufflenet_jax import Network, abstract, complexity, shufflenet
from shufflenet_jax.models.skeleton import REPEATS

INPUT_SHAPE = (224, 224, 3)


def table() -> str:
    """Table 1, ours and in brackets the paper's."""
    networks = {groups: abstract(shufflenet, groups=groups) for groups in paper.TABLE1_CHANNELS}
    built = {groups: _outputs(network) for groups, network in networks.items()}
    made = markdown.table("layer", "output", *(f"g={groups}" for groups in built))
    labels = ["conv1, max pool"]
    labels += [f"stage {number}: 1 + {n - 1} units" for number, n in enumerate(REPEATS, start=2)]
    for index, (name, size) in enumerate(paper.TABLE1_SIZES.items()):
        sizes = {built[groups][name][1:3] for groups in built}
        output = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        channels = [
            f"{built[groups][name][3]} [{paper.TABLE1_CHANNELS[groups][index]}]" for groups in built
        ]
        made.add_row(labels[index], f"{output} [{size}x{size}]", *channels)
    costs = [
        f"{_mflops(network):.2f} [{paper.TABLE1_MFLOPS[groups]}]"
        for groups, network in networks.items()
    ]
    made.add_row("complexity, M", "", *costs)
    return (
        f"{markdown.render(made)}\n\nOutput sizes and channels at 224x224, and millions of "
        "multiply-adds without the classifier; in brackets the paper's."
    )


def _outputs(network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of the named feature maps, without computing anything."""

    graphdef, state = nnx.split(network)

    def features(state: nnx.State, images: jax.Array) -> dict[str, jax.Array]:
        return nnx.merge(graphdef, state).features(images)

    images = jax.ShapeDtypeStruct((1, *INPUT_SHAPE), jnp.float32)
    outputs = jax.eval_shape(features, state, images)
    return {name: output.shape for name, output in outputs.items()}


def _mflops(network: Network) -> float:
    return complexity(network, INPUT_SHAPE).macs_without_head / 1e6
