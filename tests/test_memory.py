"""What a training step takes of the memory of a device, and what is said where there is less."""

import re

import jax
import pytest
from test_train import RECIPE, Linear, small, train

from shufflenet_jax import InputError, memory
from shufflenet_jax.devices import ONE_DEVICE
from shufflenet_jax.memory import bytes_needed, bytes_of, compile_to_fit
from shufflenet_jax.train import create_state, make_train_step


def step_of(network):
    optimizer = RECIPE.make_optimizer(10)
    graphdef, state = create_state(network, optimizer)
    return make_train_step(graphdef, optimizer, 0.0), state


def test_a_step_is_said_to_need_what_its_arguments_and_its_activations_take():
    step, state = step_of(small())
    few, many = (
        bytes_needed(step.lower(state, ONE_DEVICE.describe(count, (16, 16, 3))).compile())
        for count in (64, 256)
    )
    stem = 4 * 8 * 8 * 4  # bytes of an image's first map
    assert few > sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 64 * (16 * 16 * 3 + stem)
    assert 3 < many / few < 5


def test_a_run_that_does_not_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "bytes_of", lambda device: 1000)
    expected = re.escape(
        "which has 0.0: set recipe.accumulate=2 or more, recipe.precision=bfloat16, "
        "recipe.recompute=true, or use more devices"
    )
    with pytest.raises(InputError, match=expected):
        train(tmp_path, RECIPE, network=Linear())
    assert not (tmp_path / "metrics.jsonl").read_bytes()


def test_what_stays_on_the_devices_counts(monkeypatch):
    step, state = step_of(Linear())
    batch = ONE_DEVICE.describe(64, (16, 16, 3))
    needed = bytes_needed(step.lower(state, batch).compile())
    monkeypatch.setattr(memory, "bytes_of", lambda device: needed + 100)
    compile_to_fit(step, state, batch, RECIPE, held=100)
    with pytest.raises(InputError, match=r"needs .* GB on each device"):
        compile_to_fit(step, state, batch, RECIPE, held=101)


def test_what_xla_refuses_is_said_in_a_line(monkeypatch):
    """As it does where a program is known to be too large before it runs."""
    step, state = step_of(Linear())

    def refuse(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of\nmemory")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    with pytest.raises(InputError, match="a training step does not fit into memory: set "):
        compile_to_fit(step, state, ONE_DEVICE.describe(64, (16, 16, 3)), RECIPE)


def test_a_run_compiles_its_step_once(tmp_path, caplog):
    """Whole batches, also after a checkpoint."""
    with jax.log_compiles():
        train(tmp_path, RECIPE, network=Linear())
    compiled = [
        text for text in caplog.messages if "Finished XLA compilation of jit(train_step)" in text
    ]
    assert len(compiled) == 1


def test_this_machine_has_memory():
    (device, *_) = jax.devices()
    assert 1e8 < bytes_of(device) < 1e14
