"""A trained network taken elsewhere: to the hub's form, to PyTorch, to other runtimes."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

from experiments.trained.card import card
from shufflenet_jax import hub
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically
from shufflenet_jax.porting.state_dicts import LAYOUTS, torch_state_dict
from shufflenet_jax.porting.tensors import Tensors
from shufflenet_jax.trained import Trained

ENDS = {"hub": "", "torch": ".safetensors", "stablehlo": ".stablehlo", "onnx": ".onnx"}
"""What can be exported to, and what the name of the result ends in."""


def export(trained: Trained, to: str, place: Path, layout: str | None = None) -> str:
    """Exports a network; nothing is written unless it computes the same.

    Args:
      trained: The network.
      to: One of `ENDS`.
      place: The file to write, or for the hub the directory; there must be nothing yet.
      layout: Of PyTorch: whose code is to load it; by default whose it was, or the first that can.

    Returns:
      What was written, in a line or two.

    Raises:
      InputError: Something is there already, a package is missing, or the network cannot be
        expressed so.
    """
    if layout is not None and to != "torch":
        raise InputError("--layout is for --to torch")
    if place.exists() and to != "hub":
        raise InputError(f"{place} is there already: choose another with --out")
    return _WAYS[to](trained, place, layout)


def _to_hub(trained: Trained, place: Path, layout: str | None) -> str:
    hub.save(trained, place, card(trained))
    return f"{place}: config.json, model.safetensors and the model card README.md"


def _to_torch(trained: Trained, place: Path, layout: str | None) -> str:
    chosen, tensors = _state_dict(trained, layout)
    if place.suffix == ".safetensors":
        from safetensors.numpy import save

        content = save(tensors, metadata={"format": "pt"})
    else:
        content = _saved_by_torch(tensors)
    write_atomically(place, content)
    preprocessing = trained.preprocessing
    colours = "BGR" if chosen == "megvii" else "RGB"
    return (
        f"{place}: a state dict of {len(tensors)} tensors for the code of {chosen}, which takes "
        f"images in the order {colours} that are normalised, of pixels in [0, 1], by mean "
        f"{_rounded(preprocessing.pixel_mean)} and deviation {_rounded(preprocessing.pixel_std)} "
        "(R, G, B)"
    )


def _state_dict(trained: Trained, layout: str | None) -> tuple[str, Tensors]:
    layout = layout or trained.provenance.get("imported_from")
    if layout is not None:
        return layout, torch_state_dict(trained, layout)
    reasons = []
    for name in LAYOUTS:
        try:
            return name, torch_state_dict(trained, name)
        except InputError as error:
            reasons.append(str(error))
    raise InputError(
        f"no code for PyTorch that is known here has this network: {'; '.join(reasons)}"
    )


def _saved_by_torch(tensors: Tensors) -> bytes:
    import io

    _check_installed("torch", "parity", "a file that does not end in .safetensors")
    import torch

    content = io.BytesIO()
    torch.save({name: torch.tensor(each) for name, each in tensors.items()}, content)
    return content.getvalue()


def _to_stablehlo(trained: Trained, place: Path, layout: str | None) -> str:
    _check_installed("flatbuffers", "export", "StableHLO")
    from shufflenet_jax.runtimes.stablehlo import stablehlo

    content, difference = stablehlo(trained)
    write_atomically(place, content)
    labels = place.with_name(f"{place.name}.json")
    write_atomically(labels, json.dumps(_described(trained), indent=1))
    return f"{place}, with labels and preprocessing in {labels.name}: {_agrees(difference)}"


def _to_onnx(trained: Trained, place: Path, layout: str | None) -> str:
    for package in ("onnx", "onnxruntime"):
        _check_installed(package, "export", "ONNX")
    from shufflenet_jax.runtimes.onnx_runtime import onnx

    content, difference = onnx(trained)
    write_atomically(place, content)
    return f"{place}: {_agrees(difference)}"


def _described(trained: Trained) -> dict[str, object]:
    preprocessing = trained.preprocessing
    return {
        "labels": list(trained.class_names),
        "images": ["batch", *preprocessing.image_shape],
        "pixel_mean": list(preprocessing.pixel_mean),
        "pixel_std": list(preprocessing.pixel_std),
        "eval_resize": preprocessing.eval_resize,
    }


def _agrees(difference: float) -> str:
    return f"run beside the network, logits differ by {difference:.1e} of the largest"


def _rounded(values: tuple[float, ...]) -> str:
    return ", ".join(f"{each:.4g}" for each in values)


def _check_installed(package: str, extra: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{what} needs {package}: pip install -e '.[{extra}]'")


_WAYS: dict[str, Callable[[Trained, Path, str | None], str]] = {
    "hub": _to_hub,
    "torch": _to_torch,
    "stablehlo": _to_stablehlo,
    "onnx": _to_onnx,
}
