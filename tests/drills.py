"""Drills: tests that break something on purpose, and count what came of it.

A drill reports its counts through the fixture `drill`, and fails if any of them is not zero. At the
end of `pytest -m faults` (or ray, slurm) the counts of all are printed as one table, with what they
ran on.
"""

import os
import platform
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from sweeps import SHORT, start

from experiments.report import markdown
from experiments.sweep import provenance

COUNTS = ("tried", "lost", "duplicated", "wrong")
MARKERS = ("faults", "ray", "slurm")
"""Of the tests that are drills."""

_PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy", "ray", "submitit")
_TOTALS = pytest.StashKey[dict[str, Counter | None]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for each core; but drills run in one, which counts them, one after another."""
    chosen = rf"(?<!not )\b({'|'.join(MARKERS)})\b"
    return 0 if re.search(chosen, config.option.markexpr) else len(os.sched_getaffinity(0))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TOTALS] = {}


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Reports the counts of a drill: ``drill("SIGKILL", tried=20, lost=0, wrong=0)``.

    Counts under one name add up, also over several tests. A test that asks for the fixture and
    then reports nothing shows in the table as well.

    Args of the fixture's value:
      name: What was broken, in the words of the table.
      tried: How many times.
      lost: Work that had been recorded and was gone afterwards, or more of it than is allowed.
      duplicated: Work that was done or recorded twice.
      wrong: Results that differ from those of a run that nothing happened to.
    """
    totals = request.config.stash[_TOTALS]
    reported = []

    def report(name: str, *, tried: int, lost: int = 0, duplicated: int = 0, wrong: int = 0):
        assert tried, f"{name}: nothing was tried"
        counts = Counter(tried=tried, lost=lost, duplicated=duplicated, wrong=wrong)
        reported.append(name)
        totals[name] = (totals.get(name) or Counter()) + counts
        assert lost == duplicated == wrong == 0, f"{name}: {dict(counts)}"

    yield report
    if not reported:
        totals[f"{request.node.name}: no count"] = None


@pytest.fixture(scope="session")
def short_sweep(tmp_path_factory):
    """A sweep of four cells that nothing happens to."""
    directory = tmp_path_factory.mktemp("sweep")
    assert start("run", "table3", "--workdir", directory, *SHORT).wait() == 0
    return directory


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    totals = terminalreporter.config.stash[_TOTALS]
    if totals:
        terminalreporter.section("drills")
        terminalreporter.write_line(_table(totals))
        terminalreporter.write_line(f"\n{_place()}")


def _table(totals: dict[str, Counter | None]) -> str:
    """One row a drill, in the order in which they ran; dashes for one that reported no counts."""
    table = markdown.table("drill", *COUNTS)
    for name, counts in totals.items():
        table.add_row(name, *(str(counts[each]) if counts else "-" for each in COUNTS))
    return markdown.render(table)


def _place() -> str:
    """What a reader needs to judge the table: processor, versions and commit."""
    versions = ", ".join(f"{name} {at}" for name, at in provenance.versions(_PACKAGES).items())
    return (
        f"On {provenance.processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, {versions}, "
        f"commit {provenance.commit()}."
    )
