"""Class folders of one's own, from the first command to labels: real runs of real commands."""

import json
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image
from sklearn.datasets import load_digits

from experiments.__main__ import main
from experiments.sweep import build
from experiments.sweep.settings import default_settings
from experiments.trained.source import locate, open_network
from shufflenet_jax import InputError, finetuning, hub, shufflenet, zoo
from shufflenet_jax.data import Batch, Preprocessing, load
from shufflenet_jax.evaluation import make_evaluate
from shufflenet_jax.finetuning import head_of
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import create_state, make_train_step, split

NAMES = ("zero", "één", "two")
SMALL = (
    "--budget=digits",
    "--config.network.width=0.25",
    "--config.network.repeats=1,1,1",
    "--config.recipe.batch_size=32",
    "--config.recipe.preprocessing.image_size=16",
    "--config.intervals.log=2",
)


def folders(root, labels=(0, 1, 2)):
    """Digits as images of one's own, in class folders."""
    digits = load_digits()
    for label in labels:
        images = digits.images[digits.target == label]
        for split_name, some in (("train", images[:80]), ("val", images[80:120])):
            place = root / split_name / NAMES[label]
            place.mkdir(parents=True)
            for number, image in enumerate(some):
                scaled = Image.fromarray((image * 255 / 16).astype(np.uint8))
                scaled.resize((20, 20)).save(place / f"{number}.png")
    return root


def run(*arguments):
    return main([str(each) for each in arguments])


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("own") / "pets")


@pytest.fixture(scope="module")
def trained(pets):
    """The directory of a sweep of one run."""
    place = pets.parent / "run"
    data = f"--config.data.name=folder:{pets}"
    assert run("train", "shufflenet_g3_0.25x", data, "--workdir", place, *SMALL) == 0
    return place


def test_it_is_a_run_like_any_other(pets, trained, capsys):
    """It has a status, and the same command finds it done."""
    capsys.readouterr()
    assert run("status", "--workdir", trained, "--json") == 0
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert "done" in json.dumps(cell)
    data = f"--config.data.name=folder:{pets}"
    assert run("train", "shufflenet_g3_0.25x", data, "--workdir", trained, *SMALL) == 0
    assert "0 to train" in capsys.readouterr().out


