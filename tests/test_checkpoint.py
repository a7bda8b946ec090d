"""Checkpoints: what goes in comes out, or it is refused."""

import dataclasses
import logging
import re
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shufflenet_jax import InputError, checkpoint
from shufflenet_jax.checkpoint import Checkpoints, read_weights
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import State


def state(step):
    params = {"layer": {"kernel": jnp.full((64, 64), float(step)), "bias": jnp.arange(4.0)}}
    opt_state = Recipe().make_optimizer(100).init(params)
    return State(jnp.int32(step), params, {"mean": jnp.full(3, 0.1 * step)}, opt_state)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def save(directory, *steps):
    checkpoints = Checkpoints(directory)
    for step in steps:
        checkpoints.save(state(step))
    checkpoints.close()


def restore(directory):
    checkpoints = Checkpoints(directory)
    restored = checkpoints.restore(like=state(0))
    checkpoints.close()
    return restored.state


def test_the_newest_is_restored_and_old_ones_go(tmp_path):
    save(tmp_path, 1, 2, 3)
    assert_same(restore(tmp_path), state(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "sha256"]
    assert sorted(path.name for path in (tmp_path / "sha256").iterdir()) == ["2.json", "3.json"]


def test_metrics_are_kept_exactly(tmp_path):
    rows = [{"step": 1, "split": "train", "loss": 0.1 + 0.2, "skipped": 3}]
    window = [{"loss": float(np.float32(1) / 3)}, {"loss": 1e-30}]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1), rows, window)
    checkpoints.close()
    restored = Checkpoints(tmp_path).restore(like=state(0))
    assert restored.rows == rows
    assert restored.window == window


def test_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path).restore(like=state(0)) is None


def test_a_saved_state_may_be_overwritten_at_once(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    first = state(1)
    checkpoints.save(first)
    donated = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(first)
    jax.block_until_ready(donated)
    checkpoints.close()
    assert_same(restore(tmp_path), state(1))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lambda path: path.unlink()])
def test_damage_to_any_file_falls_back_to_the_one_before(tmp_path, damage, caplog):
    save(tmp_path / "intact", 1, 2)
    files = sorted(path for path in (tmp_path / "intact" / "2").rglob("*") if path.is_file())
    assert len(files) > 3
    for index, file in enumerate(files):
        copy = shutil.copytree(tmp_path / "intact", tmp_path / f"copy{index}")
        damage(copy / file.relative_to(tmp_path / "intact"))
        with caplog.at_level(logging.WARNING):
            assert_same(restore(copy), state(1))
        assert "checkpoint of step 2" in caplog.text
        # What was damaged is gone, and its step can be saved again.
        save(copy, 2)
        assert_same(restore(copy), state(2))


