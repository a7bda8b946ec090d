"""Metrics as JSON lines, one file a run, and as TensorBoard events beside them."""

import json
import os
from pathlib import Path

from tensorboardX import SummaryWriter

from shufflenet_jax.files import write_atomically


class MetricsLog:
    """Appends rows to ``metrics.jsonl`` and to TensorBoard events in ``events/`` of a directory.

    A row is a JSON object with "step", "split" and numbers. Rows say what was learned and not when:
    a run that was killed and resumed writes the same file as one that was not.

    Args:
      directory: The run's; created if missing.
      step: The step that the run continues from; rows of later steps, written by a run that was
        killed before it saved a checkpoint, are dropped.
    """

    def __init__(self, directory: Path, step: int = 0):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "metrics.jsonl"
        kept = [row for row in read_metrics(directory) if row["step"] <= step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._events = SummaryWriter(str(directory / "events"), purge_step=step + 1)

    def write(self, step: int, split: str, **values: float | int) -> None:
        """Appends one row, in one write, so that a reader sees it whole or not at all."""
        row = json.dumps({"step": step, "split": split, **values})
        os.write(self._file, f"{row}\n".encode())
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        os.close(self._file)
        self._events.close()


def read_metrics(directory: Path) -> list[dict]:
    """Reads the rows of a run; a last line that was cut off by a crash is left out."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    *lines, unfinished = path.read_text().split("\n")
    del unfinished  # "" unless the last line was cut off
    return [json.loads(line) for line in lines]
