"""The whole augmentation of images of 224 pixels, on the same files: ours, and those of others.

Every peer reads a JPEG, takes a random part of it (0.49 to 1 of its area), resizes it bicubically,
mirrors every other one, and changes brightness, contrast and saturation by 0.4 and the lighting by
0.1 (`shufflenet_jax.data.Preprocessing`). What it gives are levels of 0 to 255. Each does so in the
way that its own users would; what of it is another arithmetic is said here.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

SIZE = 224
AREA = (0.49, 1.0)
COLOR, LIGHTING = 0.4, 0.1

Batch = tuple[UInt8[np.ndarray, "b 224 224 3"], Int[np.ndarray, " b"]]
"""Images, and the class of each."""

Make = Callable[[Path, int], Iterator[Batch]]
"""Given class folders and the size of a batch, gives batches without end, on one thread."""


@dataclass(frozen=True)
class InputPeer:
    """One way to make batches.

    Attributes:
      packages: What it needs.
      make: Makes them of the training images of class folders.
      note: In what it differs from ours.
    """

    packages: tuple[str, ...]
    make: Make
    note: str = ""

    def missing(self) -> str:
        """Why it is left out; empty if it is not."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} is not installed" if absent else ""


def _ours(root: Path, batch_size: int) -> Iterator[Batch]:
    from shufflenet_jax import data
    from shufflenet_jax.data import Preprocessing
    from shufflenet_jax.devices import ONE_DEVICE
    from shufflenet_jax.inputs import Streamed

    streamed = Streamed(
        dataset=data.load(f"folder:{root}"),
        preprocessing=Preprocessing(
            SIZE, "random_resized", scale=AREA, color=COLOR, lighting=LIGHTING
        ),
        batch_size=batch_size,
        devices=ONE_DEVICE,
        num_workers=0,
        skipped={"train": None, "test": None},
        go_on=lambda: None,
    )
    for batch in streamed.train(0, 10**9, 0):
        yield np.asarray(batch.image), np.asarray(batch.label)


def _torchvision(root: Path, batch_size: int, tensors: bool) -> Iterator[Batch]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_image, read_file
    from torchvision.transforms import InterpolationMode, v2

    from shufflenet_jax.data.colors import draw_colors

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def lit(image: torch.Tensor) -> torch.Tensor:
        light = torch.from_numpy(draw_colors(0.0, LIGHTING, rng).light).to(torch.int16)
        return (image.to(torch.int16) + light[:, None, None]).clamp(0, 255).to(torch.uint8)

    augmentation = [
        v2.RandomResizedCrop(
            SIZE, scale=AREA, interpolation=InterpolationMode.BICUBIC, antialias=True
        ),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(COLOR, COLOR, COLOR),
    ]
    if tensors:
        images = ImageFolder(
            root / "train",
            v2.Compose([*augmentation, lit]),
            loader=lambda path: decode_image(read_file(path), ImageReadMode.RGB),
        )
    else:
        images = ImageFolder(root / "train", v2.Compose([*augmentation, v2.PILToTensor(), lit]))
    while True:
        for batch, labels in DataLoader(images, batch_size, shuffle=True, drop_last=True):
            yield batch.permute(0, 2, 3, 1).numpy(), labels.numpy()


def _torchvision_pil(root: Path, batch_size: int) -> Iterator[Batch]:
    return _torchvision(root, batch_size, tensors=False)


def _torchvision_tensors(root: Path, batch_size: int) -> Iterator[Batch]:
    return _torchvision(root, batch_size, tensors=True)


def _tf_data(root: Path, batch_size: int, antialias: bool = False) -> Iterator[Batch]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what it says of the processor
    import tensorflow as tf

    from shufflenet_jax.data.colors import EIGENVALUES, EIGENVECTORS

    for set_threads in (
        tf.config.threading.set_intra_op_parallelism_threads,
        tf.config.threading.set_inter_op_parallelism_threads,
    ):
        set_threads(1)
    classes = sorted(path.name for path in (root / "train").iterdir())
    files = [sorted(map(str, (root / "train" / name).iterdir())) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(each) for each in files])
    axes = tf.constant(EIGENVECTORS * EIGENVALUES * LIGHTING * 255, tf.float32)

    def augmented(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(encoded),
            tf.zeros((1, 0, 4)),
            area_range=AREA,
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE), method="bicubic", antialias=antialias)
        image = tf.image.random_flip_left_right(image)
        image *= tf.random.uniform((), 1 - COLOR, 1 + COLOR)
        image = tf.image.random_contrast(image, 1 - COLOR, 1 + COLOR)
        image = tf.image.random_saturation(image, 1 - COLOR, 1 + COLOR)
        image += tf.linalg.matvec(axes, tf.random.normal((3,)))
        return tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8), label

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    paths = [path for each in files for path in each]
    batches = (
        tf.data.Dataset.from_tensor_slices((paths, labels))
        .shuffle(len(paths))
        .repeat()
        .map(augmented)
        .batch(batch_size, drop_remainder=True)
        .with_options(options)
    )
    return batches.as_numpy_iterator()


def _tf_data_antialiased(root: Path, batch_size: int) -> Iterator[Batch]:
    return _tf_data(root, batch_size, antialias=True)


PEERS = {
    "ours": InputPeer((), _ours),
    "torchvision v2, PIL": InputPeer(("torch", "torchvision"), _torchvision_pil),
    "torchvision v2, tensors": InputPeer(("torch", "torchvision"), _torchvision_tensors),
    "tf.data": InputPeer(
        ("tensorflow",),
        _tf_data,
        "resizes without antialiasing, as is its default, changes colours in one order, and "
        "contrast by channel",
    ),
    "tf.data, antialiased": InputPeer(
        ("tensorflow",), _tf_data_antialiased, "does so but for the first"
    ),
}


def files_of(root: Path) -> Sequence[Path]:
    """The training images that every peer reads."""
    return sorted((root / "train").glob("*/*"))
