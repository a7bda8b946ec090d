"""The benchmark: peers that compute the same, and tables that say what was measured."""

import dataclasses
import importlib.util
import json
import os
from argparse import Namespace
from functools import cache
from itertools import count
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from experiments.bench import (
    command,
    forms,
    inputs,
    machine,
    measure,
    seeds,
    sweep,
    tables,
    timings,
    whole,
    workloads,
)
from experiments.bench.costs import Cost
from experiments.bench.forms import Choice
from experiments.bench.peers import PEERS, Peer, Prepared, choose
from experiments.bench.timings import Timing
from experiments.bench.workloads import Net, Operation, Section, Workload
from shufflenet_jax.errors import InputError

# Every unit that the peers have: without and with groups in front, of stride 2 and 1.
SHORT = Net(3, 0.25, 32, short=True)
INFER = Workload(SHORT, "infer", 2)
# Few values a channel would make batch normalisation, and so the losses, too sensitive to rounding.
TRAIN = Workload(SHORT, "train", 16)
OPERATIONS = [
    Operation("conv", 3, 9, 1, 8, 3, 2),
    Operation("conv", 12, 6, 3, 24),
    Operation("conv", 8, 7, 8, 8, 3, 2),
    Operation("norm_relu", 6, 5),
    Operation("channel_shuffle", 12, 4, 3),
    Operation("max_pool", 4, 8),
    Operation("avg_pool", 4, 7),
]


@cache
def results_of(name: str, workload: Workload) -> dict[str, list[np.ndarray]]:
    """The results of every form of a peer."""
    prepare = PEERS[name].forms(workload, inputs.network_of(workload))
    return {form: forms.first_results(make()) for form, make in prepare.items()}


def assert_agree(name: str, workload: Workload) -> None:
    (ours,) = results_of("ours", workload).values()
    for form, results in results_of(name, workload).items():
        apart = forms.difference(ours, results)
        assert apart < timings.tolerance(workload, "float32"), form


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("name", ["plain", "torch"])
def test_peers_compute_the_same_operations_and_gradients(name, operation):
    if name == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    # In training mode the results are the output and all gradients.
    assert_agree(name, Workload(operation, "train", 3))
    assert_agree(name, Workload(operation, "infer", 3))


@pytest.mark.parametrize("name", ["plain", "torch"])
def test_peers_compute_the_same_logits(name):
    if name == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    assert_agree(name, INFER)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "torch"])
def test_peers_have_the_same_losses_over_three_steps(name):
    if name == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    for losses in map(np.array, results_of(name, TRAIN).values()):
        assert losses[0] > losses[1] > losses[2]
    assert_agree(name, TRAIN)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter's and TensorFlow's own code
@pytest.mark.parametrize(
    ("name", "workload"), [("onnxruntime", INFER), ("openvino", INFER), ("keras", TRAIN)]
)
def test_other_frameworks_agree(name, workload):
    if reason := PEERS[name].missing():
        pytest.skip(reason)
    assert_agree(name, workload)


