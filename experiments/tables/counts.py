"""Multiply-adds and parameters of every network the project knows, beside the paper's figures."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from experiments.report import markdown
from experiments.tables import paper
from shufflenet_jax.cost import Complexity, abstract, complexity
from shufflenet_jax.models import lenet
from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS
from shufflenet_jax.zoo import NETWORKS, shufflenet_name

INPUT_SHAPE = (224, 224, 3)
OTHER_INPUT_SHAPES = {"lenet5": (lenet.SIZE, lenet.SIZE, 1)}


@dataclass(frozen=True)
class Counted:
    """One network: its counts, the paper's figure, and whether that counts the classifier."""

    name: str
    input_shape: tuple[int, int, int]
    counts: Complexity
    paper: tuple[float, bool] | None


def count() -> Iterator[Counted]:
    """Counts every network, one by one."""
    figures = _figures()
    for name, constructor in NETWORKS.items():
        shape = OTHER_INPUT_SHAPES.get(name, INPUT_SHAPE)
        yield Counted(name, shape, complexity(abstract(constructor), shape), figures.get(name))


def _figures() -> dict[str, tuple[int, bool] | None]:
    """The paper's figure for each network it has one for; see `Counted`."""
    tables5_and_6 = {
        name: (mflops, True) for name, (mflops, _) in (paper.TABLE6 | paper.TABLE5).items()
    }
    table4 = {
        f"{name}_{mflops}m": (mflops, False)
        for mflops, errors in paper.TABLE4_ERRORS.items()
        for name in errors
    }
    tables1_and_2 = {
        shufflenet_name(groups, width, shuffle): paper.shufflenet_mflops(groups, width)
        for groups in STAGE2_CHANNELS
        for width in paper.TABLE2_MFLOPS
        for shuffle in (True, False)
    }
    return tables5_and_6 | table4 | tables1_and_2


def as_json() -> str:
    """The counts as a JSON list."""
    return json.dumps(
        [
            {
                "name": each.name,
                "input": list(each.input_shape),
                "macs": each.counts.macs,
                "macs_without_head": each.counts.macs_without_head,
                "params": each.counts.params,
                "paper_mflops": each.paper and each.paper[0],
            }
            for each in count()
        ],
        indent=2,
    )


def as_markdown() -> str:
    """The counts as a table; the paper's figure stands beside the count that it means."""
    counted = ("MACs, M", "without classifier, M", "parameters")
    table = markdown.table("network at 224x224", *counted, "paper, M", "difference")
    for each in count():
        counts = each.counts
        row = [f"{counts.macs / 1e6:.2f}", f"{counts.macs_without_head / 1e6:.2f}"]
        row.append(f"{counts.params:,}")
        if each.paper:
            figure, with_head = each.paper
            ours = (counts.macs if with_head else counts.macs_without_head) / 1e6
            row += [f"{figure} {'with' if with_head else 'without'}", f"{ours / figure - 1:+.1%}"]
        table.add_row(each.name, *row)
    note = (
        "Multiply-adds of convolutions and linear layers, in millions, which the paper calls "
        'MFLOPs. "with" and "without" say whether its figure counts the classifier. LeNet-5 is '
        "counted at 32x32."
    )
    return f"{markdown.render(table)}\n\n{note}"
