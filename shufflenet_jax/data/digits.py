"""The UCI handwritten digits that scikit-learn ships: real images that need no download."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """1,797 grayscale 8x8 digits (UCI "optical recognition of handwritten digits", test part).

    Every fourth image is for testing (449), the rest for training (1,348). The file holds one
    writer after the other, so taking turns shows each split every writer; a cut in the middle
    would test on writers never seen in training.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        # Here, because it takes 0.8 s and only the first use of the data set needs it.
        from sklearn.datasets import load_digits

        intensities, labels = load_digits(return_X_y=True)
        # Counts from 0 to 16.
        images = np.round(intensities.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        test = np.arange(len(images)) % 4 == 3
        return {
            "train": self._generate_examples(images[~test], labels[~test]),
            "test": self._generate_examples(images[test], labels[test]),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "PNG")
            encoded.seek(0)
            yield index, {"image": encoded, "label": int(label)}
