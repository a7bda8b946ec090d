"""A table of small networks from nothing: what its user waits for, and where the time goes.

Commands are run as a user gives them. The parts of a cell are differences between runs of it: with
and without compiled programs at hand, and of more and fewer epochs.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median

from experiments.bench.measure import Spent, timed
from experiments.report import markdown
from shufflenet_jax.errors import InputError

ROUNDS = 3

_ROOT = Path(__file__).parents[2]
_CELLS, _COUNT = "0.25x-*", 4
_CELL = "0.25x-g3"
_EPOCHS, _FEWER = 10, 2


def table(against: str | None = None) -> str:
    """Measures both; two Markdown tables.

    Args:
      against: A commit of this repository, which takes turns with this code.

    Raises:
      InputError: There is no such commit, or no repository.
    """
    with tempfile.TemporaryDirectory() as directory, code_of(against) as other:
        codes = {"this code": _ROOT} | ({against: other} if against and other else {})
        runner = Runner(Path(directory))
        return f"{row(runner, codes)}\n\n{parts(runner)}"


class Runner:
    """Runs Table 3, each time in a directory of its own."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._count = 0

    def run(self, code: Path, cells: str, compiled: str = "", **recipe: int) -> Spent:
        """Trains some cells of Table 3 on digits.

        Args:
          code: Where `experiments` lies.
          cells: As of ``--cells``.
          compiled: A name for the programs that are kept; those of no name are not met again.
          recipe: What else than the defaults.
        """
        self._count += 1
        place = self._directory / str(self._count)
        environment = {
            "PYTHONPATH": str(code),
            "TFDS_DATA_DIR": str(self._directory / "data"),
            "XDG_CACHE_HOME": str(self._directory / compiled if compiled else place / "cache"),
        }
        options = [f"--config.recipe.{key}={value}" for key, value in recipe.items()]
        command = [sys.executable, "-P", str(code / "experiments" / "__main__.py"), "run", "table3"]
        return timed(
            [*command, "--cells", cells, "--workdir", str(place / "run"), *options],
            environment=os.environ | environment,
        )


def row(runner: Runner, codes: dict[str, Path]) -> str:
    """What the row takes from nothing, and its ratio to that of other code."""
    for code in codes.values():  # prepares the data
        runner.run(code, _CELL, epochs=1)
    spent: dict[str, list[Spent]] = {name: [] for name in codes}
    for _ in range(ROUNDS):
        for name, code in codes.items():
            spent[name].append(runner.run(code, _CELLS))
    seconds, processor, memory = (
        {name: median(getattr(each, what) for each in spent[name]) for name in codes}
        for what in ("seconds", "processor_seconds", "peak_mib")
    )
    rows = {
        "seconds": seconds,
        "cells an hour": {name: 3600 * _COUNT / each for name, each in seconds.items()},
        "processor seconds a cell": {name: each / _COUNT for name, each in processor.items()},
        "peak memory of a process, MiB": memory,
    }
    made = markdown.table("Table 3's row at 0.25x, digits", *codes, *["ratio"][: len(codes) - 1])
    for heading, by_name in rows.items():
        ours, *others = by_name.values()
        ratios = [f"{ours / other:.2f}" for other in others]
        made.add_row(heading, *(f"{each:.1f}" for each in by_name.values()), *ratios)
    return markdown.render(made)


def parts(runner: Runner) -> str:
    """What a cell's processor time goes into."""
    cold: list[float] = []
    warm: list[float] = []
    short: list[float] = []
    runner.run(_ROOT, _CELL, compiled="kept", epochs=_FEWER)
    for number in range(ROUNDS):
        for times, epochs, kept in (
            (cold, _EPOCHS, f"kept{number}"),
            (warm, _EPOCHS, f"kept{number}"),
            (short, _FEWER, "kept"),
        ):
            spent = runner.run(_ROOT, _CELL, compiled=kept, epochs=epochs)
            times.append(spent.processor_seconds)
    whole, compiled, fewer = map(median, (cold, warm, short))
    training = (compiled - fewer) * _EPOCHS / (_EPOCHS - _FEWER)
    parts = {
        "compiling by XLA": whole - compiled,
        f"{_EPOCHS} epochs, input and tests included": training,
        "the rest: imports, tracing, report": compiled - training,
        "all": whole,
    }
    made = markdown.table(f"{_CELL} of Table 3, digits", "processor seconds", "share")
    for heading, seconds in parts.items():
        made.add_row(heading, f"{seconds:.1f}", f"{100 * seconds / whole:.0f}%")
    return markdown.render(made)


@contextmanager
def code_of(commit: str | None) -> Iterator[Path | None]:
    """The files of a commit, in a directory of their own."""
    if commit is None:
        yield None
        return
    command = ["git", "-C", str(_ROOT), "archive", "--format=zip", commit]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise InputError(f"no code of {commit!r}: {done.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as directory:
        with zipfile.ZipFile(BytesIO(done.stdout)) as archive:
            archive.extractall(directory)
        yield Path(directory)
