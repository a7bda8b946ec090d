"""GPUs count where JAX would use them, and whoever has some and asks for none is told."""

import os

import pytest

from experiments.launchers import cuda, slurm
from experiments.launchers.engines import ENGINES
from experiments.launchers.local import Local
from experiments.launchers.ray import Ray
from experiments.launchers.slurm import Slurm

CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch):
    """A machine with four; without plugins of JAX that may be installed, and with no wish."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(cuda, "_plugins", lambda: {"xla_tpu"})


@pytest.fixture
def plugin(monkeypatch):
    """JAX with CUDA."""
    monkeypatch.setattr(cuda, "_plugins", lambda: {"xla_cuda13"})


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Makes what a Slurm cluster says of itself; neither its programs nor submitit are needed."""
    (tmp_path / "sbatch").touch(mode=0o755)
    (tmp_path / "submitit.py").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)

    def make(resources):
        said = {"ClusterName": "tests", "GresTypes": resources}
        monkeypatch.setattr(slurm, "_configuration", lambda: said)

    return make


@pytest.mark.parametrize(
    ("platforms", "used"),
    [
        ("", True),
        ("cuda", True),
        ("gpu", True),
        ("cpu,CUDA", True),
        ("cpu", False),
        ("tpu,cpu", False),
    ],
)
def test_jax_uses_them_unless_it_is_told_otherwise(platforms, used, plugin, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert cuda.is_used_by_jax() == used
    assert Local().slots == (4 if used else CORES)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("", []), ("-1", []), ("3", ["3"]), ("1, 0", ["1", "0"]), ("GPU-8,GPU-9", ["GPU-8", "GPU-9"])],
)
def test_only_visible_gpus_are_used(visible, expected, plugin, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda.visible() == expected
    assert Local().slots == (len(expected) or CORES)


def test_a_machine_whose_jax_has_no_cuda_is_used_by_its_cores():
    engine = Local()
    assert engine.slots == CORES
    assert {slot.gpu for slot in engine._free} == {None}
    (note,) = engine.notes()
    assert "'.[cuda]'" in note


@pytest.mark.parametrize("folder", ["jax_plugins/xla_cuda12", "jax_cuda-1.dist-info"])
def test_plugins_are_found_where_jax_finds_them(folder, tmp_path, monkeypatch):
    monkeypatch.undo()
    before = cuda._plugins()
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "__init__.py").touch()
    (tmp_path / folder / "entry_points.txt").write_text("[jax_plugins]\nxla_cuda12 = nowhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert cuda._plugins() == before | {"xla_cuda12"}


def test_who_has_gpus_and_takes_none_is_told(plugin, cluster):
    cluster("(null)")
    assert Local().notes() == []
    assert ["--config.ray.gpus=1" in note for note in Ray().notes()] == [True]
    assert ["--config.slurm.gpus=1" in note for note in Slurm().notes()] == [True]
    assert Ray(gpus=0.5).notes() == Slurm(gpus=1).notes() == []


def test_a_cluster_with_gpus_is_enough(cluster):
    cluster("(null)")
    assert Slurm().notes() == Ray().notes() == []
    cluster("craynetwork,gpu")
    assert ["--config.slurm.gpus=1" in note for note in Slurm().notes()] == [True]
    assert Slurm(gpus=1).notes() == []


def test_who_has_chosen_the_cpu_is_told_nothing(plugin, cluster, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    cluster("gpu")
    assert [engine.notes() for engine in (Local(), Ray(), Slurm())] == [[], [], []]


def test_who_has_none_is_told_nothing(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Local().notes() == []


def test_engines_take_what_can_be_set_of_them(cluster):
    cluster("")
    assert {name: list(kind.defaults) for name, kind in ENGINES.items()} == {
        "local": [],
        "ray": ["address", "cpus", "gpus"],
        "slurm": ["partition", "minutes", "gpus", "cpus", "memory_gb", "nodes", "tasks", "requeue"],
    }
    made = {name: kind.make(kind.defaults) for name, kind in ENGINES.items()}
    assert (made["ray"], made["slurm"]) == (Ray(), Slurm())
    assert ENGINES["ray"].make({"gpus": 2.0}) == Ray(gpus=2.0)
    assert made["local"].slots == CORES
    assert ENGINES["local"].make({}, jobs=7).slots == 7
