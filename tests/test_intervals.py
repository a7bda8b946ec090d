"""At which steps a run evaluates and saves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unchecked import unchecked

from shufflenet_jax import InputError
from shufflenet_jax.intervals import Intervals, Timetable
from shufflenet_jax.recipe import Recipe


def timetable(num_examples, batch_size, epochs, intervals):
    total = Recipe(epochs=epochs, batch_size=batch_size).steps(num_examples)
    return Timetable(intervals, num_examples, batch_size, total)


def steps(is_due, total):
    return [step for step in range(total + 1) if is_due(step)]


@given(
    num_examples=st.integers(1, 50),
    batch_size=st.integers(1, 120),
    epochs=st.integers(1, 12),
    every=st.integers(1, 5),
)
def test_each_epoch_ends_where_its_last_image_is_seen(num_examples, batch_size, epochs, every):
    """Also where a batch is larger than an epoch, or than several."""
    table = timetable(num_examples, batch_size, epochs, Intervals(evaluate=every))
    ends = {math.ceil(e * num_examples / batch_size) for e in range(every, epochs + 1, every)}
    expected = {step for step in ends if step < table.total} | {table.total}
    assert steps(table.evaluates, table.total) == sorted(expected)


def test_no_epoch_is_evaluated_or_saved_twice():
    digits = timetable(1348, 32, 10, Intervals(evaluate=5, checkpoint=1))
    assert digits.total == 421
    assert steps(digits.evaluates, 421) == [211, 421]
    assert len(steps(digits.saves, 421)) == 10
    imagenet = timetable(1_281_167, 1024, 240, Intervals(evaluate=10, checkpoint=1))
    assert imagenet.total == 300_273
    # Every epoch of the last ten, after the evaluation of the 230th.
    last = range(287_762, imagenet.total + 1)
    assert [step for step in last if imagenet.evaluates(step)] == [287_763, 300_273]
    saved = [step for step in last if imagenet.saves(step)]
    assert (len(saved), saved[-2:]) == (11, [299_023, 300_273])


def test_batches_that_divide_epochs():
    assert steps(timetable(100, 25, 3, Intervals(evaluate=1)).evaluates, 12) == [4, 8, 12]


def test_the_last_step_of_a_shortened_run_is_evaluated():
    """Of 5 epochs, every second is evaluated, and the end."""
    assert steps(timetable(100, 25, 5, Intervals(evaluate=2)).evaluates, 20) == [8, 16, 20]


def test_rows_end_before_checkpoints():
    table = timetable(10, 2, 3, Intervals(log=4, checkpoint=1))
    assert steps(table.logs, 15)[1:] == [4, 5, 8, 10, 12, 15]


@pytest.mark.parametrize("field", ["log", "evaluate", "checkpoint"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None, float("nan")])
def test_impossible_intervals_are_refused(field, value):
    with pytest.raises(
        InputError, match=f"{field} must be an integer of at least 1, not {value!r}"
    ):
        unchecked(Intervals, **{field: value})
