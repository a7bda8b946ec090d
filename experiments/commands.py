"""What the commands of the command line do, each given its options.

They import what they need when they run, so that a mistake is answered at once.
"""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

if TYPE_CHECKING:
    from experiments.sweep.experiment import Experiment, Printout
    from experiments.sweep.workdir import Sweep


def list_(options: argparse.Namespace) -> int:
    """Lists the experiments of the paper."""
    from experiments import tables

    found = [tables.load(name) for name in tables.names()]
    if options.json:
        listed = [
            {
                "name": each.name,
                "title": each.title,
                "claims": [claim.text for claim in each.claims],
                "cells": [cell.name for cell in each.cells],
            }
            for each in found
        ]
        print(json.dumps(listed, indent=2))
        return 0
    for each in found:
        print(f"{each.name}: {each.title}\n\n{each.description}\n")
        for remark in each.remarks:
            print(f"{textwrap.fill(remark, 100)}\n")
        names = ", ".join(cell.name for cell in each.cells)
        print(f"Cells:   {names or 'none, it trains nothing'}\n")
    return 0


def run(options: argparse.Namespace) -> int:
    """Trains what is missing of an experiment, and prints its table."""
    from experiments.sweep.experiment import Printout

    chosen = _experiment(options)
    if not isinstance(chosen, Printout):
        return _train(chosen, options)
    if not options.is_bare:
        raise InputError(f"{chosen.name} trains nothing: it takes no other arguments")
    print(f"## {chosen.title}\n\n{chosen.table()}")
    return 0


def train(options: argparse.Namespace) -> int:
    """Trains or fine-tunes one network."""
    from experiments.trained import training

    return _train(training.experiment(options.name, options.init), options)


def evaluate(options: argparse.Namespace) -> int:
    """Evaluates a trained network on the test images of a data set."""
    from experiments.report.formats import need_matplotlib
    from experiments.trained import evaluation
    from experiments.trained.source import open_network

    if options.plot is not None:
        need_matplotlib("a plot")
    found = evaluation.evaluate(
        open_network(options.network), options.data, options.data_dir, options.batch_size
    )
    print(evaluation.as_json(found) if options.json else evaluation.as_markdown(found))
    if options.plot:
        evaluation.save_plot(found, options.plot)
    return 0


def predict(options: argparse.Namespace) -> int:
    """Prints the best labels of images."""
    from experiments.trained import prediction
    from experiments.trained.source import open_network

    images = prediction.images_in(options.images)
    predicted = []
    for each in prediction.predict(open_network(options.network), images):
        predicted.append(each)
        if each.error:
            print(f"error: {each.error}", file=sys.stderr)
        elif not options.json:
            print(prediction.as_text(each), flush=True)
    if options.json:
        print(prediction.as_json(predicted))
    return 1 if any(each.error for each in predicted) else 0


def export(options: argparse.Namespace) -> int:
    """Takes a trained network elsewhere."""
    from experiments.trained import export
    from experiments.trained.source import open_network

    if options.push and options.to != "hub":
        raise InputError("--push is for --to hub")
    trained = open_network(options.network)
    place = options.out or Path(f"{trained.name}{export.ENDS[options.to]}")
    print(export.export(trained, options.to, place, options.layout))
    if options.push:
        from shufflenet_jax import push_to_hub

        print(push_to_hub(place, options.push))
    return 0


def _experiment(options: argparse.Namespace) -> "Experiment | Printout":
    """What ``run`` was asked for: a table of the paper, a file, or a grid."""
    from experiments import tables
    from experiments.tables import user_file

    if options.networks is not None:
        user_file.load_networks(options.networks)
    if options.name == "grid":
        return _grid(options)
    if options.axes:
        raise InputError("--sweep.KEY is for run grid: an experiment has cells of its own")
    if user_file.is_file(options.name):
        if options.networks is not None:
            raise InputError("--networks is for experiments without a file: put NETWORKS into it")
        options.networks = Path(options.name)
        return user_file.load(options.networks)
    return tables.load(options.name)


def _grid(options: argparse.Namespace) -> "Experiment":
    from experiments.sweep import configuration as configs
    from experiments.sweep.budgets import budget
    from experiments.sweep.experiment import Experiment
    from experiments.sweep.grid import grid

    config = budget(options.budget)
    names = [each for each in options.assignments if each.startswith("network.name=")]
    configs.override(config, names)
    axes = configs.axes(config, options.axes)
    title = f"A grid over {', '.join(axes)}"
    return Experiment("grid", title, "", get_config=budget, cells=grid(axes))


