"""A lock that outlives neither its owner nor the file system: a file with a heartbeat.

It works where `flock` does not (network file systems): it needs only that a hard link is made
once. The owner renews it every few seconds; one that has not been renewed for a minute, or whose
owner was a process of this machine that has ended, is taken over.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class Held(Exception):
    """Another process, which is alive, holds the lock."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Holds the lock at path inside the block.

    Raises:
      Held: A live process holds it.
    """
    token = uuid.uuid4().hex
    mine = path.with_name(f".{path.name}.{token}")
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": token}
    mine.write_text(json.dumps(owner))
    try:
        _acquire(path, mine)
    finally:
        mine.unlink()
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        if _owner(path).get("token") == token:
            path.unlink()


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock."""
    owner = _owner(path)
    if not owner:
        return False
    if owner["host"] == socket.gethostname():
        return _alive(owner["pid"])
    try:
        return time.time() - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _acquire(path: Path, mine: Path) -> None:
    while True:
        try:
            os.link(mine, path)  # atomic, on network file systems too
            return
        except FileExistsError:
            if is_held(path) or not _bury(path):
                raise Held(path) from None


def _bury(path: Path) -> bool:
    """Removes a dead owner's lock; False if another process is doing so."""
    owner = _owner(path)
    if not owner:
        return True
    # Only one process may bury this very lock: a second one could remove its successor's.
    grave = path.with_name(f".{path.name}.{owner['token']}.dead")
    try:
        os.close(os.open(grave, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - grave.stat().st_mtime > STALE_SECONDS:
                grave.unlink()
        return False
    if _owner(path).get("token") == owner["token"]:
        path.unlink()
    grave.unlink()
    return True


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)


def _owner(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
