"""Files of the user's own: experiments like those of this package, and networks.

A file like ours is imported as any program is: whoever names it on the command line runs it.
Nothing else does; no manifest of a sweep can name one.
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from experiments import tables
from experiments.sweep.claim import names_of
from experiments.sweep.experiment import Cell, Experiment
from shufflenet_jax.errors import InputError


def is_file(name: str) -> bool:
    """Whether the name of an experiment is the path of a file."""
    return name.endswith(".py") or "/" in name


def load_networks(path: Path) -> ModuleType:
    """Imports a file, and makes its networks known by the names that it gives them.

    ``NETWORKS`` is a dictionary of units and of constructors of networks; see
    `shufflenet_jax.zoo.register`.

    Raises:
      InputError: There is no such file, it fails, or what it gives is no network.
    """
    # Here, because it imports JAX, for which a mistaken name need not wait.
    from shufflenet_jax import zoo

    path = _absolute(path)
    if (known := sys.modules.get(_module_name(path))) is not None:
        return known
    module = _imported(path)
    networks = getattr(module, "NETWORKS", {})
    if not isinstance(networks, dict):
        raise InputError(f"{path}: NETWORKS must be a dictionary of constructors by name")
    for name, constructor in networks.items():
        try:
            zoo.register(name, constructor)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return module


def load(path: Path) -> Experiment:
    """Returns the experiment of a file, whose networks are then known.

    Raises:
      InputError: As `load_networks`; or it has no cells, or what it has is of another kind.
    """
    path = _absolute(path)
    module = load_networks(path)
    if not callable(getattr(module, "sweep", None)):
        raise InputError(f"{path} has no function sweep() that returns cells")
    try:
        experiment = tables.of_module(module, path.name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_said(path, error)) from error
    _check(path, experiment)
    return experiment


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"there is no home directory for {path}: write out the path") from error


def _module_name(path: Path) -> str:
    return f"user_file_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _imported(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Last, so that what lies beside the file hides nothing that this code imports.
    if (beside := str(path.parent)) not in sys.path:
        sys.path.append(beside)
    try:
        spec.loader.exec_module(module)
    except InputError as error:
        del sys.modules[name]
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        del sys.modules[name]
        raise InputError(_said(path, error)) from error
    return module


def _said(path: Path, error: Exception) -> str:
    """An error in a user's file, in one line: where, and what."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    at = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
    where = f"{path}:{at[-1].lineno}" if at else str(path)
    return f"{where}: {type(error).__name__}: {' '.join(str(error).split())}"


def _check(path: Path, experiment: Experiment) -> None:
    def must(holds: bool, rule: str) -> None:
        if not holds:
            raise InputError(f"{path}: {rule}")

    cells: Iterable[object] = experiment.cells
    must(bool(experiment.cells), "sweep() returns no cells")
    must(all(isinstance(cell, Cell) for cell in cells), "sweep() must return cells")
    columns = {cell.column for cell in experiment.cells}
    if experiment.difference is not None:
        must(
            len(experiment.difference) == 2 and columns.issuperset(experiment.difference),
            f"DIFFERENCE must name two of the columns: {', '.join(sorted(columns))}",
        )
    names = {cell.name for cell in experiment.cells}
    for claim in experiment.claims:
        terms = (term for contrast in claim.contrasts for term in contrast)
        for name in sorted({name for term in terms for name in names_of(term)} - names):
            must(False, f"a claim is about {name}, but there is no such cell")
