"""Tables of what is recorded, without a sweep."""

from collections.abc import Sequence
from pathlib import Path

from experiments.sweep.experiment import Experiment, Printout
from experiments.sweep.plan import configured, freeze
from experiments.sweep.records import Records
from experiments.sweep.workdir import Sweep
from shufflenet_jax.errors import InputError


def recalled(
    chosen: Experiment | Printout,
    budget: str,
    assignments: Sequence[str],
    records: Path,
    directory: Path,
) -> Sweep:
    """Returns a sweep of all that is recorded of an experiment.

    Args:
      chosen: The experiment.
      budget: The setting that its configuration starts from.
      assignments: ``KEY=VALUE`` changes to it.
      records: The directory of records.
      directory: An empty one, which the sweep is put into.

    Raises:
      InputError: It trains nothing, there is no such directory, or `Records.recall` raises it.
    """
    if not isinstance(chosen, Experiment):
        raise InputError(f"{chosen.name} trains nothing that could be recorded: run it")
    if not records.expanduser().is_dir():
        raise InputError(f"there is no directory of records {records}")
    chosen, config = configured(chosen, budget, assignments)
    sweep = freeze(chosen, budget, config, directory, seeds=0)
    return Records(records.expanduser()).recall(sweep)
