"""The command line: ``python -m experiments --help``."""

import argparse
import contextlib
import importlib.util
import json
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

if not __package__:  # started by its place (`experiments.sweep.launch`), and not by its name
    _found = importlib.util.find_spec("experiments")
    _here = Path(__file__).absolute().parent
    if _found is None or _found.origin != str(_here / "__init__.py"):
        sys.path.insert(0, str(_here.parent))

from shufflenet_jax.errors import InputError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 if a cell failed or diverged, or 2 for a user's mistake."""
    try:
        options, rest = _parser().parse_known_args(arguments)
        configured = options.command in (_run, _cell)
        options.assignments = _assignments(rest) if configured else _none(rest)
        return options.command(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what ran has saved; the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `... | head`
        sys.stderr.close()
        return 0


# The commands import what they need when they run: a mistake is answered at once.


def _list(options: argparse.Namespace) -> int:
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


def _run(options: argparse.Namespace) -> int:
    from experiments import tables
    from experiments.sweep import experiment

    chosen = tables.load(options.name)
    if isinstance(chosen, experiment.Experiment):
        return _train(options)
    bare = vars(_parser().parse_args(["run", options.name])) | {"assignments": []}
    if vars(options) != bare:
        raise InputError(f"{options.name} trains nothing: it takes no other arguments")
    print(f"## {chosen.title}\n\n{chosen.table()}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from experiments.report.board import Board
    from experiments.report.table import as_markdown
    from experiments.sweep.launch import dry_run, launch
    from experiments.sweep.plan import plan

    planned = plan(
        options.name,
        budget=options.budget,
        assignments=options.assignments,
        directory=options.workdir,
        pattern=options.cells,
        seeds=options.seeds,
        launcher=options.launcher,
        jobs=options.jobs,
        dry=options.dry_run,
    )
    sweep, runs, engine = planned.sweep, planned.runs, planned.engine
    for note in planned.notes:
        print(f"note: {note}", file=sys.stderr)
    todo = [run for run in runs if run.status not in ("done", "diverged")]
    print(f"{sweep.experiment.title}\n{len(runs)} runs in {sweep.directory}, {len(todo)} to train")
    if options.dry_run:
        print(dry_run(engine, sweep, todo))
        return 0
    if todo:
        sweep.withdraw_stop()
        with _sigterm_as_ctrl_c(), Board(runs) as board:
            launch(engine, sweep, todo, board.update)
    if sweep.is_stopping:
        print("stopped: the same command continues", file=sys.stderr)
    print(f"\n{as_markdown(sweep)}")
    return 0 if all(run.status == "done" for run in runs) else 1


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cell(options: argparse.Namespace) -> int:
    from experiments.launchers import HELD, PREEMPTED
    from experiments.launchers.parent import end_with_parent

    end_with_parent()
    from experiments.sweep import configuration as configs
    from experiments.sweep import workdir, worker
    from experiments.sweep.lock import Held

    sweep = workdir.open_sweep(options.workdir.absolute())
    configs.override_machine(sweep.config, options.assignments)
    run = sweep.run(sweep.cell(options.name), options.seed)
    if options.distributed or options.coordinator:
        _join(options)  # it handles SIGTERM in its own way, until the next line
    with worker.asked_to_end(sweep) as is_asked:
        try:
            status = worker.train(sweep, run, is_asked)
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


def _status(options: argparse.Namespace) -> int:
    from rich.console import Console

    from experiments.report import board
    from experiments.sweep import workdir
    from experiments.sweep.run import ENDED

    runs = workdir.open_sweep(options.workdir).runs()
    if options.watch:
        with board.Board(runs) as shown:
            while any(state not in ENDED for state in shown.states.values()):
                time.sleep(0.5)
                shown.update()
        return 0
    states = {run: run.status for run in runs}
    if options.json:
        print(json.dumps({"cells": board.as_data(states)}, indent=2))
    else:
        Console().print(board.table(states))
    return 0


def _stop(options: argparse.Namespace) -> int:
    from experiments.sweep import workdir

    sweep = workdir.open_sweep(options.workdir)
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


def _report(options: argparse.Namespace) -> int:
    from experiments.report.table import FORMATS
    from experiments.sweep import workdir

    print(FORMATS[options.format](workdir.open_sweep(options.workdir)))
    return 0


def _complexity(options: argparse.Namespace) -> int:
    from experiments.report import counts

    print(counts.as_json() if options.json else counts.as_markdown())
    return 0


def _bench(options: argparse.Namespace) -> int:
    from experiments.bench import command

    print(command.run(options))
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from shufflenet_jax import data

    data.prepare(options.name, options.data_dir)
    print(f"{options.name} is prepared")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m experiments",
        description="Reproduces the tables of the ShuffleNet V1 paper.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, command, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    def add_json(to: argparse.ArgumentParser) -> None:
        to.add_argument("--json", action="store_true", help="print JSON")

    def add_workdir(to: argparse.ArgumentParser, required: bool, what: str) -> None:
        to.add_argument("--workdir", type=Path, metavar="DIR", required=required, help=what)

    add_json(add("list", _list, "list the experiments, their claims and cells"))

    run = add("run", _run, "train what is missing of an experiment, then print its table")
    run.epilog = (
        "Any key of the configuration can be set: --config.recipe.epochs=30 "
        "--config.data.name=folder:/data/pets. Exit status: 0 if every run is done, 1 if some "
        "failed or diverged, 2 for a mistake in the command."
    )
    run.add_argument("name", metavar="NAME", help="experiment; see `list`")
    add_workdir(run, False, "where everything is kept (default: runs/NAME)")
    run.add_argument("--seeds", type=_positive, default=1, metavar="N", help="seeds a cell (1)")
    run.add_argument("--cells", default="*", metavar="GLOB", help="only cells of these names")
    run.add_argument("--budget", default="digits", help="digits, cifar10, imagenette or paper")
    run.add_argument(
        "--launcher",
        choices=("local", "ray", "slurm"),
        default="local",
        help="what trains: processes of this machine (default), a Ray or a Slurm cluster",
    )
    run.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="local: processes at a time (one a GPU; without any, one a core)",
    )
    run.add_argument(
        "--dry-run", action="store_true", help="print the runs and their commands, start nothing"
    )

    add_json(status := add("status", _status, "show how the runs of a sweep stand"))
    add_workdir(status, True, "directory of the sweep")
    status.add_argument("--watch", action="store_true", help="keep it live until all have ended")

    stop = add("stop", _stop, "end a sweep: what runs saves and ends, what waits is not begun")
    add_workdir(stop, True, "directory of the sweep")

    report = add("report", _report, "print the table of a sweep, ours beside the paper's")
    add_workdir(report, True, "directory of the sweep")
    report.add_argument("--format", choices=("md", "csv", "json"), default="md")

    add_json(add("complexity", _complexity, "print multiply-adds and parameters of every network"))

    bench = add("bench", _bench, "time ours against the plain form and other frameworks")
    add_json(bench)
    bench.add_argument("--quick", action="store_true", help="a minute, to see that it works")
    bench.add_argument(
        "--peers", type=lambda text: text.split(","), metavar="A,B", help="only these peers"
    )
    bench.add_argument("--sections", default="*", metavar="GLOB", help="only these tables")
    bench.add_argument("--threads", type=_positive, default=2, metavar="N", help="default: 2")
    bench.add_argument(
        "--seeds", action="store_true", help="time ways to train several seeds, and only those"
    )
    bench.add_argument(
        "--sweep", action="store_true", help="time what sweeps cost beside training, and only that"
    )
    bench.add_argument("--plot", type=Path, metavar="FILE", help="plot how time grows")

    prepare = add("prepare", _prepare, "download and prepare a TFDS data set, once")
    prepare.add_argument("name", metavar="NAME", help="as cifar10 or imagenette/320px-v2")
    prepare.add_argument("--data-dir", type=Path, metavar="DIR", help="default: TFDS's own")

    cell = add("cell", _cell, "train one run of a sweep in this process; `run` starts these")
    cell.add_argument("name", metavar="CELL")
    cell.add_argument("--seed", type=int, default=0, metavar="N")
    add_workdir(cell, True, "directory of the sweep")
    cell.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes of this run, which JAX finds (Slurm, Open MPI, Kubernetes)",
    )
    cell.add_argument("--coordinator", metavar="HOST:PORT", help="the same where JAX cannot")
    cell.add_argument("--num-processes", type=_positive, metavar="N")
    cell.add_argument("--process-id", type=int, metavar="I")
    cell.epilog = (
        "Exit status: 0 if it is done, 1 if it failed or diverged, 2 for a mistake in the command, "
        "69 if another process trains it, 75 if it was asked to end and has saved."
    )
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _assignments(rest: Sequence[str]) -> list[str]:
    for argument in rest:
        if not argument.startswith("--config."):
            raise InputError(f"unknown argument {argument!r}; see python -m experiments run --help")
    return [argument.removeprefix("--config.") for argument in rest]


def _none(rest: Sequence[str]) -> list[str]:
    if rest:
        raise InputError(f"unknown argument {rest[0]!r}; see python -m experiments --help")
    return []


if __name__ == "__main__":
    sys.exit(main())
