"""What a run was begun with is what it goes on with."""

import json
import signal

import pytest
from sweeps import CELLS, create_sweep, the_run

from experiments.sweep import manifest, worker
from shufflenet_jax.errors import InputError


@pytest.fixture
def begun(tmp_path):
    """A sweep, and a run of it that was begun."""
    create_sweep(tmp_path)
    run = the_run(tmp_path, CELLS[0])
    run.directory.mkdir(parents=True)
    return manifest.open_sweep(tmp_path), run


def test_a_run_refuses_another_configuration(begun):
    sweep, run = begun
    values = dict(sweep.entries[run.cell.name].values)
    recorded = values | {"recipe.epochs": values["recipe.epochs"] + 1}
    (run.directory / "config.json").write_text(json.dumps(recorded))
    with pytest.raises(InputError, match=r"begun with another configuration \(recipe.epochs: "):
        worker.train(sweep, run)
    assert json.loads((run.directory / "config.json").read_text()) == recorded


def test_a_run_refuses_other_data(begun):
    sweep, run = begun
    recorded = sweep.data_of(run.cell) | {"fingerprint": "0" * 16}
    (run.directory / "data.json").write_text(json.dumps(recorded))
    assert worker.train(sweep, run) == "failed"
    assert "digits has changed" in run.result["reason"]
    assert not run.result["transient"]


@pytest.mark.parametrize("torn", ["", '{"recipe.ep', "[]", "[" * 100_000])
def test_a_torn_record_is_written_anew(torn, begun):
    sweep, run = begun
    (run.directory / "config.json").write_text(torn)
    with worker.asked_to_end(sweep) as asked:
        signal.raise_signal(signal.SIGTERM)
        assert worker.train(sweep, run, asked) == "preempted"
    assert json.loads((run.directory / "config.json").read_text()) == dict(
        sweep.entries[run.cell.name].values
    )
