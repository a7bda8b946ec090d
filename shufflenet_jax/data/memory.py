"""Whether a data set is small enough to stay in memory, decoded."""

import numpy as np

from shufflenet_jax.data.dataset import Dataset
from shufflenet_jax.data.preprocess import Preprocessing

MEMORY_GB = 1.0
"""What the images of a data set may take on a device, by default, in gigabytes of 10^9 bytes."""


def fits(dataset: Dataset, preprocessing: Preprocessing, memory_gb: float) -> bool:
    """Whether a data set can be resident, and takes no more memory than it may.

    Args:
      dataset: Its train and test images count together.
      preprocessing: How they are augmented, and at which size they are kept.
      memory_gb: Gigabytes of 10^9 bytes on each device; 0 for never.
    """
    count = len(dataset.train) + len(dataset.test)
    size = count * np.prod(preprocessing.image_shape, dtype=int)
    return preprocessing.only_moves and bool(size <= memory_gb * 1e9)
