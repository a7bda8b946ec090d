"""The command line: ``python -m experiments --help``."""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

if not __package__:  # started by its place (`experiments.sweep.launch`), and not by its name
    _found = importlib.util.find_spec("experiments")
    _here = Path(__file__).absolute().parent
    if _found is None or _found.origin != str(_here / "__init__.py"):
        sys.path.insert(0, str(_here.parent))

from experiments import commands
from shufflenet_jax.errors import InputError

_FORMATS = ("md", "csv", "json", "latex", "html")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 if a cell failed or diverged, or 2 for a user's mistake."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options, rest = _parser().parse_known_args(arguments)
        takes = {
            commands.run: ("config", "sweep"),
            commands.report: ("config", "sweep"),
            commands.train: ("config",),
            commands.cell: ("config",),
            commands.bench: ("config",),
        }
        given = _keys(rest, takes.get(options.command, ()))
        options.assignments, options.axes = given["config"], given["sweep"]
        options.is_bare = len(arguments) == 2
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m experiments",
        description="Reproduces the tables of the ShuffleNet V1 paper.",
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def add(
        name: str, command: Callable[[argparse.Namespace], int], summary: str
    ) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    def add_json(to: argparse.ArgumentParser) -> None:
        to.add_argument("--json", action="store_true", help="print JSON")

    def add_workdir(to: argparse.ArgumentParser, required: bool, what: str) -> None:
        to.add_argument("--workdir", type=Path, metavar="DIR", required=required, help=what)

    def add_networks(to: argparse.ArgumentParser) -> None:
        to.add_argument(
            "--networks", type=Path, metavar="FILE", help="Python file with networks of your own"
        )

    def add_forms(to: argparse.ArgumentParser) -> None:
        to.add_argument("--format", choices=_FORMATS, default="md")
        to.add_argument(
            "--output", type=Path, metavar="FILE", help="write it there in place of printing it"
        )
        to.add_argument(
            "--plots", type=Path, metavar="DIR", help="write its figures there, as SVG and PNG"
        )

    def add_profile(to: argparse.ArgumentParser) -> None:
        to.add_argument(
            "--profile",
            type=_positive,
            default=0,
            metavar="STEPS",
            help="trace some steps of each run, for Perfetto and TensorBoard, into its profile/",
        )

    add_json(add("list", commands.list_, "list the experiments, their claims and cells"))

    run = add("run", commands.run, "train what is missing of an experiment, then print its table")
    run.epilog = (
        "Any key of the configuration can be set, --config.recipe.epochs=30, and be an axis of a "
        "grid: run grid --sweep.network.groups=1,2,3 --sweep.network.shuffle=true,false. Exit "
        "status: 0 if every run is done, 1 if some failed or diverged, 2 for a mistake in the "
        "command."
    )
    run.add_argument(
        "name",
        metavar="NAME",
        help="experiment (see `list`), a file of your own (./mine.py), or grid (with --sweep.KEY)",
    )
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
        "--records",
        type=Path,
        metavar="DIR",
        help="take runs that are recorded there in place of training them, and record the others",
    )
    run.add_argument(
        "--skip-invalid", action="store_true", help="leave out cells that cannot be trained"
    )
    add_networks(run)
    add_profile(run)
    run.add_argument(
        "--dry-run", action="store_true", help="print the runs and their commands, start nothing"
    )

    train = add("train", commands.train, "train or fine-tune one network, on your own images say")
    train.epilog = (
        "As in: train shufflenet_g3_1x --config.data.name=folder:PATH, where PATH has "
        "train/CLASS/* and val/CLASS/*. With --init, --config.recipe.backbone_rate=0 trains the "
        "classifier alone, and 0.1 the rest at a tenth of its rate. The same command continues; "
        "`status` and `stop` take its --workdir."
    )
    train.add_argument(
        "name", metavar="NETWORK", help="as in `complexity`, or a family of networks"
    )
    train.add_argument(
        "--init", type=Path, metavar="DIR", help="start from the weights of a trained network"
    )
    add_workdir(train, False, "where everything is kept (default: runs/train-NETWORK)")
    train.add_argument("--seeds", type=_positive, default=1, metavar="N", help="how many runs (1)")
    train.add_argument(
        "--budget", default="imagenette", help="what the configuration starts from (imagenette)"
    )
    train.add_argument("--dry-run", action="store_true", help="print the runs, start nothing")
    add_profile(train)
    train.set_defaults(
        cells="*",
        launcher="local",
        jobs=None,
        records=None,
        skip_invalid=False,
        networks=None,
    )

    evaluate = add("evaluate", commands.evaluate, "evaluate a trained network on a data set")
    evaluate.add_argument("network", type=Path, metavar="DIR", help="a run's, or a saved network's")
    evaluate.add_argument(
        "--data",
        required=True,
        metavar="NAME",
        help="as --config.data.name: folder:PATH, or cifar10",
    )
    evaluate.add_argument("--data-dir", type=Path, metavar="DIR", help="default: TFDS's own")
    evaluate.add_argument("--batch-size", type=_positive, default=64, metavar="N")
    evaluate.add_argument("--plot", type=Path, metavar="FILE", help="plot the confusion matrix")
    add_json(evaluate)

    predict = add("predict", commands.predict, "print the best 5 labels of images")
    predict.add_argument("network", type=Path, metavar="DIR", help="a run's, or a saved network's")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="a file or a folder")
    predict.epilog = "Exit status: 1 if some image could not be read; the others are classified."
    add_json(predict)

    export = add("export", commands.export, "take a trained network to other runtimes and code")
    export.add_argument("network", type=Path, metavar="DIR", help="a run's, or a saved network's")
    export.add_argument(
        "--to",
        required=True,
        choices=("hub", "torch", "stablehlo", "onnx"),
        help="hub: a directory as of the Hugging Face hub; torch: a state dict for other code",
    )
    export.add_argument(
        "--out", type=Path, metavar="PATH", help="what to write (default: NETWORK.END here)"
    )
    export.add_argument(
        "--layout",
        choices=("megvii", "pytorchcv", "pytorchcv_b", "torchvision"),
        help="of --to torch: whose code is to load it",
    )
    export.add_argument(
        "--push", metavar="USER/NAME", help="of --to hub: upload it to this repository too"
    )

    add_json(status := add("status", commands.status, "show how the runs of a sweep stand"))
    add_workdir(status, True, "directory of the sweep")
    status.add_argument("--watch", action="store_true", help="keep it live until all have ended")

    stop = add(
        "stop", commands.stop, "end a sweep: what runs saves and ends, what waits is not begun"
    )
    add_workdir(stop, True, "directory of the sweep")

    report = add("report", commands.report, "print the table of a sweep, ours beside the paper's")
    report.add_argument(
        "name", nargs="?", metavar="NAME", help="with --records: the experiment, as of `run`"
    )
    add_workdir(report, False, "directory of the sweep")
    report.add_argument(
        "--records",
        type=Path,
        metavar="DIR",
        help="report what is recorded there, without a sweep; takes --config.KEY=VALUE as `run`",
    )
    report.add_argument("--budget", default="digits", help="with --records: as of `run`")
    add_networks(report)
    add_forms(report)

    compare = add("compare", commands.compare, "print in what sweeps differ, and their errors do")
    compare.add_argument(
        "workdirs", nargs="+", type=Path, metavar="DIR", help="two sweeps, or more"
    )
    add_forms(compare)

    flow = add("flow", commands.flow, "show what flows between groups in trained networks")
    add_workdir(flow, True, "directory of the sweep")
    flow.add_argument("--plot", type=Path, metavar="FILE", help="plot which groups know of which")

    results = add(
        "results", commands.results, "make the tables and plots of a checkout of its records"
    )
    results.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 if something differs"
    )

    add_json(
        add(
            "complexity", commands.complexity, "print multiply-adds and parameters of every network"
        )
    )

    bench = add("bench", commands.bench, "time ours against the plain form and other frameworks")
    add_json(bench)
    bench.add_argument("--quick", action="store_true", help="two minutes, to see that it works")
    bench.add_argument(
        "--peers", type=lambda text: text.split(","), metavar="A,B", help="only these peers"
    )
    bench.add_argument("--sections", default="*", metavar="GLOB", help="only these tables")
    bench.add_argument("--threads", type=_positive, default=2, metavar="N", help="default: 2")
    bench.add_argument(
        "--input",
        nargs="?",
        const=True,
        default=False,
        type=Path,
        metavar="DIR",
        help="time how images become batches, and only that; of class folders, or drawn ones",
    )
    bench.add_argument(
        "--seeds", action="store_true", help="time ways to train several seeds, and only those"
    )
    bench.add_argument(
        "--sweep", action="store_true", help="time what sweeps cost beside training, and only that"
    )
    bench.add_argument(
        "--against", metavar="COMMIT", help="with --sweep: a table by the code of a commit in turns"
    )
    bench.add_argument(
        "--learning",
        nargs="?",
        const="digits",
        metavar="BUDGET",
        help="learning curves beside PyTorch's, and only those; takes --config.KEY=VALUE as `run`",
    )
    bench.add_argument("--plot", type=Path, metavar="FILE", help="plot how time grows")

    prepare = add("prepare", commands.prepare, "download and prepare a TFDS data set, once")
    prepare.add_argument("name", metavar="NAME", help="as cifar10 or imagenette/320px-v2")
    prepare.add_argument(
        "archive",
        nargs="?",
        type=Path,
        metavar="PATH.zip",
        help="what tiny_imagenet is made of: tiny-imagenet-200.zip",
    )
    prepare.add_argument(
        "--from-tfrecord",
        type=Path,
        metavar="DIR",
        help="convert a copy as TFRecords, of TFDS or (imagenet2012) of Inception's kind",
    )
    prepare.add_argument("--data-dir", type=Path, metavar="DIR", help="default: TFDS's own")

    cell = add("cell", commands.cell, "train one run in this process; `run` starts these")
    cell.add_argument("name", metavar="CELL")
    cell.add_argument("--seed", type=_not_negative, default=0, metavar="N")
    add_workdir(cell, True, "directory of the sweep")
    add_networks(cell)
    add_profile(cell)
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


def _not_negative(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {number}")
    return number


def _keys(rest: Sequence[str], prefixes: Sequence[str]) -> dict[str, list[str]]:
    """What was given as ``--PREFIX.KEY=VALUE``, by prefix."""
    given: dict[str, list[str]] = {"config": [], "sweep": []}
    for argument in rest:
        prefix, dot, assignment = argument.removeprefix("--").partition(".")
        if not (argument.startswith("--") and dot and prefix in prefixes):
            raise InputError(f"unknown argument {argument!r}; see python -m experiments --help")
        if "=" not in assignment:
            raise InputError(f"{argument} needs a value: {argument}=VALUE")
        given[prefix].append(assignment)
    return given


if __name__ == "__main__":
    sys.exit(main())