def _train(chosen: "Experiment", options: argparse.Namespace) -> int:
    from experiments.report import contents
    from experiments.report.board import Board
    from experiments.report.table import as_markdown
    from experiments.sweep.launch import dry_run, launch, options_of
    from experiments.sweep.plan import Request, default_directory, plan
    from experiments.sweep.records import Keeper, Records

    request = Request(
        chosen,
        budget=options.budget,
        assignments=options.assignments,
        directory=options.workdir or default_directory(chosen.name),
        pattern=options.cells,
        seeds=options.seeds,
        launcher=options.launcher,
        jobs=options.jobs,
        skip_invalid=options.skip_invalid,
        dry=options.dry_run,
    )
    planned = plan(request)
    sweep, runs, engine = planned.sweep, planned.runs, planned.engine
    for note in planned.notes:
        print(f"note: {note}", file=sys.stderr)
    keeper = None
    if options.records and not options.dry_run:
        keeper = Keeper(Records(options.records.expanduser().absolute()), sweep, runs)
        print(f"{keeper.take()} runs are taken from {options.records}")
        keeper.look()
    todo = [run for run in runs if run.status not in ("done", "diverged")]
    print(f"{sweep.title}\n{len(runs)} runs in {sweep.directory}, {len(todo)} to train")
    networks = options.networks and options.networks.expanduser().absolute()
    told = options_of(engine, sweep, networks, options.profile)
    if options.dry_run:
        print(dry_run(sweep, todo, told))
        return 0
    if todo:
        sweep.withdraw_stop()
        with _sigterm_as_ctrl_c(), Board(runs) as board, keeper or contextlib.nullcontext():

            def look() -> None:
                board.update()
                if keeper is not None:
                    keeper.look()

            launch(engine, sweep, todo, look, told)
    if sweep.is_stopping:
        print("stopped: the same command continues", file=sys.stderr)
    print(f"\n{as_markdown(contents.of_sweep(sweep))}")
    return 0 if all(run.status == "done" for run in runs) else 1


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cell(options: argparse.Namespace) -> int:
    """Trains one run of a sweep in this process."""
    from experiments.launchers import HELD, PREEMPTED
    from experiments.launchers.parent import end_with_parent

    end_with_parent()
    from experiments.sweep import manifest, worker
    from experiments.sweep.lock import Held

    if options.networks is not None:
        from experiments.tables import user_file

        user_file.load_networks(options.networks)
    sweep = manifest.open_sweep(options.workdir.absolute())
    sweep = sweep.with_settings(options.assignments)
    run = sweep.planned_run(sweep.cell(options.name), options.seed)
    if options.distributed or options.coordinator:
        _join(options)  # it handles SIGTERM in its own way, until the next line
    with worker.asked_to_end(sweep) as is_asked:
        try:
            status = worker.train(sweep, run, is_asked, options.networks, options.profile)
        except Held:
            print(f"error: another process ({run.owner}) is training {run.name}", file=sys.stderr)
            return HELD
    return {"done": 0, "preempted": PREEMPTED}.get(status, 1)


def _join(options: argparse.Namespace) -> None:
    """Makes this process one of several of a run."""
    import jax

    given = (options.coordinator, options.num_processes, options.process_id)
    if None in given and any(each is not None for each in given):
        raise InputError("--coordinator, --num-processes and --process-id go together")
    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot reach the other processes of this run: {reason}") from None


def status(options: argparse.Namespace) -> int:
    """Shows how the runs of a sweep stand."""
    from rich.console import Console

    from experiments.report import board, standing
    from experiments.report.overview import overview
    from experiments.report.pace import Pace
    from experiments.sweep import manifest
    from experiments.sweep.run import ENDED

    runs = manifest.open_sweep(options.workdir).runs()
    if options.watch:
        with board.Board(runs) as shown:
            while any(state not in ENDED for state in shown.states.values()):
                time.sleep(0.5)
                shown.update()
        return 0
    states = {run: run.status for run in runs}
    if options.json:
        print(json.dumps({"cells": standing.as_data(states)}, indent=2))
    else:
        console = Console()
        left = Pace().seconds_left(states)
        console.print(overview(states, left, width=console.width, whole=True))
    return 0


