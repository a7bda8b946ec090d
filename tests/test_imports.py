"""What is imported only where it is needed, because it takes a second, or half a gigabyte."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import experiments
import shufflenet_jax

BEGUN = Path(__file__).with_name("manifests") / "renamed-key"

TRAINING = {"grain", "orbax", "scipy", "sklearn", "tensorboardX", "tensorflow", "torch"}
"""Packages that only a process that trains has a use for, or a report of several seeds."""

COMPUTING = TRAINING | {"flax", "jax", "optax", "tensorflow_datasets"}
"""And those of networks and of prepared data."""


def imported(code, *arguments):
    """Packages that a fresh process has imported once it has run some code."""
    report = "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + report, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def imported_by(*arguments):
    """The same of a command of the command line."""
    root = Path(experiments.__file__).parents[1]
    code = f"""
import contextlib, sys
sys.path.insert(0, {str(root)!r})
from experiments.__main__ import main
with contextlib.suppress(SystemExit):
    main(sys.argv[1:])
"""
    return imported(code, *map(str, arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "tabel3"),
        ("status", "--workdir", BEGUN),
        ("report", "--workdir", BEGUN),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_only_looks_imports_no_jax(arguments):
    found = imported_by(*arguments)
    assert "experiments" in found
    assert not found & COMPUTING


def test_what_starts_processes_imports_nothing_to_train_with(tmp_path):
    found = imported_by("run", "table3", "--workdir", tmp_path, "--dry-run")
    assert "jax" in found  # for the networks' arguments
    assert not found & TRAINING


def test_a_log_brings_no_torch(tmp_path):
    """Where there is one, here an empty one; and once the log is open it can be imported."""
    (tmp_path / "torch.py").write_text("Tensor = object")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from pathlib import Path
from shufflenet_jax.metrics import MetricsLog
assert "tensorboardX" not in sys.modules
MetricsLog(Path({str(tmp_path)!r})).close()
assert "tensorboardX" in sys.modules
assert "torch" not in sys.modules
"""
    assert "torch" not in imported(code)
    assert "torch" in imported(f"{code}import torch; assert torch.Tensor is object")


def test_public_names():
    """Each comes from where type checkers see it, and no module takes its place."""
    tree = ast.parse(Path(shufflenet_jax.__file__).with_suffix(".pyi").read_text())
    seen = {
        alias.name: f"shufflenet_jax.{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(shufflenet_jax.__all__) == sorted(seen)
    for name, home in seen.items():
        assert getattr(shufflenet_jax, name) is getattr(importlib.import_module(home), name)
        assert importlib.util.find_spec(f"shufflenet_jax.{name}") is None
    assert set(seen) <= set(dir(shufflenet_jax))
    with pytest.raises(AttributeError, match="No shufflenet_jax attribute shuflenet"):
        shufflenet_jax.shuflenet  # noqa: B018