def test_a_checkpoint_is_sealed_before_the_next(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    deadline = time.monotonic() + 60
    while not (tmp_path / "sha256" / "1.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    checkpoints.close()


def test_a_damaged_checkpoint_is_set_aside_and_an_unfinished_one_is_not(tmp_path, caplog):
    save(tmp_path, 1, 2)
    flip_a_bit(tmp_path / "2" / "_CHECKPOINT_METADATA")
    (tmp_path / "sha256" / "1.json").unlink()
    # What processes that were killed left behind.
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "sha256" / ".3.json.k2j3h4g5").write_text("{")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(like=state(0)) is None
    assert caplog.messages[-1] == "no checkpoint is left; starting from the beginning"
    checkpoints.save(state(2))
    checkpoints.close()
    assert {path.name for path in tmp_path.iterdir()} == {"2", "damaged", "sha256"}
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == ["2"]
    flip_a_bit(tmp_path / "2" / "_CHECKPOINT_METADATA")  # once more at the same step
    assert Checkpoints(tmp_path).restore(like=state(0)) is None


@pytest.mark.parametrize("content", ["", '{"_CHECKPOINT', "[1]", "7", "\0" * 20])
def test_a_torn_seal_is_damage(tmp_path, content, caplog):
    save(tmp_path, 1, 2)
    (tmp_path / "sha256" / "2.json").write_text(content)
    assert_same(restore(tmp_path), state(1))
    assert "checkpoint of step 2 has a damaged seal" in caplog.text


def test_an_unfinished_checkpoint_is_not_trusted(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "sha256" / "2.json").unlink()
    assert_same(restore(tmp_path), state(1))


OTHERS = [
    (
        {"layer": {"kernel": jnp.zeros((64, 32))}},
        "layer.kernel",
        "float32[64,64]",
        "float32[64,32]",
    ),
    ({"layer": {"bias": jnp.arange(4)}}, "layer.bias", "float32[4]", "int32[4]"),
    ({"layer": {"bias": None}}, "layer.bias", "float32[4]", "unknown"),
    ({"new": jnp.zeros(())}, "new", "missing", "float32[]"),
]


def other_state(changes):
    params = state(0).params
    for name, value in changes.items():
        params[name] = params.get(name, {}) | value if isinstance(value, dict) else value
    return State(
        jnp.int32(0), params, state(0).batch_stats, Recipe().make_optimizer(100).init(params)
    )


@pytest.mark.parametrize(("changes", "name", "there", "here"), OTHERS)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, changes, name, there, here):
    """Which of the arrays that differ is named does not matter."""
    save(tmp_path, 1)
    checkpoints, other = Checkpoints(tmp_path), other_state(changes)
    with pytest.raises(InputError) as caught:
        checkpoints.restore(like=other)
    checkpoints.close()
    assert re.fullmatch(
        rf".*/1 is of another network, or of another version of the code: \S*{name} is "
        rf"{re.escape(there)}, and {re.escape(here)} here",
        str(caught.value),
    )
    with pytest.raises(InputError, match=rf"/1 is of another network.*: params.{name} is "):
        read_weights(tmp_path, {"params": other.params})
    assert_same(restore(tmp_path), state(1))


def files(directory):
    """Everything below a directory, and when it was last changed."""
    return {path: path.lstat().st_mtime_ns for path in [directory, *directory.rglob("*")]}


def weights(step):
    return {"params": state(step).params, "batch_stats": state(step).batch_stats}


def test_weights_are_read_whatever_the_optimizer_was(tmp_path):
    params = state(1).params
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(
        State(jnp.int32(1), params, state(1).batch_stats, optax.adam(0.1).init(params))
    )
    checkpoints.close()
    step, found = read_weights(tmp_path, weights(0))
    assert step == 1
    assert_same(found, weights(1))


def test_weights_are_read_past_what_is_damaged_or_unfinished_and_nothing_is_touched(
    tmp_path, caplog
):
    checkpoints = Checkpoints(tmp_path, keep=4)
    for step in (1, 2, 3, 4):
        checkpoints.save(state(step))
    checkpoints.close()
    flip_a_bit(tmp_path / "3" / "_CHECKPOINT_METADATA")
    (tmp_path / "sha256" / "4.json").unlink()
    (tmp_path / "5.orbax-checkpoint-tmp").mkdir()
    before = files(tmp_path)
    step, found = read_weights(tmp_path, weights(0))
    assert step == 2
    assert_same(found, weights(2))
    assert files(tmp_path) == before
    # What is not finished may be being saved at this moment.
    assert caplog.messages == [
        "checkpoint of step 3 is damaged in _CHECKPOINT_METADATA; taking the one before"
    ]


def test_weights_of_a_run_that_removes_them_meanwhile(tmp_path, monkeypatch):
    """Between the look at its seal and the reading, a checkpoint makes room for a newer one."""
    save(tmp_path, 1)

    def damage_of(directory, step):
        found = damage(directory, step)
        if step == 1:
            save(tmp_path, 2, 3, 4)
            assert not (tmp_path / "1").exists()
        return found

    damage = checkpoint._damage
    monkeypatch.setattr(checkpoint, "_damage", damage_of)
    step, found = read_weights(tmp_path, weights(0))
    assert step == 4
    assert_same(found, weights(4))


def test_no_weights(tmp_path):
    for directory in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=f"{directory} holds no checkpoint that is intact"):
            read_weights(directory, weights(0))
    assert not (tmp_path / "missing").exists()


def test_every_field_is_saved():
    assert {field.name for field in dataclasses.fields(State)} == {
        "step", "params", "batch_stats", "opt_state", "average"
    }  # fmt: skip
