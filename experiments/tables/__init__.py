"""What can be run by name: the tables of the paper, one file each, and files of the user's own."""

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
    "flow": "flow",
    "unit_cost": "unit_cost",
}


def names() -> list[str]:
    """The experiments of the paper."""
    return list(_MODULES)


def load(name: str) -> Experiment | Printout:
    """Returns an experiment of the paper: a `Printout` if its file has a function ``table``.

    Raises:
      InputError: There is none of that name; the message lists those there are.
    """
    if name not in _MODULES:
        raise InputError(
            f"unknown experiment {name!r}{did_you_mean(name, _MODULES)}; a file of your own is "
            f"named by its path, as in run ./mine.py"
        )
    module = importlib.import_module(f"experiments.tables.{_MODULES[name]}")
    if hasattr(module, "table"):
        title, description = documented(module, name)
        return Printout(name, title, description, module.table)
    return of_module(module, name, is_of_the_paper=True)


def of_module(module: ModuleType, name: str, is_of_the_paper: bool = False) -> Experiment:
    """The experiment that a module describes.

    It has ``sweep()``, which returns cells. It may have a docstring, of which the first line stands
    above the table; ``get_config(budget)``, which returns the configuration to start from;
    ``CLAIMS``, ``REMARKS`` and ``DIFFERENCE``, the fields of an `Experiment`.
    """
    from experiments.sweep.budgets import budget

    title, description = documented(module, name)
    return Experiment(
        name=name,
        title=title,
        description=description,
        get_config=getattr(module, "get_config", budget),
        cells=tuple(module.sweep()),
        claims=tuple(getattr(module, "CLAIMS", ())),
        remarks=tuple(getattr(module, "REMARKS", ())),
        difference=getattr(module, "DIFFERENCE", None),
        is_of_the_paper=is_of_the_paper,
    )


def documented(module: ModuleType, name: str) -> tuple[str, str]:
    """The first line of a module's docstring, or else a name, and the rest of it."""
    title, _, description = (inspect.getdoc(module) or name).partition("\n")
    return title, description.strip()
