"""Networks out of the directories of runs: what was trained, to the bit, and nothing touched."""

import json
import shutil
import time

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from shufflenet_jax import InputError, PlainUnit, Stem, load_trained, zoo
from shufflenet_jax.checkpoint import Checkpoints
from shufflenet_jax.data import Preprocessing, eval_batches, load
from shufflenet_jax.evaluation import make_evaluate
from shufflenet_jax.fit import Intervals, fit
from shufflenet_jax.metrics import read_metrics
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import create_state, normalise
from shufflenet_jax.trained import describe

TINY = Preprocessing(image_size=16, crop="shift", flip=False, color=0.0, lighting=0.0)
RECIPE = Recipe(epochs=2, batch_size=64, learning_rate=0.1, preprocessing=TINY)
ARGUMENTS = {
    "channels": (8,),
    "conv1_channels": 4,
    "repeats": (1,),
    "stem": Stem(stride=2, max_pool=False),
}
# As a file system may have them: not in ASCII, with bytes that are no UTF-8, and any in JSON.
NAMES = ("null", "één", "\udcff\udc80", "三", "\N{OWL}", 'f"ive', "s\\ix", "se\nven", "\x00", "")


@pytest.fixture(scope="module")
def found_meanwhile():
    """What was loaded while the run went on."""
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory, found_meanwhile):
    """A run of a network of one's own, and its evaluation."""
    directory = tmp_path_factory.mktemp("run")
    describe(directory, name="mine", arguments=ARGUMENTS, preprocessing=TINY, class_names=NAMES)

    def look(progress):
        while progress.step == 30 and not list(directory.glob("checkpoints/sha256/*.json")):
            time.sleep(0.01)  # that of step 22 is written beside the steps
        if list(directory.glob("checkpoints/sha256/*.json")):
            found_meanwhile.append((progress.step, load_trained(directory, PlainUnit)))

    evaluation = fit(
        zoo.family_of(PlainUnit).build(ARGUMENTS, num_classes=10, rngs=nnx.Rngs(0)),
        load("digits"),
        RECIPE,
        seed=0,
        directory=directory,
        intervals=Intervals(log=10, evaluate=1, checkpoint=1),
        on_progress=look,
    )
    return directory, evaluation


def evaluation_of(network):
    graphdef, state = create_state(network, optax.identity())
    batches = eval_batches(load("digits").test, TINY, batch_size=RECIPE.batch_size)
    return make_evaluate(graphdef)(state, batches).evaluation()


def assert_equal_weights(network, state):
    _, params, batch_stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    for found, expected in ((params, state.params), (batch_stats, state.batch_stats)):
        jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(found), expected)


def last_state(directory):
    """By the way that training itself takes; of a copy, as that may change it."""
    network = zoo.family_of(PlainUnit).build(ARGUMENTS, num_classes=10, rngs=nnx.Rngs(1))
    graphdef, state = create_state(network, RECIPE.make_optimizer(42))
    checkpoints = Checkpoints(directory / "checkpoints")
    restored = checkpoints.restore(state)
    checkpoints.close()
    return graphdef, restored.state


def files(directory):
    return {path: path.lstat().st_mtime_ns for path in [directory, *directory.rglob("*")]}


def test_a_trained_network_has_the_recorded_error_exactly(run, tmp_path):
    directory, evaluation = run
    before = files(directory)
    trained = load_trained(directory, PlainUnit)
    assert files(directory) == before
    assert evaluation_of(trained.network) == evaluation
    recorded = read_metrics(directory)[-1]
    assert (recorded["step"], recorded["top1_error"]) == (42, evaluation.top1_error)
    assert evaluation.top1_error < 80
    assert (trained.step, trained.preprocessing, trained.class_names) == (42, TINY, NAMES)
    graphdef, state = last_state(shutil.copytree(directory, tmp_path / "copy"))
    assert_equal_weights(trained.network, state)
    at_the_end = nnx.merge(graphdef, state.params, state.batch_stats)
    images = normalise(next(eval_batches(load("digits").test, TINY, batch_size=8)).image)
    np.testing.assert_array_equal(trained.network(images), at_the_end(images))


