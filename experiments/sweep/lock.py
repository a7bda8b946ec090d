"""A lock that outlives neither its owner nor the file system: a file with a heartbeat.

It works where `flock` does not (network file systems): it needs only that a hard link is made
once. The owner renews it every few seconds. It is taken over when its owner was a process of this
machine that has ended, or is on another machine and has not renewed it for a minute. The owner that
finds its lock taken over, because it was suspended for so long, lets go of everything.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class Held(Exception):
    """Another process, which is alive, holds the lock."""


def _raise_lost() -> None:
    raise RuntimeError("the lock was taken over")


@contextlib.contextmanager
def hold(path: Path, on_loss: Callable[[], None] = _raise_lost) -> Iterator[None]:
    """Holds the lock at path inside the block.

    Args:
      path: The lock's file.
      on_loss: Called in another thread if the lock was taken over, which happens to a process that
        was suspended for longer than others wait. It should end the process at once.

    Raises:
      Held: A live process holds it.
    """
    token = uuid.uuid4().hex
    mine = path.with_name(f".{path.name}.{token}")
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": _pid_space(),
        "began": _state_and_start(os.getpid())[1],
        "token": token,
    }
    mine.write_text(json.dumps(owner))
    try:
        _acquire(path, mine)
        _sweep_up(path, now=mine.stat().st_mtime)
    finally:
        mine.unlink()
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, token, ended, on_loss), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        if _read(path).get("token") == token:
            path.unlink()


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock."""
    return _is_alive(path, _read(path), time.time())


def owner(path: Path) -> str | None:
    """The process that holds the lock, as ``HOST:PID``; None if no live one does."""
    found = _read(path)
    alive = _is_alive(path, found, time.time())
    return f"{found.get('host', '?')}:{found.get('pid', '?')}" if alive else None


def _acquire(path: Path, mine: Path) -> None:
    while True:
        try:
            os.link(mine, path)  # atomic, on network file systems too
            return
        except FileExistsError:
            found = _read(path)
            # The file system's own clock, which may differ from this machine's.
            now = mine.stat().st_mtime
            if found and (_is_alive(path, found, now) or not _bury(path, found["token"], now)):
                raise Held(path) from None


def _bury(path: Path, token: str, now: float) -> bool:
    """Removes the lock of a dead owner; False if another process is doing so."""
    # Only one process may bury this very lock: a second one could remove its successor's.
    grave = path.with_name(f".{path.name}.{token}.dead")
    try:
        os.close(os.open(grave, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if now - grave.stat().st_mtime > STALE_SECONDS:
                grave.unlink()
        return False
    if _read(path).get("token") == token:
        path.unlink()
    grave.unlink()
    return True


def _sweep_up(path: Path, now: float) -> None:
    """Removes what processes left that were killed while they tried to get the lock."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(FileNotFoundError):
            if now - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink()


def _beat(path: Path, token: str, ended: threading.Event, on_loss: Callable[[], None]) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        try:
            if _read(path).get("token") != token:
                on_loss()
                return
            os.utime(path)
        except OSError:  # a network file system that is away for a while
            continue


def _read(path: Path) -> dict:
    """The owner that the lock names; empty if there is no lock."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError, IsADirectoryError):
        found = None
    # Lost in a crash of the file system, or someone else's; its time tells whether it is held.
    return found if _is_owner(found) else {"token": "unreadable"}


def _is_owner(found: object) -> bool:
    match found:
        case {"host": str(), "pid": int(pid), "token": str(token), **rest}:
            # The token becomes a part of a file's name, and the number is sent a signal.
            is_safe = re.fullmatch(r"\w{1,64}", token) is not None and 0 < pid < 2**31
            return is_safe and all(isinstance(rest.get(k, ""), str) for k in ("machine", "began"))
    return False


def _is_alive(path: Path, found: dict, now: float) -> bool:
    if not found:
        return False
    if found.get("machine") == _pid_space():
        return _is_running(found["pid"], found.get("began", ""))
    try:
        return now - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _pid_space() -> str:
    """Names the processes that can see one another: this boot, and this space of process numbers.

    Containers may share a host's name, and two hosts may have one name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _is_running(pid: int, began: str) -> bool:
    """Whether a process is alive; not one that got the number of another one that has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state, since = _state_and_start(pid)
    return state != "Z" and since == began


def _state_and_start(pid: int) -> tuple[str, str]:
    """State of a process, and when it began in ticks since boot; empty where /proc is not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]
