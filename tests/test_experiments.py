"""Sweeps as a user runs them: real cells in real processes, shrunk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from runs import differences, last_step
from sweeps import SHRUNK, configured, create_sweep, markdown_of, start_cell

from experiments import tables
from experiments.__main__ import main
from experiments.sweep import configuration as configs
from experiments.sweep import manifest
from experiments.sweep.build import network_of
from experiments.sweep.experiment import Experiment, matching
from experiments.sweep.launch import COMMAND_LINE
from experiments.tables import paper, unit_cost
from shufflenet_jax import InputError, Stem, abstract, stage_channels
from shufflenet_jax.zoo import FAMILIES, NETWORKS


def run(directory, *arguments, name="table3"):
    return main(["run", name, "--workdir", str(directory), *arguments])


def reported(directory, capsys):
    capsys.readouterr()
    assert main(["report", "--workdir", str(directory), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def status(directory, capsys):
    capsys.readouterr()
    assert main(["status", "--workdir", str(directory), "--json"]) == 0
    return {
        (cell["name"], cell["seed"]): cell for cell in json.loads(capsys.readouterr().out)["cells"]
    }


# Cells of every experiment that trains, by glob: small ones, and each of another form.
SMALL_CELLS = {
    "table2": "0.25x-g1",  # those of more groups stand in Table 3 too
    "table3": "0.25x-g8*",
    "table4": "resnext_13m",
    "table5": "mobilenet_v1_0.25",
    "table6": "shufflenet_g4_0.5x",  # a classic network learns own images, which are few
}

# The report counts VGG-16 too, which needs so much.
LARGER_IMAGES = {"table6": ("--config.recipe.preprocessing.image_size=32",)}


def test_every_experiment_is_tested():
    loaded = [tables.load(name) for name in tables.names()]
    assert {e.name for e in loaded if isinstance(e, Experiment)} == SMALL_CELLS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_CELLS)
def test_every_experiment_trains(name, tmp_path, capsys):
    """Its smallest cells, shrunk; then the report knows them, and a second run trains nothing."""
    cells = [cell.name for cell in matching(tables.load(name).cells, SMALL_CELLS[name])]
    arguments = ("--cells", SMALL_CELLS[name], *SHRUNK, *LARGER_IMAGES.get(name, ()))
    assert run(tmp_path, *arguments, name=name) == 0
    printed = capsys.readouterr().out
    assert "proves the machinery, not the paper's claims" in printed
    assert f"python -m experiments run {name} --budget paper" in printed
    by_name = {cell["name"]: cell for cell in reported(tmp_path, capsys)["cells"]}
    for cell in tables.load(name).cells:
        found = by_name[cell.name]
        assert found["paper_error"] == cell.paper_error
        assert found["status"] == ("done" if cell.name in cells else "not planned")
        assert found["n"] == len(found["errors"]) == (cell.name in cells)
        assert found["macs"] > found["macs_without_head"] > 0
        if cell.name in NETWORKS:
            assert tuple(found["widths"]) == abstract(NETWORKS[cell.name]).widths
        else:
            width, groups = cell.overrides["network.width"], cell.overrides["network.groups"]
            assert tuple(found["widths"][1:]) == stage_channels(groups, width)
    assert run(tmp_path, *arguments, name=name) == 0
    assert "0 to train" in capsys.readouterr().out
    attempts = {name: cell["attempts"] for (name, _), cell in status(tmp_path, capsys).items()}
    assert attempts == dict.fromkeys(cells, 1)


@pytest.mark.slow
def test_more_seeds_are_added_to_a_sweep(tmp_path, capsys):
    arguments = ("--cells", "0.25x-g3", *SHRUNK)
    assert run(tmp_path, *arguments) == 0
    assert run(tmp_path, *arguments, "--seeds", "2") == 0
    assert "2 runs" in (out := capsys.readouterr().out)
    assert "1 to train" in out
    cell = next(c for c in reported(tmp_path, capsys)["cells"] if c["name"] == "0.25x-g3")
    assert cell["n"] == 2
    assert cell["errors"][0] != cell["errors"][1]
    assert cell["error_mean"] == pytest.approx(np.mean(cell["errors"]))
    assert cell["error_std"] == pytest.approx(np.std(cell["errors"], ddof=1))


@pytest.mark.slow
def test_one_failure_stops_no_other_cell(tmp_path, capsys):
    """A cell that fails is marked, the others are trained, and it is tried again next time."""
    arguments = ("--cells", "0.25x-g8*", *SHRUNK)
    assert run(tmp_path, "--cells", "0.25x-g8", *SHRUNK) == 0
    sweep = manifest.open_sweep(tmp_path)
    broken = sweep.run(sweep.cell("0.25x-g8-noshuffle"), 0)
    broken.directory.mkdir(parents=True)
    obstacle = broken.directory / "checkpoints"
    obstacle.write_text("a file where a folder should be")
    assert run(tmp_path, *arguments) == 1
    states = status(tmp_path, capsys)
    assert states["0.25x-g8", 0]["status"] == "done"
    assert states["0.25x-g8-noshuffle", 0]["status"] == "failed"
    assert "checkpoints" in broken.result["reason"]
    assert main(["report", "--workdir", str(tmp_path)]) == 0
    assert "failed [56.5]" in capsys.readouterr().out
    obstacle.unlink()
    assert run(tmp_path, *arguments) == 0
    assert status(tmp_path, capsys)["0.25x-g8-noshuffle", 0]["attempts"] == 2


@pytest.mark.slow
def test_a_process_that_is_killed_is_a_failure(tmp_path, capsys):
    """As the kernel kills one that takes too much memory."""

    def kill_when_it_starts():
        sweep = None
        while sweep is None or not (attempts := sweep.run(sweep.cell("0.25x-g3"), 0).attempts):
            time.sleep(0.05)
            if (tmp_path / "sweep.json").exists():
                sweep = manifest.open_sweep(tmp_path)
        os.kill(attempts[0]["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_starts)
    killer.start()
    once = "--config.limits.retries=0"
    assert run(tmp_path, "--cells", "0.25x-g3", *SHRUNK, once) == 1
    killer.join()
    assert "the process was killed by signal 9" in capsys.readouterr().out
    assert status(tmp_path, capsys)["0.25x-g3", 0]["status"] == "failed"
    assert run(tmp_path, "--cells", "0.25x-g3", *SHRUNK) == 0


@pytest.mark.slow
def test_divergence_is_a_result(tmp_path, capsys):
    arguments = ("--cells", "0.25x-g3", *SHRUNK, "--config.recipe.learning_rate=1e30")
    assert run(tmp_path, *arguments) == 1
    sweep = manifest.open_sweep(tmp_path)
    result = sweep.run(sweep.cell("0.25x-g3"), 0).result
    assert result["status"] == "diverged"
    assert f"not finite at step {result['step']}" in result["reason"]
    assert run(tmp_path, *arguments) == 1
    cell = status(tmp_path, capsys)["0.25x-g3", 0]
    assert (cell["status"], cell["attempts"]) == ("diverged", 1)  # the same again: not tried
    assert next(c for c in reported(tmp_path, capsys)["cells"] if c["name"] == "0.25x-g3")["n"] == 0


@pytest.mark.slow
def test_kill_and_resume_is_bitwise_equal(tmp_path):
    """SIGKILL after the first checkpoint, and again at random: the same metrics and weights."""
    shrunk = [argument for argument in SHRUNK if "epochs" not in argument]
    directories = [tmp_path / "whole", tmp_path / "killed"]
    for directory in directories:
        assignments = [a.removeprefix("--config.") for a in shrunk]
        create_sweep(directory, *assignments, "recipe.epochs=8", "intervals.checkpoint=1")
    assert start_cell(directories[0]).wait() == 0
    runs = [
        manifest.open_sweep(d).run(manifest.open_sweep(d).cell("0.25x-g3"), 0) for d in directories
    ]
    killed = runs[1].directory
    seals = killed / "checkpoints" / "sha256"
    random = np.random.default_rng(0)
    for after in (1, 2):
        process = start_cell(directories[1])
        while len(list(seals.glob("*.json"))) < after or len(runs[1].attempts) < after:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert runs[1].status == "interrupted"
    assert start_cell(directories[1]).wait() == 0
    assert len(runs[1].attempts) == 3
    whole, resumed = (run.directory for run in runs)
    assert differences(whole, resumed) == []
    assert last_step(whole) == runs[0].result["step"]
    same = {"status", "step", "top1_error", "top5_error", "loss", "examples"}
    assert {k: runs[0].result[k] for k in same} == {k: runs[1].result[k] for k in same}
    # A killed process may have left a hidden file, which nothing reads.
    kept, expected = (set(d.glob("*.json")) for d in (seals, whole / "checkpoints" / "sha256"))
    assert {path.name for path in kept} == {path.name for path in expected}


def folder(path, *, train=("cat", "dog"), val=("cat", "dog"), images=2):
    for split, classes in (("train", train), ("val", val)):
        for name in classes:
            (path / split / name).mkdir(parents=True)
            for index in range(images):
                pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path / split / name / f"{index}.png")
    return path


@pytest.mark.slow
def test_own_images_from_a_folder(tmp_path, capsys):
    own = folder(tmp_path / "pets", images=8)
    options = ("--cells", "squeezenet", *SHRUNK, *LARGER_IMAGES["table6"])
    arguments = (*options, "--config.recipe.batch_size=8", f"--config.data.name=folder:{own}")
    assert run(tmp_path / "run", *arguments, name="table6") == 0
    printed = capsys.readouterr().out
    assert "The paper's claims are about ImageNet, not folder:pets." in printed
    assert "Digits" not in printed
    found = reported(tmp_path / "run", capsys)
    assert found["data"] == "folder:pets"
    cell = next(cell for cell in found["cells"] if cell["name"] == "squeezenet")
    assert cell["errors"][0] in [100 * wrong / 16 for wrong in range(17)]
    # An image that has changed is not trained on: it is named when it is met.
    image = own / "train" / "cat" / "0.png"
    shutil.copy(own / "train" / "cat" / "1.png", image)
    sweep = manifest.open_sweep(tmp_path / "run")
    trained = sweep.run(sweep.cell("squeezenet"), 0)
    trained.reopen()
    shutil.rmtree(trained.directory / "checkpoints")
    assert main(["cell", "squeezenet", "--workdir", str(tmp_path / "run")]) == 1
    assert trained.status == "failed"
    assert "train/cat/0.png" in trained.result["reason"]
    # Once the folder has changed, before anything starts.
    shutil.copy(image, image.with_name("new.png"))
    capsys.readouterr()
    assert run(tmp_path / "run", *arguments, name="table6") == 2
    assert "train/cat/0.png has changed" in capsys.readouterr().err


MISTAKES = {
    "run tabel3": "unknown experiment 'tabel3'; did you mean table3",
    "run table3 --config.recipe.epoch=3": "did you mean recipe.epochs",
    "run table3 --config.recipe.epochs=ten": "must be an integer, not 'ten'",
    "run table3 --config.recipe.learning_rate=fast": "must be a number, not 'fast'",
    "run table3 --config.recipe.preprocessing.flip=maybe": "must be true or false, not 'maybe'",
    "run table3 --config.network.repeats=4,x,4": "must be an integer, not 'x'",
    "run table3 --config.recipe.epochs": "--config.recipe.epochs=VALUE",
    "run table3 --config.recipe.epochs=0": "epochs must be an integer of at least 1",
    "run table3 --config.intervals.log=0": "log must be an integer of at least 1",
    "run table3 --config.recipe.learning_rate=-0.1": "learning_rate must be",
    "run table3 --config.recipe.learning_rate=nan": "learning_rate must be",
    "run table3 --config.recipe.momentum=-1": "momentum must be",
    "run table3 --config.recipe.weight_decay=inf": "weight_decay must be",
    "run table3 --config.recipe.clip_norm=nan": "clip_norm must be",
    "run table3 --config.recipe.preprocessing.scale=0.5": "scale must be 2 values, as 0.49,1.0",
    "run table3 --config.recipe.preprocessing.scale=0.5,1,1": "scale must be 2 values",
    "run table3 --config.recipe.preprocessing.ratio=1,inf": "ratio is (1.0, inf), but must be",
    "run table3 --config.recipe.preprocessing.eval_resize=inf": "eval_resize is inf, but must be",
    "run table3 --config.network.repeats=0,8,4": "repeats",
    "run table3 --config.network.repeats=-1,8,4": "repeats",
    "run table3 --config.network.repeats=0,0,0": "repeats",
    "run table3 --config.network.repeats=4,8": "repeats",
    "run table6 --config.recipe.preprocessing.image_size=24": "at least 32x32, not 24x24",
    "run table3 --config.data.workers=-2": "data.workers must be at least 0, or -1 to be chosen",
    "run table3 --config.data.memory_gb=nan": "data.memory_gb must be at least 0",
    "run table3 --config.data.broken_budget=nan": "broken_budget is nan",
    "run table3 --config.data.dir=None": "data.dir must be a text, not None: leave it empty",
    "run table3 --config.data.dir={tmp}/file": "{tmp}/file is not a folder",
    "run table3 --config.data.name=folder:~nobodyatall/x": "write out the path",
    "run table3 --config.limits.stall_minutes=nan": "limits.stall_minutes must be",
    "run table3 --config.ray.cpus=nan --launcher ray": "ray.cpus must be",
    "cell 1x-g3 --workdir {tmp}/other --seed -1": "must be at least 0, not -1",
    "cell 1x-g3 --workdir {tmp}/other --seed 1": "seed 1 of 1x-g3 was not asked for",
    "run table3 --config.network.groups=7": "272 channels do not divide into 7 groups",
    "run table3 --config.network.groups=4": "choose with --cells",
    "run table2 --config.network.rounding=exact": "25 channels do not divide into 2 groups",
    "run table3 --config.network.name=inception": "unknown network 'inception'; there are shuffle",
    "run table2 --config.network.name=mobilenet_v1": "'network.groups' of mobilenet_v1; did you m",
    "run table2 --config.network.repeats=1,1,1 --config.network.name=mobilenet_v2": "'network.repe",
    "run table3 --config.data.name=cifar10": "python -m experiments prepare cifar10",
    "run table3 --config.data.name=folder:{tmp}/nowhere": "there is no folder {tmp}/nowhere",
    "run table3 --config.data.name=folder:{tmp}/empty": "empty has no folder train",
    "run table3 --config.data.name=folder:{tmp}/pets": "pets/train/dog has no images",
    "run table3 --config.recipe.batch_size=5000": "batch_size 5000 is more than the 1348 images",
    "run table3 --workdir {tmp}/file/below": "cannot write to workdir {tmp}/file/below",
    "run table3 --workdir {tmp}/other": "recipe.epochs: 3, now",
    "run table2 --workdir {tmp}/other": "experiment: 'table3', now 'table2'",
    "run table3 --cells 2x*": "no cell matches '2x*'",
    "run table3 --seeds 0": "must be at least 1",
    "run table3 --budget huge": "unknown budget 'huge'",
    "run table3 --epochs 3": "unknown argument '--epochs'",
    "trian": "invalid choice: 'trian'",
    "run table3 --launcher ray --jobs 2": "ray has a queue of its own",
    "run table3 --config.limits.retries=-1": "limits.retries must be at least 0",
    "run table3 --config.limits.stall_minutes=0": "limits.stall_minutes must be above 0",
    "cell 1x-g3 --workdir {tmp}/other --config.recipe.epochs=5": "recipe.epochs was set when",
    "stop --workdir {tmp}/empty": "empty holds no sweep",
    "cell 2x-g3 --workdir {tmp}/other": "no cell matches '2x-g3'; there are 1x-g3-noshuffle",
    "run table1 --seeds 3": "table1 trains nothing: it takes no other arguments",
    "run unit_cost --config.recipe.epochs=3": "unit_cost trains nothing",
    "status --workdir {tmp}/empty": "empty holds no sweep",
    "report --workdir {tmp}/nowhere": "nowhere holds no sweep",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_line_and_starts_nothing(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for image in (folder(tmp_path / "pets") / "train" / "dog").iterdir():
        image.unlink()
    other = create_sweep(tmp_path / "other", "recipe.epochs=3")
    other.run(other.cell("1x-g3"), 0).directory.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert main(command.format(tmp=tmp_path).split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert MISTAKES[command].format(tmp=tmp_path) in captured.err
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    own = folder(tmp_path / "pets", images=64)
    before = sorted(tmp_path.rglob("*"))
    for options in ([], [f"--config.data.name=folder:{own}"]):
        assert main(["run", "table3", "--dry-run", *options]) == 0
        assert "12 runs in" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_by_hand_finds_the_data_of_its_sweep(tmp_path):
    create_sweep(tmp_path, "data.dir=somewhere", "data.workers=3")
    sweep = manifest.open_sweep(tmp_path)
    values = sweep.values_of(sweep.cell("1x-g3"))
    assert (values["data.dir"], values["data.workers"]) == ("somewhere", 3)
    other = sweep.with_settings(["data.dir=elsewhere"])
    assert other.values_of(sweep.cell("1x-g3"))["data.dir"] == "elsewhere"


def test_a_sweep_without_results_may_change_its_configuration(tmp_path):
    create_sweep(tmp_path, "recipe.epochs=3")
    assert create_sweep(tmp_path, "recipe.epochs=4").base["recipe.epochs"] == 4
    assert manifest.open_sweep(tmp_path).base["recipe.epochs"] == 4


def test_a_mistake_in_a_real_process_exits_with_2():
    command = [sys.executable, "-m", "experiments", "run", "tabel3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_network_brings_its_own_arguments():
    config = configured("network.width=0.5", "network.stem.stride=1", "network.name=mobilenet_v1")
    stem = {"stride": 1, "max_pool": False}  # of the budget, but for the stride
    assert config.network.to_dict() == {
        "name": "mobilenet_v1",
        "init": "ours",
        "width": 0.5,
        "stem": stem,
    }
    assert network_of(configs.identity(config), num_classes=10).widths[:2] == (16, 32)
    # The name comes first, wherever it stands.
    configs.override(config, ["network.mflops=38", "network.name=resnet"])
    assert config.network.to_dict() == {
        "name": "resnet",
        "init": "ours",
        "mflops": 38,
        "repeats": (4, 8, 4),
        "stem": stem,
    }
    with pytest.raises(InputError, match=r"'network\.groups' of resnet; did you mean network\."):
        configs.assign(config, {"network.groups": 3})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_configured_as_its_constructor_builds_it(name):
    # Budgets set the stem, of the families that have one.
    stem = ["network.stem.max_pool=true"] if "stem" in FAMILIES[name].arguments else []
    values = configs.identity(configured(f"network.name={name}", *stem))
    built = network_of(values, num_classes=1000)
    assert not stem or built.stem.stride == Stem().stride
    assert nnx.state(built) == nnx.state(abstract(FAMILIES[name].constructor))


def test_another_network_outlives_its_process(tmp_path):
    assignments = ("network.name=mobilenet_v1", "network.width=0.25")
    created = create_sweep(tmp_path, *assignments, name="table5")
    opened = manifest.open_sweep(tmp_path)
    assert (opened.base, opened.settings) == (created.base, created.settings)
    values = [{n: e.values for n, e in sweep.entries.items()} for sweep in (opened, created)]
    assert values[0] == values[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table4", "table5", "table6"])
def test_a_cell_is_the_network_of_its_name(name):
    chosen = tables.load(name)
    for cell in chosen.cells:
        config = configs.with_values(chosen.get_config("paper"), cell.overrides)
        built = network_of(configs.identity(config), num_classes=1000)
        assert nnx.state(built) == nnx.state(abstract(NETWORKS[cell.name])), cell.name


def test_an_entry_that_the_paper_lacks_is_a_dash(tmp_path):
    text = markdown_of(create_sweep(tmp_path, "network.repeats=1,1,1", name="table5"))
    (row,) = (line for line in text.splitlines() if line.startswith("| 0.75 MobileNet"))
    entries = [entry.strip() for entry in row.split("|")[2:-1]]
    assert entries == ["missing [31.6]", "missing [28.5]", "-", "-", "[3.1]"]


@pytest.mark.slow
def test_table_1_is_the_papers(capsys):
    assert main(["run", "table1"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[2:-1] for line in printed.splitlines() if "[" in line]
    entries = [entry.strip(" ]").split(" [") for row in rows for entry in row]
    pairs = [entry for entry in entries if len(entry) == 2]
    assert len(pairs) == 4 * 6 + 5
    for ours, papers in pairs:
        assert ours == papers or abs(float(ours) - int(papers)) <= 0.5


def test_units_cost_what_section_3_2_says():
    found = list(unit_cost.costs())
    assert len(found) == 60
    assert [cost for cost in found if cost.counted != cost.formula] == []


def test_list_names_every_cell(capsys):
    assert main(["list", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert len(listed["table2"]["cells"]) == 15
    assert len(listed["table3"]["cells"]) == 12
    assert "0.25x-g8-noshuffle" in listed["table3"]["cells"]
    assert len(listed["table4"]["cells"]) == 13
    assert len(listed["table5"]["cells"]) == 10
    for each in listed.values():
        assert bool(each["claims"]) == bool(each["cells"])
    assert listed["table1"]["cells"] == []
    assert main(["list"]) == 0
    assert "none, it trains nothing" in capsys.readouterr().out


@pytest.mark.slow
def test_complexity_lists_every_network():
    # In a process whose shapes are not checked, which would take twice as long.
    command = [*COMMAND_LINE, "complexity", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = {each["name"]: each for each in json.loads(done.stdout)}
    assert listed["shufflenet_g8_0.25x"]["paper_mflops"] == 13
    assert listed["shufflenet_g3_1x"] == listed["shufflenet_g3_1x_noshuffle"] | {
        "name": "shufflenet_g3_1x"
    }
    one = listed["shufflenet_g3_2x"]
    assert one["input"] == [224, 224, 3]
    assert abs(one["macs"] / 1e6 - one["paper_mflops"]) < 0.5
    assert listed.keys() == NETWORKS.keys()
    assert listed["mobilenet_v1_0.75"]["paper_mflops"] == 325
    assert listed["resnext_13m"]["paper_mflops"] == 13
    assert listed["vgg_like_38m"]["paper_mflops"] is None


def test_papers_deltas():
    """The transcription against the gains that the paper states in its text and tables."""
    deltas = [round(e["off"] - e["on"], 1) for e in paper.TABLE3_ERRORS.values()]
    assert deltas == [1.9, 5.2, 2.5, 5.8, 1.3, 3.8]
    for mflops, (width, groups) in paper.TABLE4_SHUFFLENETS.items():
        errors = paper.TABLE2_ERRORS[width]
        assert paper.TABLE4_ERRORS[mflops]["shufflenet"] == errors[groups]
        assert paper.TABLE4_ERRORS[mflops]["xception_like"] == errors[1]
    gains = [round(e[1] - min(e.values()), 1) for e in paper.TABLE2_ERRORS.values()]
    assert gains == [1.2, 3.5, 4.4]