def test_of_a_damaged_checkpoint_the_one_before_is_taken(run, tmp_path, caplog):
    directory = shutil.copytree(run[0], tmp_path / "copy")
    (largest,) = sorted(directory.glob("checkpoints/42/state/d/*"), key=lambda p: p.stat().st_size)[
        -1:
    ]
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    before = files(directory)
    trained = load_trained(directory, PlainUnit)
    assert files(directory) == before
    assert trained.step == 22
    assert "checkpoint of step 42 is damaged in state/d/" in caplog.text
    at_22 = [row for row in read_metrics(directory) if (row["step"], row["split"]) == (22, "test")]
    assert [evaluation_of(trained.network).loss] == [row["loss"] for row in at_22]
    assert at_22[0]["loss"] != run[1].loss
    _, state = last_state(directory)
    assert_equal_weights(trained.network, state)


def test_a_run_that_goes_on_can_be_loaded_from(run, found_meanwhile):
    assert [step for step, _ in found_meanwhile] == [30, 40, 42]
    assert {trained.step for _, trained in found_meanwhile} == {22}


def test_a_registered_network_needs_no_constructor(run, monkeypatch):
    monkeypatch.setitem(zoo.FAMILIES, "mine", zoo.family_of(PlainUnit))
    trained = load_trained(str(run[0]))
    assert (trained.name, trained.step) == ("mine", 42)
    rebuilt = zoo.build("mine", trained.arguments, num_classes=10)
    assert nnx.graphdef(rebuilt) == nnx.graphdef(trained.network)


def changed(run, tmp_path, changes):
    directory = shutil.copytree(run[0], tmp_path / "changed")
    path = directory / "network.json"
    described = json.loads(path.read_text())
    for key, value in changes.items():
        if isinstance(value, dict):
            described[key] |= value
        else:
            described[key] = value
    path.write_text(json.dumps(described))
    return directory


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {"channels": [12]}}, "checkpoints/42 is of another network, or of another"),
        ({"arguments": {"repeats": [2]}}, "checkpoints/42 is of another network, or of another"),
        ({"arguments": {"depth": 3}}, "network.json: unknown argument 'depth'"),
        ({"num_classes": 9}, "network.json has 9 classes and the names of 10"),
        ({"preprocessing": {"image_size": 0}}, "network.json: image_size is 0"),
        ({"preprocessing": {"sharpen": 0}}, "network.json is of another version of the code"),
        ({"preprocessing": 3}, "network.json is of another version of the code"),
        ({"class_names": None}, "network.json is of another version of the code"),
    ],
)
def test_what_does_not_fit_is_refused(run, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        load_trained(changed(run, tmp_path, changes), PlainUnit)
    assert "\n" not in str(caught.value)


def test_an_unknown_network_is_refused(run):
    with pytest.raises(InputError, match=r"network.json: unknown network 'mine'.*constructor"):
        load_trained(run[0])


@pytest.mark.parametrize("content", [None, "", "\x00\x00", "[1]", "7", '{"family": "lenet5"}'])
def test_a_directory_of_no_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "network.json").write_text(content)
    with pytest.raises(InputError, match=f"{tmp_path}/network.json ") as caught:
        load_trained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    describe(tmp_path, name="lenet5", arguments={}, preprocessing=TINY, class_names=NAMES)
    before = files(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}/checkpoints holds no checkpoint"):
        load_trained(tmp_path)
    assert files(tmp_path) == before


def test_arguments_that_json_has_not_are_refused(tmp_path):
    with pytest.raises(InputError, match="network mine: an argument cannot be written down"):
        describe(
            tmp_path,
            name="mine",
            arguments={"unit": PlainUnit},
            preprocessing=TINY,
            class_names=NAMES,
        )
    assert not list(tmp_path.iterdir())
