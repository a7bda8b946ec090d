"""Sweeps of one's own: a file, a grid, and networks that this library does not have."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from sweeps import SHRUNK

from experiments.__main__ import main
from experiments.sweep import manifest
from experiments.sweep.grid import grid
from experiments.tables import user_file
from shufflenet_jax import InputError, load_trained, zoo

NETWORK = '''
from flax import nnx
from shufflenet_jax import Unit
from shufflenet_jax.layers import ConvNorm


class Pooled(Unit):
    """Half of the channels through a convolution of a size that can be configured."""

    def __init__(self, in_channels, out_channels, stride, *, size=3, rngs):
        self.conv = ConvNorm(in_channels, out_channels, size, stride=stride, rngs=rngs)

    def forward(self, x, *, train):
        return self.conv(x, train=train)


class Bare(nnx.Module):
    """A network without any of the attributes that ours have."""

    def __init__(self, *, num_classes, hidden=4, rngs):
        self.first = nnx.Linear(3, hidden, rngs=rngs)
        self.second = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, images, *, train=False):
        return self.second(nnx.relu(self.first(images.mean((1, 2)))))


NETWORKS = {"pooled": Pooled, "bare": Bare}
'''

EXPERIMENT = '''"""Kernels of two sizes.

More is said here.
"""
from experiments.sweep.claim import Claim
from experiments.sweep.grid import grid

DIFFERENCE = ("size=1", "size=3")
CLAIMS = (Claim("3x3 beats 1x1.", ({"size=1": 1.0, "size=3": -1.0},)),)
REMARKS = ("Nothing is as in the paper.",)


def get_config(name="digits"):
    from experiments.sweep.budgets import budget
    from experiments.sweep.configuration import assign

    config = budget(name)
    assign(config, {"network.name": "pooled", "network.channels": (4, 8, 8)})
    return config


def sweep():
    return grid({"network.size": (1, 3)})
'''


def forget():
    """Makes the networks of files unknown again."""
    for name in zoo.FAMILIES.keys() - zoo.BUILT_IN:
        del zoo.FAMILIES[name]
    for name in [name for name in sys.modules if name.startswith("user_file_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def known_networks():
    """Networks that a test makes known are forgotten."""
    yield
    forget()


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(EXPERIMENT + NETWORK)
    return path


def test_a_file_is_an_experiment(mine):
    loaded = user_file.load(mine)
    assert (loaded.name, loaded.title) == ("mine.py", "Kernels of two sizes.")
    assert loaded.description == "More is said here."
    assert [cell.name for cell in loaded.cells] == ["size=1", "size=3"]
    assert [claim.text for claim in loaded.claims] == ["3x3 beats 1x1."]
    assert loaded.difference == ("size=1", "size=3")
    assert not loaded.is_of_the_paper


def test_a_file_needs_nothing_but_cells(tmp_path):
    path = tmp_path / "bare.py"
    path.write_text(
        "from experiments.sweep.experiment import Cell\n"
        "def sweep(): yield Cell('a', 'row', 'column', {'recipe.epochs': 2})\n"
    )
    loaded = user_file.load(path)
    assert loaded.title == "bare.py"
    assert loaded.get_config("cifar10").recipe.epochs == 20
    assert (loaded.claims, loaded.remarks, loaded.difference) == ((), (), None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", r"mine\.py:1: SyntaxError"),
        ("\nimport nowhere", r"mine\.py:2: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1", r"mine\.py has no function sweep\(\)"),
        ("def sweep(): return 1/0", r"mine\.py:1: ZeroDivisionError"),
        ("def sweep(): return []", "returns no cells"),
        ("def sweep(): return [1]", "must return cells"),
        ("NETWORKS = 3", "NETWORKS must be a dictionary"),
        ("NETWORKS = {'vgg16': int}", "vgg16"),
        ("from experiments.sweep.grid import grid\nsweep = lambda: grid({})", "needs an axis"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(text, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(text)
    assert main(["run", "./mine.py"]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert re.search(said, printed.err), printed.err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["mine.py"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('DIFFERENCE = ("size=1", "size=3")', "DIFFERENCE = ('size=1', 'x')"), "two of the"),
        (('{"size=1": 1.0', '{"size=9": 1.0'), "a claim is about size=9"),
    ],
)
def test_what_a_file_says_of_its_cells_must_fit(change, said, mine):
    mine.write_text(mine.read_text().replace(*change))
    with pytest.raises(InputError, match=said):
        user_file.load(mine)


@pytest.mark.slow
def test_from_a_new_unit_to_its_table_and_out_again(mine, capsys, monkeypatch):
    """Trained by real processes; the report of it knows nothing of the file."""
    monkeypatch.chdir(mine.parent)
    shrunk = [each for each in SHRUNK if "repeats" not in each]
    shrunk.append("--config.network.repeats=1,1,1")
    assert main(["run", "./mine.py", *shrunk]) == 0
    printed = capsys.readouterr().out
    forget()
    monkeypatch.setattr(user_file, "load", None)
    assert main(["report", "--workdir", "runs/mine"]) == 0
    report = capsys.readouterr().out.strip()
    assert report
    assert report in printed
    for said in ("## Kernels of two sizes.", "Nothing is as in the paper.", "3x3 beats 1x1."):
        assert said in report
    assert "paper's" not in report.replace("the paper.", "")
    sweep = manifest.open_sweep(Path("runs/mine"))
    (attempt,) = sweep.run(sweep.cell("size=3"), 0).attempts
    assert attempt["networks"]["name"] == "mine.py"
    mentioned = (sweep.directory / "sweep.json").read_text()
    assert str(mine) not in mentioned
    directory = sweep.run(sweep.cell("size=3"), 0).directory
    with pytest.raises(InputError, match="pooled"):
        load_trained(directory)
    user_file.load_networks(mine)
    trained = load_trained(directory)
    assert trained.class_names == tuple("0123456789")
    assert trained.network(jnp.zeros((2, 16, 16, 3))).shape == (2, 10)


def test_a_network_without_our_attributes_is_counted(mine, tmp_path, capsys):
    arguments = ["--networks", str(mine), "--workdir", str(tmp_path / "grid")]
    command = ["run", "grid", "--sweep.network.name=bare,shufflenet", *arguments]
    assert main([*command, "--dry-run", "--cells", "name=bare"]) == 0
    assert f"--networks {mine}" in capsys.readouterr().out
    mine.write_text(mine.read_text().replace("images.mean((1, 2))", "images"))
    forget()
    assert main([*command, "--dry-run", "--cells", "name=bare"]) == 2
    assert "network bare returns (2, 24, 24, 10) for 2 images" in capsys.readouterr().err


def test_a_grid_has_every_combination():
    cells = grid({"network.groups": (1, 2), "network.width": (0.5, 1.0), "recipe.epochs": (3, 4)})
    assert [cell.name for cell in cells[:3]] == [
        "groups=1,width=0.5,epochs=3",
        "groups=1,width=0.5,epochs=4",
        "groups=1,width=1,epochs=3",
    ]
    assert len({cell.name for cell in cells}) == len(cells) == 8
    assert (cells[3].row, cells[3].column) == ("groups=1, width=1", "epochs=4")
    assert cells[3].overrides == {
        "network.groups": 1,
        "network.width": 1.0,
        "recipe.epochs": 4,
    }
    assert {cell.paper_error for cell in cells} == {None}


def test_axes_of_one_name_are_told_apart():
    (cell,) = grid({"network.name": ("vgg16",), "data.name": ("folder:/a b",)})
    assert cell.name == "network.name=vgg16,data.name=folder__a_b"


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ([], "needs an axis"),
        (["--sweep.network.groops=1"], "did you mean network.groups"),
        (["--sweep.network.groups=1,x"], "must be an integer, not 'x'"),
        (["--sweep.network.groups=1,1"], "called groups=1"),
        (["--sweep.network.groups=1", "--sweep.network.groups=2"], "is there twice"),
        (["--sweep.data.workers=1,2"], "changes no result"),
        (["--sweep.network.groups=1,2", "--config.network.groups=3"], "is set by each cell"),
        (["--sweep.network.groups"], "--sweep.network.groups=VALUE"),
        (["--sweep.recipe.epochs=1,0"], "epochs=0: epochs must be an integer of at least 1"),
        (
            ["--sweep.network.groups=3,7"],
            "groups=7: network shufflenet: 272 channels",
        ),
    ],
)
def test_a_mistake_in_a_grid_is_one_line(axes, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "grid", *axes]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert said in printed
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_valid_can_be_left_out(tmp_path, capsys):
    axes = ["--sweep.network.repeats=1,1,1;2,2,2", "--sweep.network.groups=3,7"]
    command = ["run", "grid", *axes, "--workdir", str(tmp_path / "grid"), "--dry-run"]
    assert main([*command, "--skip-invalid"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("is left out") == 2
    assert "2 runs in" in printed.out
    for name in ("repeats=1-1-1,groups=3-seed0", "repeats=2-2-2,groups=3-seed0"):
        assert f"\n{name}  missing  " in printed.out
    assert list(tmp_path.iterdir()) == []


def test_families_with_other_keys_may_be_swept_together(tmp_path, capsys):
    axes = ["--sweep.network.name=mobilenet_v1,shufflenet", "--sweep.network.width=0.25,0.5"]
    command = ["run", "grid", *axes, "--workdir", str(tmp_path), "--dry-run"]
    assert main(command) == 0
    assert "name=mobilenet_v1,width=0.25-seed0" in capsys.readouterr().out


@pytest.mark.slow
def test_a_grid_is_frozen_with_all_that_a_report_needs(tmp_path):
    """Nothing is built or counted for it again."""
    command = ["run", "grid", "--sweep.network.groups=3,8", "--config.network.repeats=1,1,1"]
    code = (
        "import sys; from experiments.__main__ import main; "
        "from experiments.sweep import launch; launch.launch = lambda *_: None; "
        f"main({[*command, '--workdir', str(tmp_path)]!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    manifest = json.loads((tmp_path / "sweep.json").read_text())
    assert manifest["title"] == "A grid over network.groups"
    assert manifest["data"]["digits"]["classes"] == 10
    cell = manifest["cells"]["groups=8"]
    assert cell["network"]["widths"] == [24, 384, 768, 1536]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "experiments", "report", "--workdir", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    row = next(line for line in done.stdout.splitlines() if line.startswith("| groups=8"))
    assert f"{cell['network']['params']:,}" in row
    assert "experiments.tables" not in done.stderr


def test_unknown_files_and_names(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("./nowhere.py", "there is no file"),
        ("tabel3", "did you mean table3"),
        ("runs/", "there is no file"),
    ):
        assert main(["run", name]) == 2
        assert said in capsys.readouterr().err
    assert main(["run", "table3", "--sweep.network.groups=1,2"]) == 2
    assert "is for run grid" in capsys.readouterr().err


def on_a_cluster(mine, launcher):
    """Its cells, trained by an engine that has a queue of its own."""
    directory = mine.parent / "sweep"
    shrunk = [each for each in SHRUNK if "repeats" not in each]
    options = ["--config.network.repeats=1,1,1", "--launcher", launcher, "--cells", "size=3"]
    assert main(["run", str(mine), "--workdir", str(directory), *shrunk, *options]) == 0
    sweep = manifest.open_sweep(directory)
    assert sweep.run(sweep.cell("size=3"), 0).result["status"] == "done"


@pytest.mark.ray
def test_a_file_of_ones_own_on_ray(mine):
    pytest.importorskip("ray")
    on_a_cluster(mine, "ray")


@pytest.mark.slurm
def test_a_file_of_ones_own_on_slurm(mine, slurm_cluster):
    on_a_cluster(mine, "slurm")
