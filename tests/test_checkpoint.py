"""Checkpoints: what goes in comes out, or it is refused."""

import dataclasses
import logging
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.checkpoint import Checkpoints
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import State


def state(step):
    params = {"layer": {"kernel": jnp.full((64, 64), float(step)), "bias": jnp.arange(4.0)}}
    opt_state = Recipe().optimizer(100).init(params)
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


def test_every_field_is_saved():
    assert {field.name for field in dataclasses.fields(State)} == {
        "step", "params", "batch_stats", "opt_state"
    }  # fmt: skip
