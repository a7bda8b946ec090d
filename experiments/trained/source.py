"""The network that a command is about, wherever it lies, with what is known of its training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from experiments.sweep import manifest
from shufflenet_jax import hub
from shufflenet_jax.errors import InputError
from shufflenet_jax.trained import Trained

_OF_A_RESULT = ("top1_error", "top5_error", "loss", "examples")
_OF_AN_ATTEMPT = ("device", "processor", "python", "versions", "commit", "dirty")


def locate(directory: Path) -> Path:
    """The directory of a saved network, of a run, or of the only run of a sweep.

    Raises:
      InputError: The sweep has several, of which one has to be chosen, or none that is done.
    """
    place = directory.expanduser().absolute()
    if (place / "sweep.json").is_file():
        done = [run for run in manifest.open_sweep(place).runs() if run.status == "done"]
        if len(done) != 1:
            some = ", ".join(str(run.directory.relative_to(place)) for run in done[:3])
            hint = f"give the directory of one, as {some}" if done else "train it first"
            raise InputError(f"{directory} has {len(done)} trained runs: {hint}")
        place = done[0].directory
    return place


def open_network(directory: Path) -> Trained:
    """Opens what `locate` finds.

    That of a run says in its provenance how it was trained, and what came of it.

    Raises:
      InputError: As `locate`; or there is no network.
    """
    place = locate(directory)
    trained = hub.open_trained(place)
    if trained.provenance:
        return trained
    return dataclasses.replace(trained, provenance=_of_run(place))


def _of_run(directory: Path) -> dict[str, Any]:
    """How a run was trained; nothing in it is of this machine alone."""
    config, data, result = (
        _read(directory / f"{name}.json") for name in ("config", "data", "result")
    )
    attempts = sorted((directory / "attempts").glob("*.json"))
    attempt = _read(attempts[-1]) if attempts else {}
    found: dict[str, Any] = {"trained_by": "shufflenet_jax"}
    if directory.name.startswith("seed"):
        found["seed"] = directory.name.removeprefix("seed")
    found["data"] = {key: data[key] for key in ("name", "version", "fingerprint") if key in data}
    # Of class folders, the name is a path.
    found["configuration"] = {k: v for k, v in config.items() if k != "data.name"}
    if result.get("status") == "done":
        found["result"] = {key: result[key] for key in _OF_A_RESULT if key in result}
    found["machine"] = {key: attempt[key] for key in _OF_AN_ATTEMPT if key in attempt}
    return {key: value for key, value in found.items() if value}


def _read(path: Path) -> dict[str, Any]:
    """The contents of a file of a run; nothing where there is none, or it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
