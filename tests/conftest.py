"""Strict numerics for every test: shapes are checked, nothing is promoted, warnings are errors."""

import os

# Before JAX is imported, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("shufflenet_jax", "beartype.beartype")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

pytest_plugins = ["drills", "slurm_cluster"]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# XLA compiles each new shape, which takes longer than hypothesis expects of an example.
hypothesis.settings.register_profile("jax", deadline=None, max_examples=8)
hypothesis.settings.load_profile("jax")


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory):
    """One folder for all processes among which pytest-xdist divides the tests."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def data_dir(shared_dir):
    """Prepared data sets live and die with the tests, also those of processes they start."""
    directory = shared_dir / "tfds"
    directory.mkdir(exist_ok=True)
    os.environ["TFDS_DATA_DIR"] = str(directory)
    return directory


@pytest.fixture(scope="session", autouse=True)
def cache_dir(shared_dir, tmp_path_factory):
    """So does what is compiled, here and in processes that tests start, once for all of them."""
    directory = shared_dir / "cache"
    directory.mkdir(exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(directory)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    # To look up what compiles at once takes longer than to compile it.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return directory


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home directory, as containers run processes under any number."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Changes to a folder with modules of the names of this code, and of what it needs."""
    folder = tmp_path / "elsewhere"
    (folder / "experiments").mkdir(parents=True)
    for name in ("experiments/__init__.py", "jax.py"):
        (folder / name).write_text(f"raise SystemExit('imported another {name}')")
    monkeypatch.chdir(folder)
    return folder
