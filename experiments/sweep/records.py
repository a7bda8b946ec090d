"""Records: what outlives a run, one small file each, for reports and for other sweeps.

What identifies a run is its whole configuration, its data and its seed, and not the table that
asked for it. So tables share the runs that they have in common, and another machine goes on where
one ended. A record has no weights.

DIR/NETWORK-IDENTITY-seedN.json

    schema       the form of the file
    generation   which results: `shufflenet_jax.generation`
    identity     the configuration by dotted key, without the place of the data
    data         the identity of the data set
    seed
    result       how the run ended, as `experiments.sweep.run.Run` has it
    curve        its rows of metrics: every evaluation, and the row of training before it
    predictions  of each test image its class, as 16-bit integers, and whether it is the right one,
                 as bits; both by zlib and base64
    attempts     what is known of each process that trained it
    checksum     of all else
"""

import base64
import hashlib
import json
import math
import time
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.sweep.identity import Values, complete, digest
from experiments.sweep.lock import Held, hold
from experiments.sweep.run import Run
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically
from shufflenet_jax.generation import GENERATION
from shufflenet_jax.metrics import Row, read_metrics, write_metrics
from shufflenet_jax.predictions import (
    PREDICTION,
    Predictions,
    read_predictions,
    write_predictions,
)

SCHEMA = 1

_LOOK_SECONDS = 2.0

Record = Mapping[str, Any]


class Records:
    """A directory of records.

    Attributes:
      directory: Where they lie.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._keys: dict[Path, str] = {}

    def find(self, sweep: Sweep, run: Run) -> tuple[Path, Record] | None:
        """Returns the record of a run and its file; None if there is none.

        Raises:
          InputError: It is damaged, of another form, or by code whose results differ; or a file
            cannot be read. It is named.
        """
        wanted = _key(_identity(sweep, run))
        path = next((path for path, key in self._known().items() if key == wanted), None)
        return None if path is None else (path, _checked(path))

    def take(self, sweep: Sweep, run: Run) -> bool:
        """Ends a run that was not begun by its record, if there is one; says whether it did.

        Raises:
          InputError: As `find`.
        """
        if run.status != "missing" or (found := self.find(sweep, run)) is None:
            return False
        path, record = found
        run.directory.mkdir(parents=True, exist_ok=True)
        try:
            with hold(run.lock):
                if run.result is None:
                    _leave(run, record, path.name)
        except Held:  # by one that trains it, or takes the record too
            return False
        return True

    def recall(self, sweep: Sweep) -> Sweep:
        """Fills an empty sweep with all that is recorded of its cells, whatever their seeds.

        Data are known by their name: they need not be at hand.

        Returns:
          The sweep, of which each cell has as many seeds as it takes for all that there are.

        Raises:
          InputError: A record is damaged, of another form or generation; or two records of a cell
            are of data that have one name and are not the same.
        """
        by_identity: dict[str, list[tuple[Path, Record]]] = defaultdict(list)
        for path in self._known():
            record = _checked(path)
            by_identity[_of_cell(record["identity"])].append((path, record))
        known: dict[str, Mapping[str, Any]] = {}
        entries = {}
        for name, entry in sweep.entries.items():
            of_cell = by_identity[_of_cell(_portable(entry.values))]
            data_name = entry.values["data.name"]
            label = data.label(data_name)
            of_cell = [each for each in of_cell if each[1]["data"].get("name") == label]
            for path, record in of_cell:
                if known.setdefault(data_name, record["data"]) != record["data"]:
                    raise InputError(f"record {path} is of other data of the name {label}")
                run = sweep.run(entry.cell, record["seed"])
                run.directory.mkdir(parents=True)
                _leave(run, record, path.name)
            seeds = max((record["seed"] + 1 for _, record in of_cell), default=0)
            entries[name] = replace(entry, seeds=seeds)
        return replace(sweep, entries=entries, data=known)

    def add(self, sweep: Sweep, run: Run) -> Path | None:
        """Writes the record of a run that is done; None where there is one, or nothing to record.

        A run that is not done, or that was itself taken from a record, leaves none; nor does one of
        before there were predictions.
        """
        result, predictions = run.result, read_predictions(run.directory)
        if result is None or result["status"] != "done" or "record" in result:
            return None
        identity = _identity(sweep, run)
        key = _key(identity)
        if predictions is None or key in self._known().values():
            return None
        record = {
            "schema": SCHEMA,
            "generation": GENERATION,
            **identity,
            "result": result,
            "curve": _curve(read_metrics(run.directory)),
            "predictions": _packed(predictions),
            "attempts": [_public(attempt) for attempt in run.attempts],
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f"{identity['identity']['network.name']}-{key[:16]}-seed{run.seed}.json"
        path = self.directory / name
        write_atomically(path, json.dumps(record | {"checksum": _checksum(record)}, indent=1))
        return path

    def _known(self) -> dict[Path, str]:
        """What each record is of. A file is read once: records are never rewritten."""
        paths = sorted(self.directory.glob("*.json"))
        for path in paths:
            if path not in self._keys:
                self._keys[path] = _key(_read(path))
        return {path: self._keys[path] for path in paths}


class Keeper:
    """Takes runs of a sweep from records, and records those that it trains as they end.

    As a context, it records what has ended when the block is left, also by an exception.
    """

    def __init__(self, records: Records, sweep: Sweep, runs: Sequence[Run]):
        self._records, self._sweep, self._runs = records, sweep, runs
        self._looked = -math.inf

    def take(self) -> int:
        """Ends what there is a record of; returns how many runs.

        Raises:
          InputError: As `Records.find`.
        """
        return sum(self._records.take(self._sweep, run) for run in self._runs)

    def look(self) -> None:
        """Records what has ended; may be called often."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._add()

    def _add(self) -> None:
        for run in self._runs:
            self._records.add(self._sweep, run)
        self._looked = time.monotonic()

    def __enter__(self) -> "Keeper":
        self._add()  # what another command has left
        return self

    def __exit__(self, *_: object) -> None:
        self._add()


