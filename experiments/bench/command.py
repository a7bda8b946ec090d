"""The command `bench`: from its options to the tables."""

import argparse
import importlib.util
import os
import sys
from dataclasses import replace
from fnmatch import fnmatchcase

from experiments.bench import (
    costs,
    input,
    learning,
    machine,
    measure,
    seeds,
    sweep,
    tables,
    timings,
    workloads,
)
from experiments.bench.peers import PEERS, Peer, choose
from experiments.bench.workloads import Plan
from shufflenet_jax.errors import InputError


def run(options: argparse.Namespace) -> str:
    """Runs the benchmark and returns its tables, or JSON.

    Args:
      options: json, quick, peers (names, or None for all), sections (a glob of their titles),
        threads, input (a folder of images, or true:
        only what images cost), seeds (only the ways to train several), sweep (only
        what the runner costs, and a whole table), against (a commit or None, for the latter),
        learning (a budget or None: only learning curves, with assignments to it), and plot (a path
        or None).

    Raises:
      InputError: An unknown peer or section, more threads than processors, or a plot without
        matplotlib.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("the benchmark binds processes to processors, which needs Linux")
    if options.against and not options.sweep:
        raise InputError("--against is for --sweep")
    if options.assignments and not options.learning:
        raise InputError("--config.KEY=VALUE is for --learning")
    if options.threads > (processors := len(os.sched_getaffinity(0))):
        raise InputError(f"{options.threads} threads, but {processors} processors")
    if options.input:
        return input.table(options.threads, None if options.input is True else options.input)
    if options.sweep:
        return sweep.table(options.against)
    if options.learning:
        return learning.table(options.learning, options.assignments, options.threads)
    if options.seeds:
        return seeds.table(options.threads)
    if options.plot and not importlib.util.find_spec("matplotlib"):
        raise InputError("a plot needs matplotlib: pip install -e '.[plot]'")
    plan = (workloads.quick if options.quick else workloads.full)(options.threads)
    plan = _only(plan, options.sections)
    chosen = choose(options.peers or plan.peers or list(PEERS))
    skipped = {peer.name: reason for peer in chosen if (reason := peer.missing())}
    for name, reason in skipped.items():
        _say(f"{name} is left out: {reason}")
    results = _measure(plan, [peer for peer in chosen if peer.name not in skipped], skipped)
    if options.plot:
        from experiments.bench import plot

        plot.save(tables.summary(results), options.plot)
    return tables.as_json(results) if options.json else tables.as_markdown(results)


def _only(plan: Plan, pattern: str) -> Plan:
    """The part of a plan whose titles match; compile time and memory belong to the whole."""
    sections = [each for each in plan.sections if fnmatchcase(each.title, pattern)]
    if not sections:
        titles = ", ".join(each.title for each in plan.sections)
        raise InputError(f"no section matches {pattern!r}; there are {titles}")
    return replace(plan, sections=sections, costs=plan.costs if pattern == "*" else ())


def _measure(plan: Plan, peers: list[Peer], skipped: dict[str, str]) -> tables.Results:
    # Several frameworks share one GPU: JAX must not take most of it at the start.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    load_before = os.getloadavg()[0]
    counts = sorted({each.threads for section in plan.sections for each in section.workloads})
    described = measure.in_fresh_process(counts[-1], machine.describe)
    peaks = {count: measure.in_fresh_process(count, machine.matmul_peak, peers) for count in counts}
    sections = []
    for section in plan.sections:
        able = [peer for peer in peers if not section.peers or peer.name in section.peers]
        timed = []
        for workload in section.workloads:
            _say(f"{section.title}: {workload}")
            timed += timings.time_workload(workload, able, plan.rounds, plan.seconds)
        sections.append((section, timed))
    forms = {
        (each.workload, each.peer): each.choice.form for _, timed in sections for each in timed
    }
    measured = []
    for workload in plan.costs:
        for peer in peers:
            if peer.can(workload):
                _say(f"compile time and memory: {workload}, {peer.name}")
                form = forms.get((workload, peer.name), "")
                measured.append(costs.cost_of(workload, peer, form))
    load = (load_before, os.getloadavg()[0])
    return tables.Results(described, peaks, load, skipped, sections, measured)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
