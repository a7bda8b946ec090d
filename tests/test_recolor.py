"""Colours that change on the devices: PIL's pixels, and nothing that depends on who computes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from test_broken import BROKEN, write_pets
from test_resident import assert_equal_batches, inputs

from shufflenet_jax import data
from shufflenet_jax.data.colors import Colors, draw_colors, unchanged
from shufflenet_jax.inputs import Streamed
from shufflenet_jax.recolor import recolored

PREPROCESSING = data.Preprocessing(image_size=24)

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def by_pil(pixels, order, factor, light):
    """One image, as images were augmented before there was a program for it."""
    image = Image.fromarray(pixels)
    for which, by in zip(order, factor, strict=True):
        image = ENHANCERS[which](image).enhance(float(by))
    return (np.asarray(image, np.int16) + light.astype(np.int16)).clip(0, 255).astype(np.uint8)


def smooth(count, height, width, seed=0):
    """Images with flat and with saturated parts."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        images.append(small.resize((width, height), Image.Resampling.BICUBIC))
    return np.stack([np.asarray(image) for image in images])


def drawn(count, color=0.4, lighting=0.1, seed=0):
    random = np.random.default_rng(seed)
    each = [draw_colors(color, lighting, random) for _ in range(count)]
    return Colors(*map(np.stack, zip(*each, strict=True)))


@given(seed=st.integers(0, 2**16), color=st.sampled_from([0.1, 0.4, 1.0]))
def test_pixels_are_those_of_pil_bit_by_bit(seed, color):
    images, colors = smooth(32, 20, 28, seed), drawn(32, color, 0.3, seed)
    expected = [by_pil(*each) for each in zip(images, *colors, strict=True)]
    np.testing.assert_array_equal(jax.jit(recolored)(images, colors), expected)


def test_every_order_and_every_level():
    """All levels of each channel, and each of the six orders; noise, whose mean is a half."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.stack([levels, levels.T, levels[::-1]], axis=-1)
    orders = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], np.int32)
    colors = drawn(6)._replace(order=orders)
    expected = [by_pil(image, *each) for each in zip(*colors, strict=True)]
    images = jnp.asarray(np.broadcast_to(image, (6, *image.shape)))
    np.testing.assert_array_equal(recolored(images, colors), expected)
    assert len({pixels.tobytes() for pixels in expected}) == 6


def test_what_is_drawn_is_what_was_drawn_for_pil():
    """From the same random numbers in the same order."""
    random = np.random.default_rng(1)
    colors = draw_colors(0.4, 0.1, np.random.default_rng(1))
    np.testing.assert_array_equal(colors.order, random.permutation(3))
    for factor in colors.factor:
        assert factor == np.float32(random.uniform(0.6, 1.4))
    noise = random.normal(0, 0.1, size=3) * [0.2175, 0.0188, 0.0045]
    red = 255 * (noise @ [-0.5675, 0.7192, 0.4009])
    assert colors.light[0] == round(red)


def test_what_is_unchanged():
    images = jnp.asarray(smooth(4, 8, 8))
    np.testing.assert_array_equal(recolored(images, unchanged(4)), images)


def test_the_mean_of_a_large_image():
    """Whose sum is more than an integer of 32 bits holds."""
    size = 2904
    image = np.full((1, size, size, 3), 255, np.uint8)
    image[:, : size // 2] = 254  # a mean of 254.5, which is rounded up
    colors = unchanged(1)._replace(factor=np.array([[1, 0, 1]], np.float32))
    assert (np.asarray(jax.jit(recolored)(image, colors)) == 255).all()


def test_colours_are_drawn_by_seed_step_and_place_alone(tmp_path):
    """On resume, with any share of a batch, and with broken images among them, which stay."""
    broken, whole = (
        data.load(f"folder:{write_pets(tmp_path / name, which)}")
        for name, which in (("broken", BROKEN), ("whole", {}))
    )
    streamed = inputs(Streamed, broken, tmp_path, PREPROCESSING)
    batches = list(streamed.train(3, 5, 0))
    assert all(batch.colors is None for batch in batches)
    assert_equal_batches(streamed.train(3, 5, 2), batches[2:])
    (made,) = data.train_batches(whole.train, PREPROCESSING, batch_size=16, seed=3, steps=1)
    halves = [
        next(
            data.train_batches(
                whole.train,
                PREPROCESSING,
                batch_size=16,
                seed=3,
                steps=1,
                share=data.Share(index, 2),
            )
        )
        for index in range(2)
    ]
    for whole_one, *leaves in zip(made.colors, *(each.colors for each in halves), strict=True):
        np.testing.assert_array_equal(np.concatenate(leaves), whole_one)
    assert len({factor.tobytes() for factor in made.colors.factor}) == 16
    skipped = 0
    for batch, other in zip(
        batches, inputs(Streamed, whole, tmp_path, PREPROCESSING).train(3, 5, 0), strict=True
    ):
        image, mask = np.asarray(batch.image), batch.mask
        np.testing.assert_array_equal(image[mask], np.asarray(other.image)[mask])
        assert (image[~mask] == data.STAND_IN).all()
        skipped += (~mask).sum()
    assert skipped == 6


@pytest.mark.parametrize("kept", ["color", "lighting"])
def test_what_is_not_asked_for_is_not_done(tmp_path, kept):
    dataset = data.load(f"folder:{write_pets(tmp_path, {})}")
    plain, one = (
        dataclasses.replace(PREPROCESSING, **({"color": 0.0, "lighting": 0.0} | changed))
        for changed in ({}, {kept: 0.2})
    )
    (crops,) = inputs(Streamed, dataset, tmp_path, plain).train(0, 1, 0)
    assert isinstance(crops.image, np.ndarray)  # no program, and no trip to the devices
    (changed,) = inputs(Streamed, dataset, tmp_path, one).train(0, 1, 0)
    difference = np.asarray(changed.image).astype(int) - crops.image
    assert difference.any()
    if kept == "lighting":  # the same for all pixels of an image, where nothing is cut off
        inside = (crops.image > 60) & (crops.image < 195)
        spread = np.where(inside, difference, np.nan)
        assert np.nanmax(np.nanstd(spread, axis=(1, 2))) == 0