def _identity(sweep: Sweep, run: Run) -> dict[str, Any]:
    """What tells a run from all others, on every machine."""
    values = _portable(sweep.entries[run.cell.name].values)
    return {"identity": values, "data": dict(sweep.data_of(run.cell)), "seed": run.seed}


def _portable(values: Values) -> dict[str, Any]:
    """A configuration without the name of its data, which of class folders is a path.

    The identity of the data has a name that others may see.
    """
    return {key: value for key, value in values.items() if key != "data.name"}


def _leave(run: Run, record: Record, name: str) -> None:
    """Leaves what is recorded of a run in its directory."""
    write_metrics(run.directory, record["curve"])
    write_predictions(run.directory, _unpacked(record["predictions"]))
    for number, attempt in enumerate(record["attempts"], 1):
        run.record_attempt(number, {"generation": record["generation"], **attempt})
    run.end({**record["result"], "record": name})


def _of_cell(identity: Values) -> str:
    """The same for configurations of which one is older than a key."""
    return digest(complete(identity), 64)


def _key(record: Record) -> str:
    """The same for records of the same run, in this sense."""
    return digest(
        {"cell": _of_cell(record["identity"]), "data": record["data"], "seed": record["seed"]}, 64
    )


def _read(path: Path) -> Record:
    """The record in a file.

    Raises:
      InputError: It cannot be read, or is of another form.
    """
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"record {path} cannot be read: {error}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise InputError(f"record {path} has a form that this version does not know")
    if not isinstance(record.get("identity"), dict) or not {"data", "seed"} <= record.keys():
        raise InputError(f"record {path} does not say what it is of")
    return record


def _checked(path: Path) -> Record:
    """The record in a file, intact and by code with these results.

    Raises:
      InputError: It is not; the file is named.
    """
    record = _read(path)
    rest = {key: value for key, value in record.items() if key != "checksum"}
    if record.get("checksum") != _checksum(rest):
        raise InputError(f"record {path} was changed or damaged: its checksum differs")
    if record.get("generation") != GENERATION:
        raise InputError(
            f"record {path} was made by code whose results differ (generation "
            f"{record.get('generation')}, now {GENERATION}): train it anew in another directory"
        )
    return record


def _checksum(record: Record) -> str:
    text = json.dumps(record, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _curve(rows: list[Row]) -> list[Row]:
    """The rows of evaluations, each behind the last row of training before it."""
    kept: list[Row] = []
    last: Row | None = None
    for row in sorted(rows, key=lambda row: (row["step"], row["split"] == "test")):
        if row["split"] == "test":
            kept += [row] if last is None else [last, row]
            last = None
        else:
            last = row
    return kept


def _public(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a process, for everybody to read: not the machine's name, nor the changes
    to the code, but whether there were any.
    """
    return {key: value for key, value in attempt.items() if key not in ("host", "diff")}


def _packed(predictions: Predictions) -> dict[str, str]:
    return {
        "predicted": _text(predictions["predicted"].tobytes()),
        "right": _text(np.packbits(predictions["right"]).tobytes()),
    }


def _unpacked(packed: Mapping[str, str]) -> Predictions:
    predicted = np.frombuffer(_bytes(packed["predicted"]), PREDICTION["predicted"])
    made = np.empty(len(predicted), PREDICTION)
    made["predicted"] = predicted
    bits = np.frombuffer(_bytes(packed["right"]), np.uint8)
    made["right"] = np.unpackbits(bits, count=len(predicted))
    return made


def _text(contents: bytes) -> str:
    return base64.b64encode(zlib.compress(contents, 9)).decode()


def _bytes(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
