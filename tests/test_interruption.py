"""When the processes of a run ask each other whether to end, and that they end together."""

import threading

import jax
import numpy as np
import pytest

from shufflenet_jax import interruption
from shufflenet_jax.interruption import SECONDS, Interruption


class Processes:
    """Several in one, each a thread; what is a question to all of them waits for all."""

    def __init__(self, monkeypatch, count):
        self._barrier = threading.Barrier(count)
        self._told = [None] * count
        self._own = threading.local()
        self.questions = 0
        monkeypatch.setattr(jax, "process_count", lambda: count)
        monkeypatch.setattr(interruption, "gather", self._gather)

    def _gather(self, numbers):
        self._told[self._own.index] = numbers
        self._barrier.wait(timeout=10)
        found = np.array(self._told, np.int32)
        if self._barrier.wait(timeout=10) == 0:
            self.questions += 1
        return found

    def run(self, *bodies):
        """What each returns."""
        results = [None] * len(bodies)

        def work(index):
            self._own.index = index
            results[index] = bodies[index]()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def process(calls, seconds_a_call, asked_at=None):
    """Calls until it is told to end; returns at which, and how many seconds that took."""

    def body():
        now = 0.0

        def asked():
            return call == asked_at  # once only: a signal is not sent again

        ends = Interruption(asked, clock=lambda: now)
        for call in range(1, calls + 1):
            now += seconds_a_call(call)
            if ends():
                return call, now
        return None, now

    return body


@pytest.mark.parametrize("asked_at", [1, 2, 3, 50, 777])
@pytest.mark.parametrize("who", [0, 1])
def test_all_end_at_one_call_soon_after_one_was_asked(monkeypatch, asked_at, who):
    """The clocks differ: the lead's decides. It is asked for within about two intervals."""
    processes = Processes(monkeypatch, 2)
    bodies = [
        process(2000, lambda _, s=seconds: s, asked_at if index == who else None)
        for index, seconds in enumerate((0.1, 3.0))
    ]
    (call, _), (other, _) = processes.run(*bodies)
    assert call == other
    assert asked_at <= call <= asked_at + SECONDS / 0.1 + 1


def test_questions_are_few_and_seconds_apart(monkeypatch):
    processes = Processes(monkeypatch, 2)
    body = process(10_000, lambda _: 0.01)
    assert processes.run(body, body) == [(None, pytest.approx(100))] * 2
    assert 100 / SECONDS <= processes.questions < 100 / SECONDS + 15


def test_slow_calls_are_asked_about_each(monkeypatch):
    processes = Processes(monkeypatch, 2)
    processes.run(*[process(20, lambda _: 2 * SECONDS)] * 2)
    assert processes.questions == 20


def test_a_call_that_compiles_does_not_decide_the_pace(monkeypatch):
    """Nor one that is fast because the devices are behind: it grows step by step."""
    processes = Processes(monkeypatch, 2)
    processes.run(*[process(1000, lambda call: 100.0 if call == 2 else 0.001)] * 2)
    assert 8 <= processes.questions < 20


def test_a_single_process_is_asked_at_every_call():
    answers = iter([False] * 4 + [True, False])
    ends = Interruption(lambda: next(answers))
    assert [ends() for _ in range(6)] == [False] * 4 + [True, True]
