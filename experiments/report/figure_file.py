"""A figure as a file, in the form that the ending of its name says."""

import io
from pathlib import Path

from matplotlib import pyplot
from matplotlib.figure import Figure

from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically


def save(figure: Figure, path: Path) -> None:
    """Writes a figure and closes it.

    Raises:
      InputError: The file cannot be written, or is of an unknown format.
    """
    file = io.BytesIO()
    try:
        figure.savefig(file, format=path.suffix.removeprefix(".") or "png")
        write_atomically(path, file.getvalue())
    except (OSError, ValueError) as error:  # the latter of an unknown format
        raise InputError(f"cannot plot to {path}: {error}") from error
    finally:
        pyplot.close(figure)
