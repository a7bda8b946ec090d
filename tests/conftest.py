"""Strict numerics for every test: shapes are checked, nothing is promoted, warnings are errors."""

import functools
import json
import os

# Before JAX is imported, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What tests compile runs for less time than it takes to optimise: XLA's own passes are as ever,
# LLVM's are few. No test compares bits with any that were recorded under other flags.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # One of several processes keeps to its share of the cores, and so does what it starts.
    cores = sorted(os.sched_getaffinity(0))
    index, count = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cores[index % count :: count] or cores)

from jaxtyping import install_import_hook

install_import_hook("shufflenet_jax", "beartype.beartype")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from experiments.sweep import build  # noqa: E402
from shufflenet_jax import zoo  # noqa: E402

pytest_plugins = ["drills", "slurm_cluster"]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# XLA compiles each new shape, which takes longer than hypothesis expects of an example. The same
# examples each time: a test that fails does so because something was changed.
hypothesis.settings.register_profile("jax", deadline=None, max_examples=8, derandomize=True)
hypothesis.settings.load_profile("jax")


def pytest_collection_modifyitems(items):
    """What a cluster does is a drill too, which "not slow and not faults" leaves out."""
    for item in items:
        if item.get_closest_marker("ray") or item.get_closest_marker("slurm"):
            item.add_marker("faults")


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


@pytest.fixture(scope="session", autouse=True)
def counted_once():
    """What sweeps and reports count of one network is counted once, whatever tests ask for it."""
    measure = build.measure

    @functools.cache
    def known(values, num_classes):
        return measure(json.loads(values), num_classes)

    def measure_once(values, num_classes):
        if values["network.name"] not in zoo.BUILT_IN:  # one name may be of several networks
            return measure(values, num_classes)
        return dict(known(json.dumps(values, sort_keys=True), num_classes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "measure", measure_once)
        yield


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
