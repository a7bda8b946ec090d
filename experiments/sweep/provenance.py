"""What a result depends on beside its configuration: the processor, versions, and the code."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

MOST_DIFF = 64 * 1024
"""Characters of a diff that are kept."""

_ROOT = Path(__file__).absolute().parents[2]
_PACKAGES = ("experiments", "shufflenet_jax")
_GIT_SECONDS = 10.0
_OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")  # as in its hooks


def processor() -> str:
    """The name of the CPU, which `platform.processor` does not tell on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def code(root: Path = _ROOT) -> dict[str, Any]:
    """What git says of this code: "commit", "dirty" and "diff".

    The commit has 40 digits. The code is dirty if a file of its packages was changed since, or one
    of Python was added. The diff has the changes, of which `MOST_DIFF` characters are kept, and a
    line for each added file; it is empty if there are none. All are None where git does not keep
    this code: without git, and where it is installed as a copy, be it inside another's checkout.

    Args:
      root: The folder with the packages.
    """
    own = os.path.relpath(__file__, _ROOT)
    tracked = _git(root, "ls-files", "--error-unmatch", "--", own)
    commit = _git(root, "rev-parse", "--verify", "HEAD") if tracked else None
    changes = ("diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", *_PACKAGES)
    diff = _git(root, *changes) if commit else None
    python = (f"{package}/*.py" for package in _PACKAGES)
    others = ("ls-files", "--others", "--exclude-standard", "--", *python)
    added = _git(root, *others) if diff is not None else None
    if commit is None or diff is None or added is None:
        return {"commit": None, "dirty": None, "diff": None}
    if len(diff) > MOST_DIFF:
        diff = f"{diff[:MOST_DIFF]}\n({len(diff) - MOST_DIFF} more characters)\n"
    diff += "".join(f"(added, not tracked: {name})\n" for name in added.splitlines()[:1000])
    return {"commit": commit.strip(), "dirty": bool(diff), "diff": diff}


def file(path: Path) -> dict[str, str]:
    """The name of a file, and its SHA-256."""
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def commit() -> str | None:
    """The git commit of this code, with "+" if it was changed since; see `code`."""
    found = code()
    return found["commit"] and f"{found['commit']}{'+' if found['dirty'] else ''}"


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints of a folder; None if it fails, or takes too long."""
    environment = {key: value for key, value in os.environ.items() if key not in _OF_ANOTHER}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # reading is all that is done here
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=_GIT_SECONDS,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
