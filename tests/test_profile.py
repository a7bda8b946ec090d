"""The trace of some training steps."""

import gzip
import json

import pytest
from sweeps import SHORT
from test_train import RECIPE, Linear, train

from experiments.__main__ import main


def events(directory):
    """Those of the one trace of a run, as Perfetto reads them."""
    (trace,) = directory.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))  # what TensorBoard reads
    return json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]


def steps(directory):
    return [
        int(event["args"]["step_num"])
        for event in events(directory)
        if event.get("name") == "train" and "step_num" in event.get("args", {})
    ]


@pytest.mark.parametrize(("asked", "traced"), [(3, [3, 4, 5]), (1000, [*range(3, 22)])])
def test_a_trace_holds_the_steps_that_were_asked_for(tmp_path, asked, traced):
    """At the end of a run too; and changes nothing else."""
    evaluation = train(tmp_path / "traced", RECIPE, network=Linear(), profile_steps=asked)
    assert steps(tmp_path / "traced") == traced
    names = {event.get("name", "") for event in events(tmp_path / "traced")}
    assert any("train_step" in name for name in names)
    assert train(tmp_path / "plain", RECIPE, network=Linear()) == evaluation
    assert not (tmp_path / "plain" / "profile").exists()


def test_runs_are_told_to_trace(tmp_path, capsys):
    arguments = ["run", "table3", *SHORT, "--workdir", str(tmp_path), "--dry-run"]
    assert main([*arguments, "--profile", "5"]) == 0
    assert capsys.readouterr().out.count(" --profile 5") == 4
    assert main([*arguments, "--profile", "0"]) == 2
