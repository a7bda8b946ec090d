"""A whole training in PyTorch, with our recipe and our batches."""

from contextlib import closing

import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.bench.torch_network import TorchNetwork, sgd
from experiments.sweep.build import Training
from shufflenet_jax.data import Batch, fits
from shufflenet_jax.devices import ONE_DEVICE
from shufflenet_jax.images import normalise
from shufflenet_jax.inputs import Streamed
from shufflenet_jax.intervals import Timetable
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.resident import Resident


def curve(training: Training, seed: int, threads: int, own_start: bool) -> list[float]:
    """Trains a network as `shufflenet_jax.fit.fit` would, but in PyTorch.

    Args:
      training: With the network to start from, and how it is evaluated.
      seed: Of the batches, and of PyTorch's own weights.
      threads: Of PyTorch.
      own_start: Whether the layers start as PyTorch starts them.

    Returns:
      Top-1 error in percent at every evaluation.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    recipe, dataset = training.recipe, training.dataset
    assert isinstance(training.network, Network)
    network = TorchNetwork(training.network, torch.channel_shuffle)
    if own_start:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
    network = network.to(memory_format=torch.channels_last)
    optimizer = sgd(
        network,
        rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    total = recipe.steps(len(dataset.train))
    timetable = Timetable(training.intervals, len(dataset.train), recipe.batch_size, total)
    schedule = recipe.schedule(total)
    stays = fits(dataset, recipe.preprocessing, training.memory_gb)
    images = (Resident if stays else Streamed)(
        dataset=dataset,
        preprocessing=recipe.preprocessing,
        batch_size=recipe.batch_size,
        devices=ONE_DEVICE,
        num_workers=training.num_workers,
        skipped={"train": None, "test": None},
        go_on=lambda: None,
    )

    def error() -> float:
        network.eval()
        right = examples = 0
        with closing(images.test()) as batches, torch.inference_mode():
            for batch in batches:
                maps, labels = _tensors(batch)
                mask = torch.from_numpy(np.array(batch.mask))
                hits = network(maps).argmax(1) == labels
                right, examples = right + int((hits & mask).sum()), examples + int(mask.sum())
        network.train()
        return 100 * (1 - right / examples)

    errors = []
    with closing(images.train(seed, total, 0)) as batches:
        for step, batch in enumerate(batches, 1):
            for group in optimizer.param_groups:
                group["lr"] = float(schedule(step - 1))
            maps, labels = _tensors(batch)
            optimizer.zero_grad()
            functional.cross_entropy(
                network(maps), labels, label_smoothing=recipe.label_smoothing
            ).backward()
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
            if timetable.evaluates(step):
                errors.append(error())
    return errors


def _tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.array(normalise(jnp.asarray(batch.image)))
    maps = torch.from_numpy(images).permute(0, 3, 1, 2)  # in NHWC order, which is channels_last
    return maps, torch.from_numpy(np.array(batch.label)).long()
