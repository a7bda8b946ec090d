"""JAX's persistent compilation cache, so that the seeds of a cell compile once.

It holds machine code, which a process that finds it runs. So it never lies in the directory of a
sweep, which may be someone else's, but in the user's own cache directory.
"""

import contextlib
import hashlib
import os
import platform
from pathlib import Path

import jax

MAX_BYTES = 2**30


def enable() -> None:
    """Makes JAX keep what it compiles, and use what was kept; call it before anything is compiled.

    Does nothing where the environment sets JAX_COMPILATION_CACHE_DIR, or where the user has no
    cache directory, or one that cannot be written or can be by others.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        directory = _user_cache() / "shufflenet_jax" / "xla" / _target()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # there is no home directory
        return
    if _is_private(directory):
        _trim(directory, MAX_BYTES)
        jax.config.update("jax_compilation_cache_dir", str(directory))
        # A run compiles dozens of tiny programs, which by default are too quick to be kept.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _target() -> str:
    """Names what a program is compiled for: the processor's features and the number of cores.

    JAX knows programs for all CPUs by one name, and home directories are shared between machines.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        described = f"{platform.machine()} {features} {len(os.sched_getaffinity(0))}"
        return hashlib.sha256(described.encode()).hexdigest()[:8]
    return f"{platform.machine()}-{os.cpu_count()}"


def _is_private(directory: Path) -> bool:
    status = directory.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _trim(directory: Path, most: int) -> None:
    """Removes the oldest files until those that are left have no more bytes in all.

    JAX can do so itself, but with locks on files, which do not work on every file system.
    """
    files = []
    for path in directory.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process trims as well
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            break
        path.unlink(missing_ok=True)
        total -= size
