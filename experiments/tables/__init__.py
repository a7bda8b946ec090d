"""The tables of the paper, one file each, and what else the command line can run by name."""

import importlib
import inspect
from types import ModuleType

from experiments.sweep.experiment import Experiment, Printout
from shufflenet_jax.errors import InputError, did_you_mean

_MODULES = {
    "table1": "table1_architecture",
    "table2": "table2_groups",
    "table3": "table3_shuffle",
    "table4": "table4_structures",
    "table5": "table5_mobilenet",
    "table6": "table6_classic",
    "table8": "table8_speed",
    "unit_cost": "unit_cost",
}


def names() -> list[str]:
    """The experiments that there are."""
    return list(_MODULES)


def load(name: str) -> Experiment | Printout:
    """Returns an experiment by name: a `Printout` if its file has a function ``table``.

    Raises:
      InputError: There is none of that name; the message lists those there are.
    """
    if name not in _MODULES:
        raise InputError(f"unknown experiment {name!r}{did_you_mean(name, _MODULES)}")
    module: ModuleType = importlib.import_module(f"experiments.tables.{_MODULES[name]}")
    title, _, description = inspect.getdoc(module).partition("\n")
    described = {"name": name, "title": title, "description": description.strip()}
    if hasattr(module, "table"):
        return Printout(**described, table=module.table)
    return Experiment(
        **described,
        get_config=module.get_config,
        cells=tuple(module.sweep()),
        claims=module.CLAIMS,
        remarks=module.REMARKS,
        difference=getattr(module, "DIFFERENCE", None),
    )