@pytest.mark.filterwarnings("ignore")  # of the exporter's own code
def test_the_onnx_graph_has_one_transpose_for_each_shuffle():
    """Written for another layout, a shuffle becomes three, and the engines run at half speed."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    if reason := PEERS["onnxruntime"].missing():
        pytest.skip(reason)
    from experiments.bench import onnx_graph

    network = inputs.network(SHORT)
    graph, images = onnx_graph.export(INFER, network)
    assert images.shape == (2, 3, 32, 32)
    operators = [node.op_type for node in onnx.load_from_string(graph).graph.node]
    assert operators.count("Transpose") == sum(len(stage) for stage in network.stages)


def test_torch_is_tried_in_each_layout_and_folded():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    layouts = {
        "channels_last, NHWC shuffle",
        "channels_last",
        "channels_last, torch.channel_shuffle",
        "NCHW",
    }
    network = inputs.network(SHORT)
    assert set(PEERS["torch"].forms(TRAIN, network)) == layouts
    folded = {f"{layout}, BN folded" for layout in layouts}
    assert set(PEERS["torch"].forms(INFER, network)) == layouts | folded


def form(takes: float, value: float = 1.0):
    """Prepares what takes so many seconds and has this result."""
    return lambda: Prepared(lambda: sleep(takes), lambda _: [np.array([value])])


def breaks():
    raise ValueError("no such layout\nand more")


def test_the_fastest_form_is_chosen_and_those_that_fail_are_named():
    tried = {
        "slow": form(0.05),
        "broken": breaks,
        "fast": form(0.0),
        "wrong": form(0.0, 1.5),
        "not a number": form(0.0, float("nan")),
    }
    choice, prepared = forms.choose(tried, [np.array([1.0])] * 3, 0.1)
    assert choice.form == "fast"
    assert prepared is not None
    assert set(choice.milliseconds) == {"slow", "fast"}
    assert choice.milliseconds["slow"] >= 50
    assert choice.failures == {
        "broken": "ValueError: no such layout",
        "wrong": "its results are 0.5 from ours, more than 0.1",
        "not a number": "its results are nan from ours, more than 0.1",
    }


def test_a_peer_without_a_form_that_works_is_not_measured():
    choice, prepared = forms.choose({"broken": breaks}, [np.array([1.0])] * 3, 0.1)
    assert prepared is None
    assert choice == Choice(failures={"broken": "ValueError: no such layout"})


class HasNoForms(Peer):
    def forms(self, workload, network):
        raise RuntimeError("not for this processor")


def test_a_peer_that_cannot_say_its_forms_is_not_measured():
    workload = Workload(Operation("avg_pool", 4, 8), "infer", 2)
    reason = timings._prepare(workload, HasNoForms("has none", "peer_jax"), [np.ones(1)])
    assert reason == "RuntimeError: not for this processor"


class Dies(Peer):
    def forms(self, workload, network):
        os._exit(1)


class DiesLater(Peer):
    """Its process dies in its first turn, after the three runs that are compared."""

    def forms(self, workload, network):
        (prepare,) = PEERS["plain"].forms(workload, network).values()
        prepared, runs = prepare(), count()
        return {
            "short-lived": lambda: Prepared(
                lambda: prepared.run() if next(runs) < 3 else os._exit(1), prepared.result
            )
        }


class HasTwoForms(Peer):
    """One of them fails."""

    def forms(self, workload, network):
        return {"broken": breaks, **PEERS["plain"].forms(workload, network)}


@pytest.mark.slow
def test_what_fails_does_not_stop_the_rest():
    workload = Workload(Operation("avg_pool", 4, 8), "infer", 2, threads=1)
    peers = [
        PEERS["ours"],
        Dies("dies", "peer_jax"),
        DiesLater("dies later", "peer_jax"),
        HasTwoForms("has two", "peer_jax"),
    ]
    found = {each.peer: each for each in timings.time_workload(workload, peers, 2, 0.0)}
    assert list(found) == [peer.name for peer in peers]
    assert found["dies"].failure == "the process died"
    assert found["dies later"].failure == "the process died"
    for name, chosen in (("ours", "CHWN"), ("has two", "NHWC")):
        assert not found[name].failure
        assert len(found[name].milliseconds) == 2
        assert found[name].choice.form == chosen
    assert found["has two"].choice.failures == {"broken": "ValueError: no such layout"}


def test_a_peer_that_is_not_installed_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert PEERS["torch"].missing() == "torch not installed: pip install -e '.[bench]'"
    assert PEERS["ours"].missing() is None
    results = fake_results(skipped={"torch": PEERS["torch"].missing()})
    assert "torch is left out: torch not installed" in tables.as_markdown(results)


def test_ours_always_takes_part():
    assert [peer.name for peer in choose(["keras", "plain"])] == ["ours", "plain", "keras"]
    with pytest.raises(InputError, match="unknown peer 'caffe'; there are ours, plain"):
        choose(["caffe"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threads": 10**6}, "1000000 threads, but"),
        ({"against": "HEAD"}, "--against is for --sweep"),
        ({"sections": "none"}, "no section matches 'none'"),
        ({"peers": ["caffe"]}, "unknown peer"),
    ],
)
def test_mistakes_are_answered_in_one_line(changed, message):
    with pytest.raises(InputError, match=message) as raised:
        command.run(options(**changed))
    assert "\n" not in str(raised.value)


def test_a_plot_needs_matplotlib(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs matplotlib"):
        command.run(options(plot="plot.png"))


def test_ratios_are_ours_over_theirs():
    (section,) = tables.summary(fake_results())["sections"]
    small, large = section["rows"]
    assert small["peers"]["ours"]["median_ms"] == 20
    assert small["peers"]["ours"]["quartiles_ms"] == [15, 25]
    assert small["peers"]["ours"]["ratio"] == 1
    assert small["peers"]["plain"]["ratio"] == 0.2
    assert small["peers"]["torch"]["ratio"] == 2
    assert large["peers"]["torch"] == {
        "failure": "each of its forms failed",
        "forms": {"NCHW": {"failure": "its results are 0.5 from ours"}},
    }
    (cost,) = tables.summary(fake_results())["costs"]
    assert cost["peers"]["torch"]["memory_ratio"] == 0.5


def test_the_share_of_the_peak_counts_two_operations_a_multiply_add():
    (section,) = tables.summary(fake_results())["sections"]
    # 4 images of 28 x 28 pixels, 240 to 60 channels in 3 groups, in 20 ms of 100 GFLOP/s.
    macs = 4 * 28 * 28 * 240 // 3 * 60
    assert section["rows"][0]["macs"] == macs
    assert section["rows"][0]["peers"]["ours"]["peak_share"] == pytest.approx(
        2 * macs / 0.02 / 100e9
    )


@pytest.mark.slow
def test_a_training_step_counts_three_times_its_forward_pass():
    network = Net(8, 0.25, 64)
    forward = inputs.macs(Workload(network, "infer", 1))
    assert inputs.macs(Workload(network, "train", 5)) == 15 * forward


def test_the_best_form_is_reported_by_name():
    (section,) = tables.summary(fake_results())["sections"]
    small, _ = section["rows"]
    assert small["peers"]["torch"]["form"] == "channels_last"
    assert small["peers"]["torch"]["forms"] == {
        "channels_last": {"median_ms": 11.0},
        "NCHW": {"median_ms": 12.0},
        "sparse": {"failure": "ValueError: no"},
    }
    text = tables.as_markdown(fake_results())
    assert "| 2.00 (10.0) channels_last |" in text
    assert "torch, sparse, infer conv 1x1 /1, 240-60 at 28px, g=3, batch 4, 2 threads: Val" in text


def test_markdown_says_what_a_reader_needs():
    text = tables.as_markdown(fake_results())
    assert "here: a processor with AVX2, 2 cores" in text
    assert "20.0 [15.0, 25.0]" in text
    assert "0.20 (100)" in text
    assert "2.00 (10.0)" in text
    assert "Load 0.1 before, 2.0 after" in text
    assert "WARNING: the machine was not idle, so the ratios of 1 workloads" in text
    assert "its results are 0.5 from ours" in text
    assert "WARNING" not in tables.as_markdown(fake_results(others=0.0))


def test_instructions_are_those_of_the_processor(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: x\nflags\t: fpu avx avx2 avx512f avx512bw\nflags\t: fpu\n")
    assert machine.instructions(cpuinfo) == ["AVX2", "AVX-512"]
    cpuinfo.write_text("flags\t: fpu avx avx2_of_another\n")
    assert machine.instructions(cpuinfo) == []
    assert machine.instructions(tmp_path / "none") == []


def test_json_round_trip():
    results = fake_results()
    assert json.loads(tables.as_json(results)) == tables.summary(results)


def test_a_plot_has_a_panel_for_each_axis(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from experiments.bench import plot

    plot.save(tables.summary(fake_results()), tmp_path / "scaling.svg")
    assert "batch" in (tmp_path / "scaling.svg").read_text()


def test_every_workload_is_named_once_in_its_table():
    for plan in (workloads.full(2), workloads.full(1), workloads.quick(2)):
        for section in plan.sections:
            names = [str(workload) for workload in section.workloads]
            assert len(set(names)) == len(names)


@pytest.mark.slow
def test_the_quick_benchmark(capsys, monkeypatch, cache_dir):
    # Programs that stand in several tables are compiled once, with little effort.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache_dir / "bench"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    printed = command.run(options(quick=True, json=True, peers=["plain"], threads=1))
    report = json.loads(printed)
    rows = [row for section in report["sections"] for row in section["rows"]]
    assert {name for row in rows for name in row["peers"]} == {"ours", "plain"}
    for row in rows:
        for peer in row["peers"].values():
            assert len(peer["milliseconds"]) >= 3
            assert 0 < peer["quartiles_ms"][0] <= peer["median_ms"] <= peer["quartiles_ms"][1]
    for row in report["costs"]:
        assert all(peer["peak_mib"] > 0 for peer in row["peers"].values())
        assert all(peer["build_seconds"] > 0 for peer in row["peers"].values())
    assert report["peak_gflops"]["1"] > 0
    assert "Networks: training step" in capsys.readouterr().err


def test_learning_curves_need_pytorch_and_a_shufflenet(monkeypatch):
    missing = {"torch": dataclasses.replace(PEERS["torch"], requires=("no_such_package",))}
    with monkeypatch.context() as patched:
        patched.setattr("experiments.bench.learning.PEERS", missing)
        with pytest.raises(InputError, match="no_such_package not installed"):
            command.run(options(learning="digits"))
    pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(InputError, match="only a shufflenet is written in PyTorch too"):
        command.run(options(learning="digits", assignments=["network.name=vgg16"]))


@pytest.mark.slow
def test_pytorch_learns_as_this_code_from_the_same_start():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    shrunk = ["recipe.epochs=1", "recipe.batch_size=32", "network.repeats=1,1,1"]
    printed = command.run(options(learning="digits", assignments=shrunk))
    ours, same, own = (
        float(line.split("|")[2].split()[0])
        for line in printed.splitlines()
        if line.startswith(("| this", "| PyTorch"))
    )
    assert ours == pytest.approx(same, abs=15)
    assert max(ours, same, own) < 70  # by chance it is 90


def options(**changed) -> Namespace:
    defaults = {
        "json": False,
        "quick": True,
        "peers": None,
        "plot": None,
        "threads": 1,
        "sections": "*",
        "input": False,
        "seeds": False,
        "sweep": False,
        "against": None,
        "learning": None,
        "assignments": [],
    }
    return Namespace(**defaults | changed)


def fake_results(skipped=None, others=1.0) -> tables.Results:
    operation = Operation("conv", 240, 28, 3, 60)
    small, large = (Workload(operation, "infer", batch) for batch in (4, 8))
    timings = [
        Timing(small, "ours", (10.0, 20.0, 30.0), others),
        Timing(small, "plain", (90.0, 100.0, 110.0), others),
        Timing(
            small,
            "torch",
            (10.0, 10.0, 10.0),
            others,
            choice=Choice(
                "channels_last",
                {"channels_last": 11.0, "NCHW": 12.0},
                {"sparse": "ValueError: no"},
            ),
        ),
        Timing(large, "ours", (40.0, 40.0)),
        Timing(
            large,
            "torch",
            failure="each of its forms failed",
            choice=Choice(failures={"NCHW": "its results are 0.5 from ours"}),
        ),
    ]
    step = Workload(Net(3, 0.25, 32), "train", 16)
    return tables.Results(
        machine={
            "host": "here",
            "processor": "a processor with AVX2",
            "instructions": ["AVX2"],
            "cores": 2,
            "device": "cpu",
            "platform": "cpu",
            "precision": "float32",
            "python": "3.11",
            "versions": {"jax": "0.10"},
        },
        peak_gflops={2: 100.0},
        load=(0.1, 2.0),
        skipped=skipped or {},
        sections=[(Section("Scaling: batch", [small, large], axis="batch"), timings)],
        costs=[Cost(step, "ours", 5.0, 100.0), Cost(step, "torch", 0.5, 200.0)],
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["vmap", "lax.map"])
def test_seeds_in_one_program_take_the_steps_that_each_takes_alone(way):
    workload = Workload(SHORT, "train", 16, 2)
    alone, together = seeds._steps(workload, "in turn", 1), seeds._steps(workload, way, 2)
    for _ in range(2):
        losses = together()
        assert losses.shape == (2,)
        assert losses[0] != losses[1]  # each has images of its own
        np.testing.assert_allclose(losses[0], alone(), rtol=1e-4)


@pytest.mark.slow
def test_the_cost_of_a_sweep_is_that_of_its_commands(tmp_path):
    """All cells are planned, found again as they were left, and in every row there are numbers."""
    rows = [
        [entry.strip() for entry in line.split("|")[1:-1]]
        for line in sweep.of_many(tmp_path / "sweep", count=24).splitlines()
    ]
    assert rows[0] == ["24 cells", "seconds", "peak memory, MiB"]
    assert [row[0] for row in rows[2:]] == [
        "planned and written",
        "run table3 --seeds 2 --dry-run",
        "status",
        "status --json",
        "report",
        "report --format json",
    ]
    assert all(float(row[1]) >= 0 and float(row[2]) > 50 for row in rows[2:])


def test_the_parts_of_a_cell_are_differences_between_runs(monkeypatch):
    """Of processes that would take 5 s and 0.5 an epoch, and 8 where nothing is compiled."""
    compiled = set()

    def timed(argv, environment):
        given = dict(each.split("=") for each in argv if "=" in each)
        cache = environment["XDG_CACHE_HOME"], given["--config.recipe.epochs"]
        seconds = 5 + 0.5 * int(given["--config.recipe.epochs"]) + 8 * (cache not in compiled)
        compiled.add(cache)
        return measure.Spent(1, seconds, 1, "")

    monkeypatch.setattr(whole, "timed", timed)
    parts = whole.parts(whole.Runner(Path("nowhere")))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in parts.splitlines()[2:]]
    assert [row[1:] for row in rows] == [
        ["8.0", "44%"],
        ["5.0", "28%"],
        ["5.0", "28%"],
        ["18.0", "100%"],
    ]


def test_a_row_is_held_against_that_of_other_code(monkeypatch):
    """Which takes twice as long here; neither meets programs of the run before."""
    places = []

    def timed(argv, environment):
        places.append((environment["PYTHONPATH"], environment["XDG_CACHE_HOME"]))
        assert argv[2].startswith(environment["PYTHONPATH"])
        slow = "old" in environment["PYTHONPATH"]
        return measure.Spent(40 * (1 + slow), 60 * (1 + slow), 1000, "")

    monkeypatch.setattr(whole, "timed", timed)
    table = whole.row(whole.Runner(Path("nowhere")), {"this code": Path("new"), "abc": Path("old")})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[0][1:] == ["this code", "abc", "ratio"]
    assert [row[1:] for row in rows[2:]] == [
        ["40.0", "80.0", "0.50"],
        ["360.0", "180.0", "2.00"],
        ["15.0", "30.0", "0.50"],
        ["1000.0", "1000.0", "1.00"],
    ]
    assert len({cache for _, cache in places}) == len(places)
    assert [code for code, _ in places][-4:] == ["new", "old"] * 2


def test_the_code_of_a_commit_is_unpacked():
    if (Path(sweep.__file__).parents[2] / ".git").exists():
        with whole.code_of("HEAD") as code:
            assert (code / "experiments" / "__main__.py").is_file()
    with pytest.raises(InputError, match="no code of 'nonsense'"), whole.code_of("nonsense"):
        pass
