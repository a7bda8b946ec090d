"""The lock: one owner at a time, and a dead one gives way."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments.sweep import lock
from experiments.sweep.lock import Held, hold, is_held


def test_only_one_holds_it_and_it_is_given_back(tmp_path):
    path = tmp_path / "lock"
    with hold(path):
        assert is_held(path)
        with pytest.raises(Held), hold(path):
            pass
        assert is_held(path)
    assert not is_held(path)
    with hold(path):
        pass
    assert list(tmp_path.iterdir()) == []


def hold_forever(path):
    code = f"import sys, time; from experiments.sweep.lock import hold\nwith hold(__import__('pathlib').Path({str(path)!r})):\n print('held', flush=True); time.sleep(60)"  # noqa: E501
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_killed_owner_gives_way_and_a_live_one_does_not(tmp_path):
    path = tmp_path / "lock"
    process = hold_forever(path)
    with process.stdout:
        with pytest.raises(Held), hold(path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_an_owner_on_another_host_is_judged_by_its_heartbeat(tmp_path):
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "t"}))
    with pytest.raises(Held), hold(path):
        pass
    long_ago = time.time() - lock.STALE_SECONDS - 1
    os.utime(path, (long_ago, long_ago))
    with hold(path):
        assert is_held(path)


@pytest.mark.parametrize(
    "wrong", [{"token": "/../../other"}, {"pid": 0}, {"pid": -1}, {"pid": 1e9}]
)
def test_an_owner_that_cannot_be_one_is_judged_by_its_heartbeat(wrong, tmp_path):
    path = tmp_path / "run" / "lock"
    path.parent.mkdir()
    with hold(path):
        owner = json.loads(path.read_text())
    path.write_text(json.dumps(owner | wrong))
    assert is_held(path)
    long_ago = time.time() - lock.STALE_SECONDS - 1
    os.utime(path, (long_ago, long_ago))
    assert not is_held(path)
    with hold(path):
        pass
    assert list(tmp_path.rglob("*")) == [path.parent]


def test_a_process_that_got_the_number_of_a_dead_owner_is_not_the_owner(tmp_path):
    path = tmp_path / "lock"
    with hold(path):
        owner = json.loads(path.read_text())
    path.write_text(json.dumps(owner | {"began": "1"}))
    assert not is_held(path)
    path.write_text(json.dumps(owner))
    assert is_held(path)
    path.write_text(json.dumps(owner | {"machine": "another container"}))
    assert is_held(path)  # of which nothing is known but the heartbeat
    long_ago = time.time() - lock.STALE_SECONDS - 1
    os.utime(path, (long_ago, long_ago))
    assert not is_held(path)


def test_an_owner_that_has_ended_but_was_not_waited_for_gives_way(tmp_path):
    path = tmp_path / "lock"
    process = hold_forever(path)
    with process.stdout:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
        with hold(path):
            assert lock.owner(path).endswith(f":{os.getpid()}")
        process.wait()


def test_a_lock_that_was_lost_in_a_crash_is_held_until_it_is_stale(tmp_path):
    path = tmp_path / "lock"
    path.write_text("")
    with pytest.raises(Held), hold(path):
        pass
    long_ago = time.time() - lock.STALE_SECONDS - 1
    os.utime(path, (long_ago, long_ago))
    with hold(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_owner_whose_lock_was_taken_over_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    path, lost = tmp_path / "lock", threading.Event()
    with hold(path, on_loss=lost.set):
        taken = json.dumps({"host": "elsewhere", "pid": 1, "token": "t"})
        path.write_text(taken)
        assert lost.wait(10)
    assert path.read_text() == taken  # it is not the loser's to remove


def test_what_killed_contenders_left_is_swept_up(tmp_path):
    left, recent = tmp_path / ".lock.1", tmp_path / ".lock.2"
    left.touch()
    recent.touch()
    long_ago = time.time() - lock.STALE_SECONDS - 1
    os.utime(left, (long_ago, long_ago))
    with hold(tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir()) == [recent]


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    path = tmp_path / "lock"
    with hold(path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def contend(path, counter, barrier):
    """Takes over a dead lock together with others, and counts who is inside."""
    barrier.wait()
    try:
        with hold(path):
            with counter.get_lock():
                counter.value += 1
            barrier.wait()  # nobody leaves before the slowest has come
    except Held:
        barrier.wait()


@pytest.mark.slow
def test_of_many_that_find_a_dead_lock_one_takes_it(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    for attempt in range(3):
        process = hold_forever(path)
        process.kill()
        process.wait()
        process.stdout.close()
        counter, barrier = context.Value("i", 0), context.Barrier(6, timeout=60)
        arguments = (path, counter, barrier)
        contenders = [context.Process(target=contend, args=arguments) for _ in range(6)]
        for each in contenders:
            each.start()
        for each in contenders:
            each.join()
        assert counter.value == 1, attempt
