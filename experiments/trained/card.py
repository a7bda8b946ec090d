"""The model card of a network: what it is, how good, and where its weights come from."""

import json
from typing import Any

from shufflenet_jax.cost import complexity
from shufflenet_jax.trained import Trained, plain

_HEAD = """---
library_name: shufflenet_jax
tags: [image-classification, jax, flax]
---
"""


def card(trained: Trained) -> str:
    """The card, in Markdown; every number in it says where it comes from."""
    size = trained.preprocessing.image_size
    counts = complexity(trained.network, (size, size, 3))
    arguments = ", ".join(f"{key}={value}" for key, value in plain(trained.arguments).items())
    parts = [
        f"{_HEAD}\n# {trained.name}",
        f"`{trained.name}` of `shufflenet_jax` with {arguments or 'its defaults'}: "
        f"{counts.params:,} parameters and {counts.macs:,} multiply-adds at {size}x{size} "
        f"(counted from the network), {len(trained.class_names)} classes.",
        f"## How good it is\n\n{_numbers(trained.provenance)}",
        f"## Where the weights come from\n\n{_origin(trained)}",
        "## Use\n\n    import shufflenet_jax\n    trained = shufflenet_jax.from_pretrained(DIR)\n"
        "    logits = trained.network(trained.normalise(images))  # RGB from 0 to 255, NHWC\n\n"
        f"Images are scaled so that the shorter side is {trained.preprocessing.eval_resize:.3g} "
        f"times {size}, of which the central square is taken "
        "(`shufflenet_jax.data.eval_image`); pixels in [0, 1] are normalised by mean "
        f"{_list(trained.preprocessing.pixel_mean)} and standard deviation "
        f"{_list(trained.preprocessing.pixel_std)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _numbers(provenance: Any) -> str:
    result = provenance.get("result")
    if not result:
        return "Not measured here."
    data = provenance.get("data", {}).get("name", "its data set")
    return (
        f"On the {result['examples']} test images of {data}, measured once at the end of the "
        f"training (seed {provenance.get('seed', 'unknown')}): top-1 error "
        f"{result['top1_error']:.2f}%, top-5 error {result['top5_error']:.2f}%."
    )


def _origin(trained: Trained) -> str:
    provenance = trained.provenance
    if not provenance:
        return "Not known."
    if "imported_from" in provenance:
        lead = f"Imported from a state dict in the layout of {provenance['imported_from']}."
    else:
        lead = f"Trained by shufflenet_jax, {trained.step} steps."
    text = json.dumps(provenance, indent=1, sort_keys=True)
    return f"{lead}\n\n```json\n{text}\n```"


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{each:.4g}" for each in values)
