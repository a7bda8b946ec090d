"""Networks in directories as the Hugging Face hub has them, and on the hub itself.

A directory holds ``config.json`` (the architecture as `shufflenet_jax.zoo.build` takes it, the
preprocessing, the labels, where the weights come from, and the digest of the weights),
``model.safetensors`` (every array by its place in the network) and, where there is one, a model
card, ``README.md``. Nothing in them is ever executed.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from shufflenet_jax import zoo
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically
from shufflenet_jax.train import split
from shufflenet_jax.trained import (
    CONFIG_OF_A_RUN,
    Trained,
    built,
    load_trained,
    plain,
    preprocessing_of,
)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"

_FORMAT = 1
_MOST_BYTES = 2**24  # of config.json, with the names of classes in it


def save(trained: Trained, directory: str | os.PathLike[str], card: str = "") -> None:
    """Writes a network into a new directory, whole or not at all.

    >>> import tempfile
    >>> from flax import nnx
    >>> from shufflenet_jax import Trained, load, zoo
    >>> from shufflenet_jax.data import IMAGENET
    >>> network = zoo.build("lenet5", {}, num_classes=2, rngs=nnx.Rngs(0))
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     save(Trained(network, IMAGENET, ("cat", "dog"), 0, "lenet5", {}), f"{parent}/pets")
    ...     load(f"{parent}/pets").class_names
    ('cat', 'dog')

    Args:
      trained: The network. That of `Trained.name` and its arguments is built and compared.
      directory: Where it is to be; nothing may be there yet but an empty directory.
      card: The model card, in Markdown.

    Raises:
      InputError: Something is there already; the network is not what its name and arguments say,
        or not of as many classes as there are names; JSON has no such value.
    """
    place = Path(directory).expanduser().absolute()
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise InputError(f"{place} is there already: choose another directory, or remove it")
    weights = weights_of(trained.network)
    config = _config(trained, weights)
    content = _serialised(weights)
    config["weights"] = {"file": WEIGHTS, "sha256": hashlib.sha256(content).hexdigest()}
    try:
        # In ASCII, which also holds the halves of characters that stand for undecodable bytes in
        # the names of files.
        text = json.dumps(config, indent=1, ensure_ascii=True)
    except TypeError as error:
        raise InputError(f"{trained.name} cannot be written down: {error}") from error
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    try:
        write_atomically(temporary / WEIGHTS, content)
        write_atomically(temporary / CONFIG, text)
        if card:
            write_atomically(temporary / CARD, card)
        temporary.chmod(0o755)
        os.rename(temporary, place)
    except BaseException:
        shutil.rmtree(temporary)
        raise


def load(
    directory: str | os.PathLike[str], constructor: zoo.Family | zoo.Constructor | None = None
) -> Trained:
    """The network that `save` wrote.

    Args:
      directory: Where it is.
      constructor: Of a network of one's own, where it is not registered under its name; see
        `shufflenet_jax.zoo.family_of`.

    Raises:
      InputError: A file is missing, damaged, or of another network than the other says. It is
        named.
    """
    path = Path(directory).expanduser() / CONFIG
    config = _read(path)
    try:
        name, arguments = config["family"], dict(config["arguments"])
        labels = config["id2label"]
        class_names = tuple(str(labels[str(number)]) for number in range(len(labels)))
        digest = str(config["weights"]["sha256"])
        preprocessing = preprocessing_of(config["preprocessing"])
        step, provenance = int(config["step"]), dict(config["provenance"])
        if not isinstance(name, str):
            raise TypeError("family is no text")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path} is damaged, or of another version: {error!r}") from error
    weights = _read_weights(path.with_name(WEIGHTS), digest)
    _check_length(path, arguments, len(weights))
    try:
        network = built(name, arguments, len(class_names), constructor)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    put_weights(network, weights, str(path.with_name(WEIGHTS)))
    return Trained(network, preprocessing, class_names, step, name, arguments, provenance)


def open_trained(
    directory: str | os.PathLike[str], constructor: zoo.Family | zoo.Constructor | None = None
) -> Trained:
    """The network of a directory: one that `save` wrote, or that of a run.

    Raises:
      InputError: It is neither, or see `load` and `load_trained`.
    """
    place = Path(directory).expanduser()
    for name, opened in ((CONFIG_OF_A_RUN, load_trained), (CONFIG, load)):
        if (place / name).is_file():
            return opened(place, constructor)
    raise InputError(
        f"{place} holds no network: it has neither {CONFIG}, as saved, nor {CONFIG_OF_A_RUN}, as "
        "the directory of a run"
    )


def from_pretrained(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    constructor: zoo.Family | zoo.Constructor | None = None,
) -> Trained:
    """The network of a directory, or of a repository of the Hugging Face hub.

    Args:
      name: The directory, or the repository, as ``user/shufflenet-g3``.
      revision: Branch, tag or commit of the repository.
      constructor: See `load`.

    Raises:
      InputError: As `load`; there is no such repository; or it is one, and huggingface_hub is not
        installed.
    """
    if Path(name).expanduser().is_dir():
        return load(name, constructor)
    hub = _hub()
    try:
        downloaded = hub.snapshot_download(
            str(name), revision=revision, allow_patterns=[CONFIG, WEIGHTS]
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} is no directory, and cannot be had from the hub: {_first_line(error)}"
        ) from error
    return load(downloaded, constructor)


def push_to_hub(
    directory: str | os.PathLike[str], repository: str, *, private: bool = False
) -> str:
    """Uploads a saved network to a repository of the hub, which is created where it is missing.

    Args:
      directory: As `save` wrote it; it is loaded first, to see that it is whole.
      repository: As ``user/shufflenet-g3``.
      private: Whether a new repository is to be seen by its owner only.

    Returns:
      The address of the commit.

    Raises:
      InputError: As `load`; huggingface_hub is not installed; the hub refuses.
    """
    load(directory)
    hub = _hub()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(
            hub.upload_folder(
                repo_id=repository,
                folder_path=Path(directory).expanduser(),
                allow_patterns=[CONFIG, WEIGHTS, CARD],
                commit_message="A network of shufflenet_jax",
            )
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{repository} cannot be written: {_first_line(error)}") from error


def put_weights(network: nnx.Module, weights: Mapping[str, np.ndarray], source: str) -> None:
    """Gives a network its arrays, in place.

    Args:
      network: May be abstract.
      weights: By place, as ``stages.0.1.reduce.conv.kernel``; all of the network's and no others.
      source: What to call where they come from.

    Raises:
      InputError: One is missing, too many, or of another shape or type.
    """
    state = nnx.state(network, (nnx.Param, nnx.BatchStat))
    places, treedef = jax.tree.flatten_with_path(nnx.to_pure_dict(state))
    expected = {_place(path): leaf for path, leaf in places}
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise InputError(f"{source} lacks {name}, which the network has")
        if name not in expected:
            raise InputError(f"{source} holds {name}, which the network does not have")
        here, there = expected[name], weights[name]
        if (here.shape, np.dtype(here.dtype)) != (there.shape, there.dtype):
            raise InputError(
                f"{name} is {there.dtype}{list(there.shape)} in {source}, and "
                f"{np.dtype(here.dtype)}{list(here.shape)} in the network"
            )
    values = jax.device_put([weights[_place(path)] for path, _ in places])
    nnx.replace_by_pure_dict(state, jax.tree.unflatten(treedef, values))
    nnx.update(network, state)


def digest(network: nnx.Module) -> str:
    """What tells the weights of a network from all others: that of the file that holds them."""
    return hashlib.sha256(_serialised(weights_of(network))).hexdigest()


def _serialised(weights: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save(weights, metadata={"format": "flax"})


def weights_of(network: nnx.Module) -> dict[str, np.ndarray]:
    """Every array of a network by its place, as ``stages.0.1.reduce.conv.kernel``."""
    _, params, batch_stats = split(network)
    leaves = [each for tree in (params, batch_stats) for each in jax.tree.leaves_with_path(tree)]
    # Contiguous, as the format writes memory as it lies.
    return {_place(path): np.ascontiguousarray(np.asarray(leaf)) for path, leaf in leaves}


def _place(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _config(trained: Trained, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if not trained.class_names:
        raise InputError("a saved network needs the names of its classes")
    if trained.name in zoo.FAMILIES:
        network = zoo.build(trained.name, trained.arguments, num_classes=len(trained.class_names))
        put_weights(network, weights, f"the network that is to be {trained.name}")
        if nnx.graphdef(network) != nnx.graphdef(trained.network):
            raise InputError(
                f"the network is not {trained.name} with {plain(trained.arguments)}: it has the "
                "same arrays, and computes otherwise"
            )
    return {
        "library_name": "shufflenet_jax",
        "format": _FORMAT,
        "family": trained.name,
        "arguments": plain(trained.arguments),
        "num_labels": len(trained.class_names),
        "id2label": {str(number): name for number, name in enumerate(trained.class_names)},
        "preprocessing": dataclasses.asdict(trained.preprocessing),
        "step": trained.step,
        "provenance": dict(trained.provenance),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        config = json.loads(content)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): this is no saved network"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("library_name") != "shufflenet_jax":
        raise InputError(f"{path} is not of a network that this library saved")
    if config.get("format") != _FORMAT:
        raise InputError(
            f"{path} has format {config.get('format')!r}; this version reads {_FORMAT}"
        )
    return config


def _read_weights(path: Path, digest: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialised

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path} is damaged, or not the file that {CONFIG} is of")
    try:
        return deserialised(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no file of safetensors: {_first_line(error)}") from error


def _check_length(path: Path, arguments: Mapping[str, Any], arrays: int) -> None:
    """Refuses to build a network of far more units than there are weights of, which takes long."""
    repeats = arguments.get("repeats", ())
    if isinstance(repeats, list) and any(
        isinstance(each, int) and each > arrays for each in repeats
    ):
        raise InputError(f"{path}: the network has more units than {WEIGHTS} has arrays")


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError("the hub needs huggingface_hub: pip install -e '.[hub]'") from error
    return huggingface_hub


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
