"""Weights & Biases, offline: ``wandb sync DIR/wandb/offline-run-*`` sends it.

``WANDB_MODE`` and ``WANDB_PROJECT`` choose otherwise. A run that goes on is another folder of the
same run, which its server joins.
"""

import os

import wandb

from experiments.trackers import About
from shufflenet_jax.metrics import Row


class Wandb:
    """A run of Weights & Biases."""

    def __init__(self, about: About):
        offline = os.environ.get("WANDB_MODE", "offline") == "offline"
        self._run = wandb.init(
            mode=None if "WANDB_MODE" in os.environ else "offline",
            project=os.environ.get("WANDB_PROJECT", "shufflenet_jax"),
            group=about.experiment,
            name=about.name,
            id=about.key,
            resume=None if offline else "allow",  # which without a server only makes it complain
            dir=str(about.store),
            config=dict(about.hyperparameters),
            # What this machine is called and where things lie is nobody's business.
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                init_timeout=60,
                silent=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )

    def write(self, row: Row) -> None:
        values = {
            f"{row['split']}/{name}": value
            for name, value in row.items()
            if name not in ("step", "split")
        }
        self._run.log(values, step=row["step"])

    def close(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "done" else 1)


open_run = Wandb
