"""One run on many devices, simulated and in several processes, against one device."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import differences, last_step

from shufflenet_jax import InputError, data
from shufflenet_jax.data import Preprocessing, Share
from shufflenet_jax.metrics import read_metrics
from shufflenet_jax.recipe import Recipe

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).with_name("many_devices.py")
FORMS = ("matmul", "direct")
SHIFT = Preprocessing(image_size=16, crop="shift", lighting=0.0, eval_resize=1.0)


def start(*arguments, devices=1, **options):
    """A process of a number of devices, which are parts of this machine's processor.

    Its programs are not optimised: it takes much longer to compile them than to run them.
    """
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **options)


def training_batches(**options):
    """A bit more than an epoch of 42."""
    train = data.load("digits").train
    return data.train_batches(train, SHIFT, batch_size=32, seed=1, steps=46, **options)


@pytest.fixture(scope="module")
def whole_batches():
    return list(training_batches())


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("start_step", [0, 5])
def test_shares_of_training_batches_are_the_whole_ones(whole_batches, count, start_step):
    shares = [
        training_batches(start_step=start_step, share=Share(index, count)) for index in range(count)
    ]
    assert_equal_batches(shares, whole_batches[start_step:])


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [64, 448, 500])
def test_shares_of_an_evaluation_hold_every_image_once(count, batch_size):
    """Of the last batch of 449 images, some shares are empty; all have as many batches."""
    test = data.load("digits").test
    whole = list(data.eval_batches(test, SHIFT, batch_size=batch_size))
    shares = [
        data.eval_batches(test, SHIFT, batch_size=batch_size, share=Share(index, count))
        for index in range(count)
    ]
    assert_equal_batches(shares, whole)
    assert sum(batch.mask.sum() for batch in whole) == 449


def assert_equal_batches(shares, whole):
    parts = list(zip(*shares, strict=True))
    assert len(parts) == len(whole)
    for part, batch in zip(parts, whole, strict=True):
        leaves_of_parts = zip(*map(jax.tree.leaves, part), strict=True)
        for leaves, expected in zip(leaves_of_parts, jax.tree.leaves(batch), strict=True):
            np.testing.assert_array_equal(np.concatenate(leaves), expected)


def test_shares_that_are_not_equal_are_refused():
    with pytest.raises(InputError, match="batch size 32 does not divide into 3 parts"):
        next(data.eval_batches([], SHIFT, batch_size=32, share=Share(0, 3)))


def test_unknown_batch_norm_is_refused():
    with pytest.raises(
        InputError, match="batch_norm must be global, device or a number of images, not 'local'"
    ):
        Recipe(batch_norm="local")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    outs = {form: tmp_path_factory.mktemp("devices") / f"{form}.npz" for form in FORMS}
    processes = [start("compare", out, form, devices=8) for form, out in outs.items()]
    assert [process.wait() for process in processes] == [0, 0]
    return {name: array for out in outs.values() for name, array in np.load(out).items()}


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused(found):
    assert found["refusal"] == "batch size 60 does not divide among 8 devices"


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("form", FORMS)
def test_many_devices_learn_as_one(found, form, count):
    """20 steps; then the gradients and running statistics of one, also where images are masked."""

    def pair(name):
        return found[f"{name}_{form}_{count}"], found[f"{name}_{form}_1"]

    losses, expected = pair("losses")
    assert len(losses) == 20
    assert expected[0] - expected.min() > 0.1
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for name in ("params", "stats", "masked_loss", "masked_params"):
        np.testing.assert_allclose(*pair(name), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_micro_batches_and_groups_that_do_not_fit_are_refused(found):
    first, second, third = found["refusals"]
    assert first.startswith("batch size 64 does not divide among 8 devices in 16 micro-batches")
    assert second.startswith("batch normalisation over 12 images does not go with 8 devices that")
    assert "compute 4 each at a time" in third


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize(
    ("form", "name"),
    [
        *(
            ("matmul", name)
            for name in ("groups", "accumulated", "accumulated_groups", "averaged_anew")
        ),
        ("direct", "groups"),
    ],
)
def test_groups_and_micro_batches_are_those_of_one_device(found, form, name, count):
    for what in ("losses", "params", "stats"):
        one, many = (found[f"{name}_{what}_{form}_{each}"] for each in (1, count))
        np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-5)
    assert np.abs(one - found[f"stats_{form}_1"]).max() > 1e-3


@pytest.mark.slow
def test_bfloat16_is_rounded_alike_on_many_devices(found):
    one, many, wide = (
        found[f"{name}"] for name in ("bfloat16_losses_1", "bfloat16_losses_8", "losses_matmul_1")
    )
    np.testing.assert_allclose(many, one, rtol=3e-3)
    np.testing.assert_allclose(one, wide[:2], rtol=1e-2)
    assert (one != wide[:2]).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_per_device_is_the_mean_of_separate_steps(found, form):
    for name in ("stats", "params"):
        own = found[f"own_{name}_{form}"]
        by_hand = found[f"own_{name}_{form}_by_hand"]
        np.testing.assert_allclose(own, by_hand, rtol=1e-5, atol=1e-5)
        assert np.abs(own - found[f"{name}_{form}_1"]).max() > 1e-3


@pytest.mark.slow
def test_many_devices_evaluate_as_one(found):
    one, many = found["evaluation_1"], found["evaluation_8"]
    np.testing.assert_array_equal(many[[0, 1, 3]], one[[0, 1, 3]])
    assert many[2] == pytest.approx(one[2], rel=1e-5)
    assert many[3] == 16 + 5


@pytest.mark.slow
def test_images_that_stay_on_many_devices_are_those_of_one(found):
    """Bit by bit, where each device gathers its own share of a batch."""
    for name in ("image", "label", "mask"):
        one, many = found[f"resident_{name}_1"], found[f"resident_{name}_8"]
        np.testing.assert_array_equal(many, one)
        assert len(one) == 10 + 29


@pytest.mark.slow
def test_colours_on_many_devices_are_those_of_one(found):
    """Bit by bit, where each device recolours its own share of a batch."""
    one, many = found["streamed_image_1"], found["streamed_image_8"]
    np.testing.assert_array_equal(many, one)
    assert len(one) == 4


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def two_processes(directory):
    address = f"localhost:{free_port()}"
    return [start("run", directory, address, 2, index) for index in range(2)]


@pytest.mark.slow
def test_two_processes_end_at_one_step_when_one_is_asked_to(tmp_path):
    address = f"localhost:{free_port()}"
    options = {"stdout": subprocess.PIPE, "text": True}
    processes = [start("interrupt", tmp_path, address, 2, index, **options) for index in range(2)]
    said = [each.communicate(timeout=300)[0].splitlines()[-1] for each in processes]
    assert [each.returncode for each in processes] == [0, 0]
    assert said[0] == said[1]
    step, questions = map(int, said[0].split())
    assert 30 <= step <= 2 * 30
    assert 3 <= questions <= 8
    assert last_step(tmp_path) == step
    assert read_metrics(tmp_path)[-1]["step"] == step


@pytest.mark.faults
def test_two_processes_learn_as_one_and_resume_in_the_same_bits(tmp_path):
    """Over gloo; one of the two is killed between checkpoints."""
    assert start("run", tmp_path / "one").wait() == 0
    assert [each.wait() for each in two_processes(tmp_path / "two")] == [0, 0]
    processes = two_processes(tmp_path / "killed")
    while not list((tmp_path / "killed" / "checkpoints").glob("sha256/*.json")):
        assert processes[0].poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    assert all(each.wait(timeout=120) != 0 for each in processes)
    assert [each.wait() for each in two_processes(tmp_path / "killed")] == [0, 0]
    assert differences(tmp_path / "killed", tmp_path / "two") == []
    rows = [read_metrics(tmp_path / name) for name in ("one", "two")]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    # Later, what rounding makes of sums in another order has grown from step to step.
    for one, two in zip(*(each[:10] for each in rows), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
