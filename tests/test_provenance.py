"""What is recorded of the code: its commit where it is git's, and what was changed since."""

import shutil
import subprocess

import pytest

from experiments.sweep import provenance
from experiments.sweep.provenance import code

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

UNKNOWN = {"commit": None, "dirty": None, "diff": None}


def git(folder, *arguments):
    own = ("-c", "user.name=tests", "-c", "user.email=", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", folder, *own, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def install(folder):
    """Puts files of this code into a folder, as an installation does."""
    for name in ("experiments/sweep/provenance.py", "shufflenet_jax/__init__.py", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("one = 1\n")


@pytest.fixture
def checkout(tmp_path):
    """A repository with this code."""
    install(tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_a_clean_checkout(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert code(checkout) == {"commit": head, "dirty": False, "diff": ""}
    (checkout / "README.md").write_text("no code\n")
    (checkout / "notes.py").write_text("nor of these packages\n")
    (checkout / "experiments" / "table.md").write_text("nor of Python\n")
    assert code(checkout) == {"commit": head, "dirty": False, "diff": ""}


def test_what_was_changed_is_kept(checkout):
    (checkout / "shufflenet_jax" / "__init__.py").write_text("one = 2\n")
    git(checkout, "add", ".")  # whether it is staged or not
    (checkout / "experiments" / "sweep" / "provenance.py").unlink()
    (checkout / "experiments" / "new.py").write_text("secret = 1\n")
    found = code(checkout)
    assert found["commit"] == git(checkout, "rev-parse", "HEAD")
    assert found["dirty"]
    assert "-one = 1\n+one = 2\n" in found["diff"]
    assert "deleted file" in found["diff"]
    assert "experiments/new.py" in found["diff"]
    assert "secret" not in found["diff"]


def test_a_long_change_is_cut(checkout, monkeypatch):
    monkeypatch.setattr(provenance, "MOST_DIFF", 100)
    (checkout / "shufflenet_jax" / "__init__.py").write_text("two = 2\n" * 50)
    diff = code(checkout)["diff"]
    kept, said = diff[:100], diff[100:]
    assert kept.startswith("diff --git a/shufflenet_jax/__init__.py")
    assert said.startswith("\n(")
    assert said.endswith(" more characters)\n")


def test_a_copy_inside_the_checkout_of_something_else_has_no_commit(checkout):
    environment = checkout / "environment" / "site-packages"
    install(environment)
    assert code(environment) == UNKNOWN


def test_without_git_nothing_is_known(tmp_path, checkout, monkeypatch):
    outside = tmp_path / "outside"
    install(outside)
    monkeypatch.setenv("GIT_DIR", str(checkout / ".git"))  # of another repository
    assert code(outside) == UNKNOWN
    monkeypatch.setenv("PATH", "")
    assert code(checkout) == UNKNOWN


def test_a_commit_has_a_mark_if_it_is_not_all(checkout, monkeypatch):
    whole = code(checkout)["commit"]
    assert len(whole) == 40
    for found, expected in (
        ({"commit": whole, "dirty": False, "diff": ""}, whole),
        ({"commit": whole, "dirty": True, "diff": "-1"}, f"{whole}+"),
        (UNKNOWN, None),
    ):
        monkeypatch.setattr(provenance, "code", lambda found=found: found)
        assert provenance.commit() == expected
