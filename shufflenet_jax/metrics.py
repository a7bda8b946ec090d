"""Metrics as JSON lines, one file a run, and as TensorBoard events beside them."""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shufflenet_jax.files import write_atomically

Row = dict[str, Any]
"""The metrics of a split at a step: "step", "split" and numbers."""

Hyperparameters = Mapping[str, str | int | float | bool]
"""The settings of a run by name."""

_COMPARED = ("test/top1_error", "test/loss")


class MetricsLog:
    """Appends rows to ``metrics.jsonl`` and to TensorBoard events in ``events/`` of a directory.

    Rows say what was learned and not when: a run that was killed and resumed writes the same file
    as one that was not. What the file held before does not matter.

    Args:
      directory: The run's; created if missing.
      rows: Those that the run had written when the checkpoint was saved that it continues from.
      step: Of that checkpoint.
      hyperparameters: What TensorBoard shows beside the metrics, to compare runs by.
    """

    def __init__(
        self,
        directory: Path,
        rows: Sequence[Row] = (),
        step: int = 0,
        hyperparameters: Hyperparameters = MappingProxyType({}),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        write_metrics(directory, rows)
        self._events = _Events(directory / "events", step, hyperparameters)
        self._file = (directory / "metrics.jsonl").open("ab", buffering=0)

    def write(self, row: Row, aside: Mapping[str, float] = MappingProxyType({})) -> None:
        """Appends one row, in one write, so that a reader sees it whole or not at all.

        Args:
          row: Of a step.
          aside: Numbers that another attempt would not find again, such as times: events alone
            have them.

        Raises:
          OSError: The disk is full, or another error; of the row, a part may have been written.
        """
        line = _line(row).encode()
        # What a disk that fills up takes of it is no error; what is left then is.
        while line:
            line = line[self._file.write(line) :]
        self._events.write({**row, **aside})

    def close(self) -> None:
        self._file.close()
        self._events.close()


class _Events:
    """A file of TensorBoard events, written at once.

    tensorboardX's own `SummaryWriter` leaves it to a thread. A full disk ends that thread without
    an error, and soon the one that trains waits for it, for ever.

    Args:
      directory: Receives the file; created if missing.
      step: Events of later steps, in files of the same directory, are to be forgotten.
      hyperparameters: The run's.
    """

    def __init__(self, directory: Path, step: int, hyperparameters: Hyperparameters):
        # Here, because only who writes needs it.
        with _hidden("torch"):
            from tensorboardX.proto import event_pb2
            from tensorboardX.record_writer import RecordWriter
            from tensorboardX.summary import hparams, scalar

        directory.mkdir(exist_ok=True)
        self._event, self._scalar = event_pb2.Event, scalar
        # The step tells files of one second apart.
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{step}"
        self._records = RecordWriter(str(directory / name))
        self._write(file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=step + 1, session_log=start)
        if hyperparameters:
            for summary in hparams(dict(hyperparameters), dict.fromkeys(_COMPARED, 0.0)):
                self._write(summary=summary)

    def write(self, row: Row) -> None:
        """Writes one row, and waits until it is on disk."""
        for name, value in row.items():
            if name not in ("step", "split"):
                summary = self._scalar(f"{row['split']}/{name}", value)
                self._write(step=row["step"], summary=summary)
        self._records.flush()

    def _write(self, **values: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **values).SerializeToString())

    def close(self) -> None:
        self._records.close()


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Has imports within the block not find a package, unless it is imported already.

    tensorboardX imports PyTorch where that is installed, for the type of an annotation: a second
    and a half, and 500 MiB, of every process that trains.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's mark of what is not there
    try:
        yield
    finally:
        del sys.modules[package]


def write_metrics(directory: Path, rows: Sequence[Row]) -> None:
    """Writes the rows of a run that is not trained here."""
    write_atomically(directory / "metrics.jsonl", "".join(map(_line, rows)))


def read_metrics(directory: Path) -> list[Row]:
    """Reads the rows of a run, each step and split once.

    Lines that a crash or a second writer left in pieces are left out. They come back when the run
    goes on, which writes the file anew.
    """
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    # The last line is "", unless it was cut off.
    lines = path.read_text(errors="replace").split("\n")[:-1]
    rows = [row for line in lines if (row := _row(line)) is not None]
    return list({(row["step"], row["split"]): row for row in rows}.values())


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _row(line: str) -> Row | None:
    """The row of a line; None where it is not whole."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"step", "split"} <= row.keys() else None