def test_it_learns_and_is_evaluated_class_by_class(pets, trained, capsys):
    capsys.readouterr()
    assert run("evaluate", trained, "--data", f"folder:{pets}", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (result,) = trained.glob("cells/*/seed0/result.json")
    assert found["top1_error"] == json.loads(result.read_text())["top1_error"]
    confusion = np.array(found["confusion"])
    # Labels are in the order of the folders' names, as are the rows.
    assert [row["class"] for row in found["classes"]] == sorted(NAMES)
    assert confusion.sum() == found["examples"] == 120
    assert np.trace(confusion) / 1.2 == pytest.approx(found["top1_accuracy"])
    assert found["top1_accuracy"] > 90
    for number, row in enumerate(found["classes"]):
        assert row["images"] == 40
        assert row["recall"] == pytest.approx(100 * confusion[number, number] / 40)
        taken = confusion[:, number].sum()
        assert row["precision"] == pytest.approx(100 * confusion[number, number] / taken)
    assert run("evaluate", trained, "--data", f"folder:{pets}") == 0
    text = capsys.readouterr().out
    assert "120 images of folder:pets: top-1 error" in text
    assert "| één " in text


def test_a_row_of_the_confusion_is_a_class_and_a_column_what_it_is_taken_for(
    pets, trained, capsys, tmp_path
):
    """Ten images of one class are put among those of another."""
    wrong = shutil.copytree(pets, tmp_path / "wrong")
    for number in range(10):
        image = wrong / "val" / NAMES[1] / f"{number}.png"
        image.rename(wrong / "val" / NAMES[2] / f"other{number}.png")
    capsys.readouterr()
    assert run("evaluate", trained, "--data", f"folder:{wrong}", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    places = {row["class"]: number for number, row in enumerate(found["classes"])}
    moved = found["confusion"][places[NAMES[2]]][places[NAMES[1]]]
    assert 9 <= moved <= 11
    assert found["confusion"][places[NAMES[1]]][places[NAMES[2]]] <= 2
    assert [row["images"] for row in found["classes"]] == [50, 40, 30]
    assert run("evaluate", trained, "--data", f"folder:{wrong}") == 0
    assert f"Mistaken most often: two for één: {moved}" in capsys.readouterr().out


def test_the_confusion_is_plotted(pets, trained, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install -e '.[plot]'")
    picture = tmp_path / "confusion.png"
    assert run("evaluate", trained, "--data", f"folder:{pets}", "--plot", picture) == 0
    with Image.open(picture) as opened:
        assert min(opened.size) > 300


def test_images_get_labels(pets, trained, capsys, tmp_path):
    one, two = (pets / "val" / name / "3.png" for name in NAMES[1:])
    assert run("predict", trained, one, two, "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["image"], second["image"]) == (str(one), str(two))
    assert (first["top5"][0]["label"], second["top5"][0]["label"]) == NAMES[1:]
    probabilities = [each["probability"] for each in first["top5"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert run("predict", trained, one) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(one)
    assert lines[1].endswith("één")
    assert "%" in lines[1]


def test_whole_folders_and_broken_images(pets, trained, capsys, tmp_path):
    """What cannot be read is named and passed over; the others are classified; exit status 1."""
    for number in range(40):
        image = pets / "val" / NAMES[2] / f"{number}.png"
        (tmp_path / f"{number:02}.png").write_bytes(image.read_bytes())
    (tmp_path / "20.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("left alone")
    assert run("predict", trained, tmp_path, "--json") == 1
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert [Path(row["image"]).name for row in rows] == [f"{n:02}.png" for n in range(40)]
    assert "20.png" in rows[20]["error"]
    assert rows[21]["top5"]
    assert err.count("\n") == 1
    assert "error: cannot read image" in err
    assert run("predict", trained, tmp_path / "none.png") == 2
    assert "there is no image" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("predict", trained, tmp_path / "empty") == 2


def test_a_run_is_exported_with_its_numbers(pets, trained, capsys, tmp_path):
    """And what is exported classifies; nothing in it names a place of this machine."""
    place = tmp_path / "saved"
    assert run("export", trained, "--to", "hub", "--out", place) == 0
    (result,) = trained.glob("cells/*/seed0/result.json")
    error = json.loads(result.read_text())["top1_error"]
    card = (place / "README.md").read_text()
    assert "On the 120 test images of folder:pets, measured once" in card
    assert f"top-1 error {error:.2f}%" in card
    assert str(tmp_path.parent) not in card + (place / "config.json").read_text()
    capsys.readouterr()
    image = pets / "val" / NAMES[0] / "0.png"
    said = []
    for each in (trained, place):
        assert run("predict", each, image, "--json") == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1]


def test_mistakes_are_named(pets, trained, capsys, tmp_path):
    for arguments, message in (
        (("predict", tmp_path, pets), "holds no network"),
        (("evaluate", tmp_path, "--data", "digits"), "holds no network"),
        (("evaluate", trained, "--data", "digits"), "has the class '0', which the network does"),
        (("evaluate", trained, "--data", f"folder:{tmp_path}"), "has no folder train"),
        (("train", "shufflenet_g3_0.2x"), "unknown network 'shufflenet_g3_0.2x'; did you mean"),
        (("train", "mobilenet_v2", "--init", trained), "holds a shufflenet, and mobilenet_v2 is a"),
    ):
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def weights(place):
    return hub.weights_of(open_network(place).network)


def test_fine_tuning_of_a_frozen_backbone(trained, tmp_path, capsys):
    """On other classes: a new head, and not a bit of the rest changes, statistics included."""
    own = folders(tmp_path / "two", labels=(2, 0))
    place = tmp_path / "run"
    arguments = (
        *("train", "shufflenet", f"--config.data.name=folder:{own}", "--init", trained),
        *("--workdir", place, "--budget=digits", "--config.recipe.batch_size=32"),
        *("--config.recipe.backbone_rate=0", "--config.recipe.epochs=5"),
        "--config.recipe.learning_rate=0.1",
    )
    assert run(*arguments) == 0
    before, after = weights(trained), weights(place)
    for name in before:
        if name.startswith("classifier"):
            assert before[name].shape != after[name].shape
        else:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    tuned = open_network(place)
    assert tuned.class_names == ("two", "zero")
    assert tuned.preprocessing.image_size == 16
    assert tuned.provenance["result"]["top1_error"] < 20
    assert str(tmp_path) not in json.dumps(tuned.provenance)
    # What it started from is part of what it is.
    saved = tmp_path / "other"
    hub.save(open_network(place), saved)
    capsys.readouterr()
    assert run(*[saved if each == trained else each for each in arguments]) == 2
    assert "holds results of another configuration (init.sha256" in capsys.readouterr().err


def test_other_weights_than_were_planned_are_not_started_from(pets, trained):
    values = {"init.dir": str(locate(trained)), "init.sha256": 64 * "0"}
    config = json.loads((locate(trained) / "config.json").read_text())
    with pytest.raises(InputError, match="holds other weights than those that the sweep was"):
        build.build({**default_settings(), **config, **values}, 0, load(f"folder:{pets}"))


def a_network():
    return shufflenet(
        width=0.25, num_classes=10, repeats=(1, 1, 1), stem=zoo.Stem(2, False), rngs=nnx.Rngs(0)
    )


def test_a_backbone_at_a_lower_rate(tmp_path):
    """Its first step is as much shorter as the rate is lower; the head's is the same."""
    moved = {}
    for rate in (1.0, 0.5):
        recipe = Recipe(epochs=1, batch_size=2, learning_rate=0.1, backbone_rate=rate)
        network = a_network()
        _, params, _ = split(network)
        optimizer = recipe.make_optimizer(10, head_of(network))
        grads = jax.tree.map(jax.numpy.ones_like, params)

        @jax.jit
        def first_step(params, grads, optimizer=optimizer):
            return optimizer.update(grads, optimizer.init(params), params)[0]

        moved[rate] = first_step(params, grads)
    whole, half = (
        {jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree.leaves_with_path(each)}
        for each in moved.values()
    )
    for name in whole:
        expected = whole[name] if "classifier" in name else whole[name] / 2
        np.testing.assert_allclose(half[name], expected, rtol=1e-6, err_msg=name)


def test_pixels_are_normalised_as_the_preprocessing_says():
    """In training and in evaluation: here to [0, 2], and not by ImageNet's statistics."""
    own = Preprocessing(image_size=16, pixel_mean=(0.0, 0.0, 0.0), pixel_std=(0.5, 0.5, 0.5))
    network = a_network()
    shape = network.classifier.kernel.shape
    network.classifier.kernel[...] = jax.random.normal(jax.random.key(0), shape)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    batch = Batch(pixels, np.arange(4, dtype=np.int32), np.ones(4, bool))
    optimizer = optax.sgd(0.1)
    graphdef, state = create_state(network, optimizer)

    @partial(jax.jit, static_argnames="train")
    def loss_of(images, train):
        given = nnx.merge(graphdef, state.params, state.batch_stats, copy=True)
        logits = given(images, train=train)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.label).mean()

    images = pixels.astype(np.float32) / 255 / 0.5
    in_evaluation, in_training = (float(loss_of(images, train=train)) for train in (False, True))
    answers = make_evaluate(graphdef, preprocessing=own)(state, [batch])
    assert answers.evaluation().loss == pytest.approx(in_evaluation, rel=1e-5)
    _, metrics = make_train_step(graphdef, optimizer, 0.0, preprocessing=own)(state, batch)
    assert float(metrics["loss"]) == pytest.approx(in_training, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "heads"),
    [("squeezenet", 1), ("lenet5", 1), pytest.param("googlenet", 3, marks=pytest.mark.slow)],
)
def test_heads_of_other_networks(name, heads):
    marks = jax.tree.leaves_with_path(head_of(zoo.build(name, {}, num_classes=3)))
    places = {jax.tree_util.keystr(path[:-1]) for path, is_head in marks if is_head}
    assert len(places) == heads


def test_a_network_without_a_head_is_refused():
    class Bare(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Param(jax.numpy.ones((3, 2)))

    with pytest.raises(InputError, match="its backbone is not known"):
        finetuning.head_of(Bare())