def stop(options: argparse.Namespace) -> int:
    """Asks all runs of a sweep to save and end, and waits for it."""
    from experiments.sweep import manifest

    sweep = manifest.open_sweep(options.workdir)
    runs = sweep.runs()
    sweep.request_stop()
    running = [run for run in runs if run.status == "running"]
    print(f"{len(running)} runs are asked to save and end; what waits is not begun")
    while running:
        time.sleep(0.5)
        for run in [run for run in running if run.status != "running"]:
            running.remove(run)
            print(f"{run.name}  {run.status}", flush=True)
    return 0


def report(options: argparse.Namespace) -> int:
    """Prints the table of a sweep, or of what is recorded of an experiment."""
    from experiments.report import formats
    from experiments.sweep import manifest

    formats.check(options.format, options.plots is not None)
    if (options.workdir is None) == (options.records is None):
        raise InputError("a report is of --workdir DIR, or of an experiment and --records DIR")
    if options.workdir is not None:
        if options.name is not None:
            raise InputError("the experiment of --workdir is known: leave the name out")
        _report(options, manifest.open_sweep(options.workdir))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        _report(options, _recalled(options, Path(directory)))
    return 0


def compare(options: argparse.Namespace) -> int:
    """Prints in what sweeps differ, and by how much their errors do."""
    from experiments.report import comparison, formats
    from experiments.sweep import manifest

    formats.check(options.format, options.plots is not None)
    found = comparison.compare([manifest.open_sweep(each) for each in options.workdirs])
    _put(formats.OF_COMPARISON[options.format](found), options.output)
    if options.plots:
        from experiments.report import drawing, figures

        drawing.save(figures.of_comparison(found), options.plots)
    return 0


def flow(options: argparse.Namespace) -> int:
    """Prints what flows between groups in the trained networks of a sweep."""
    from experiments.report import flow
    from experiments.report.formats import need_matplotlib
    from experiments.sweep import manifest

    if options.plot is not None:
        need_matplotlib("a plot")
    found = flow.of_sweep(manifest.open_sweep(options.workdir))
    print(flow.table(found))
    if options.plot:
        from experiments.report import flow_plot

        flow_plot.save(found, options.plot)
    return 0


def _report(options: argparse.Namespace, sweep: "Sweep") -> None:
    from experiments.report import contents
    from experiments.report.formats import FORMATS, NEED_CURVES

    curves = options.plots is not None or options.format in NEED_CURVES
    made = contents.of_sweep(sweep, curves)
    _put(FORMATS[options.format](made), options.output)
    if options.plots:
        from experiments.report import drawing, figures

        drawing.save(figures.drawings(made), options.plots)


def _put(text: str, path: Path | None) -> None:
    """Prints a text, or writes it to a file."""
    if path is None:
        print(text)
        return
    try:
        write_atomically(path, f"{text}\n")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot write to {path}: {reason}") from None


def _recalled(options: argparse.Namespace, directory: Path) -> "Sweep":
    """A sweep, in an empty directory, of all that is recorded of an experiment."""
    from experiments.tables.recorded import recalled

    if options.name is None:
        raise InputError("which experiment? report NAME --records DIR")
    chosen = _experiment(options)
    return recalled(chosen, options.budget, options.assignments, options.records, directory)


def results(options: argparse.Namespace) -> int:
    """Makes the committed results of the committed records."""
    from experiments.report.formats import need_matplotlib
    from experiments.results import committed

    need_matplotlib("a plot")
    made = committed.make()
    for path in made if options.check else committed.write(made):
        print(f"{path.name} {'is not what the records say' if options.check else 'is made anew'}")
    return int(options.check and bool(made))


def complexity(options: argparse.Namespace) -> int:
    """Prints multiply-adds and parameters of every network."""
    from experiments.tables import counts

    print(counts.as_json() if options.json else counts.as_markdown())
    return 0


def bench(options: argparse.Namespace) -> int:
    """Times ours against the plain form and other frameworks."""
    from experiments.bench import command

    print(command.run(options))
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Prepares a data set of TFDS, or Tiny ImageNet."""
    from shufflenet_jax import data

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    data.prepare(options.name, options.data_dir, options.archive, options.from_tfrecord, say)
    print(f"{options.name} is prepared")
    return 0
