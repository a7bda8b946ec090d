"""MLflow, into files below the sweep's directory: ``mlflow ui --backend-store-uri DIR/mlruns``.

``MLFLOW_TRACKING_URI`` chooses another store.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

# Files are what many processes can write to without a server.
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from experiments.trackers import About
from shufflenet_jax.metrics import Row

_KEY = "shufflenet_jax.key"
_STATUS = {"done": "FINISHED", "preempted": "KILLED", "failed": "FAILED"}


class Mlflow:
    """A run of MLflow. What it has of a row is asked of the store itself."""

    def __init__(self, about: About):
        files = about.store / "mlruns"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or files.as_uri()
        self._client = MlflowClient(uri)
        with _alone(files):
            known = self._client.get_experiment_by_name(about.experiment)
            experiment = (
                known.experiment_id if known else self._client.create_experiment(about.experiment)
            )
        found = self._client.search_runs([experiment], f"tags.`{_KEY}` = '{about.key}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            run = self._client.create_run(experiment, run_name=about.name)
            self._id = run.info.run_id
            self._client.log_batch(
                self._id,
                params=[Param(key, str(each)) for key, each in about.hyperparameters.items()],
                tags=[RunTag(_KEY, about.key)],
            )

    def write(self, row: Row) -> None:
        now = int(1000 * time.time())
        step = row["step"]
        metrics = [
            Metric(f"{row['split']}/{name}", float(value), now, step)
            for name, value in row.items()
            if name not in ("step", "split")
        ]
        # A process that died may have left it without a word of it.
        history = self._client.get_metric_history(self._id, metrics[0].key)
        if not any(each.step == step for each in history):
            self._client.log_batch(self._id, metrics=metrics)

    def close(self, status: str) -> None:
        self._client.set_terminated(self._id, _STATUS[status])


@contextlib.contextmanager
def _alone(files: Path) -> Iterator[None]:
    """Keeps other processes of the sweep out, where the file system can."""
    files.mkdir(parents=True, exist_ok=True)
    with (files / ".lock").open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


open_run = Mlflow
