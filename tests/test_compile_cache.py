"""What is compiled for one seed serves the next, changes no bit, and lies in no sweep."""

import os
import subprocess
from pathlib import Path

import pytest
from sweeps import ASSIGNMENTS, create_sweep

from experiments.sweep import compile_cache
from experiments.sweep.launch import COMMAND_LINE


@pytest.mark.slow
def test_seeds_of_a_cell_compile_once_and_end_in_the_same_bits(tmp_path):
    cache = tmp_path / "cache"

    def trained(name: str, seed: int, **environment: str) -> bytes:
        sweep = create_sweep(tmp_path / name, *ASSIGNMENTS, seeds=2)
        command = [*COMMAND_LINE, "cell", "0.25x-g3", "--seed", str(seed)]
        done = subprocess.run(
            [*command, "--workdir", tmp_path / name],
            env=os.environ | {"XDG_CACHE_HOME": str(cache)} | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        if name != "torn":
            assert done.stderr == ""
        run = sweep.run(sweep.cell("0.25x-g3"), seed)
        return (run.directory / "metrics.jsonl").read_bytes()

    def kept() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in cache.rglob("*-cache")}

    trained("sweep", 0)
    programs = kept()
    assert any(path.name.startswith("jit_train_step") for path in programs)
    second = trained("sweep", 1)
    assert kept() == programs  # each program that is compiled is kept: there was none
    assert second == trained("alone", 1, JAX_COMPILATION_CACHE_DIR="")
    assert not list((tmp_path / "sweep").rglob("*-cache"))
    for path, content in programs.items():  # as a process leaves it that is killed while it writes
        path.write_bytes(content[: len(content) // 2])
    assert second == trained("torn", 1)


def test_the_oldest_programs_go_first(tmp_path):
    for age in range(4):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(b"0" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    compile_cache._trim(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"0-cache", "1-cache"}


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_directory_that_others_may_write_is_not_used(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    updates = []
    monkeypatch.setattr(compile_cache.jax.config, "update", lambda *update: updates.append(update))
    compile_cache.enable()
    (directory,) = {update[1] for update in updates if update[0] == "jax_compilation_cache_dir"}
    assert Path(directory).is_relative_to(tmp_path)
    updates.clear()
    os.chmod(directory, mode)
    compile_cache.enable()
    assert updates == []


def test_who_has_no_home_compiles_without(monkeypatch, homeless):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    updates = []
    monkeypatch.setattr(compile_cache.jax.config, "update", lambda *update: updates.append(update))
    compile_cache.enable()
    assert updates == []
