"""Drills on the files of one training run: what breaks them ends in an error or changes no bit."""

import contextlib
import errno
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from runs import ENDS, differences, network, start, train
from test_broken import AUGMENTED, BROKEN, NAMES, write_pets
from test_checkpoint import assert_same, state

from experiments import tables
from experiments.sweep import compile_cache, workdir
from shufflenet_jax import InputError, data
from shufflenet_jax.checkpoint import Checkpoints, _digests
from shufflenet_jax.fit import Intervals, Preempted, fit
from shufflenet_jax.metrics import read_metrics
from shufflenet_jax.recipe import Recipe

pytestmark = pytest.mark.faults

EPOCHS = 4
PAGE = 4096


@pytest.fixture(scope="module", autouse=True)
def compiled(cache_dir):
    """Dozens of runs of one network, in this process too: they compile once."""
    compile_cache.enable()
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert start(directory, EPOCHS).wait() == 0
    return directory


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """The same, killed in its third epoch: it has two checkpoints, and rows after the last."""
    directory = tmp_path_factory.mktemp("killed") / "run"
    kill_at(directory, EPOCHS, lambda: seals(directory) == set(ENDS[:2]))
    assert read_metrics(directory)[-1]["step"] > ENDS[1]
    return directory


def kill_at(directory, epochs, moment, after=0.0, **options):
    """Starts or continues a run, and kills it that long after a moment."""
    process = start(directory, epochs, **options)
    while not moment():
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.001)
    time.sleep(after)
    process.kill()
    process.wait()


def seals(directory: Path) -> set[int]:
    """The steps of the checkpoints that are sealed."""
    return {int(path.stem) for path in (directory / "checkpoints" / "sha256").glob("*.json")}


@dataclass(frozen=True)
class Disk:
    """A small file system of its own, and where it is mounted."""

    path: Path

    def fill(self, pages: int) -> None:
        """Takes all space but a few pages."""
        free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        (self.path / "filler").write_bytes(bytes(free - pages * PAGE))

    def free(self) -> None:
        """Gives it back."""
        (self.path / "filler").unlink()


@pytest.fixture
def mount() -> Iterator[Callable[[Path], Disk]]:
    """Mounts a disk over a directory, whose files it takes along."""
    with contextlib.ExitStack() as stack:

        def mount_at(path: Path) -> Disk:
            content = shutil.copytree(path, path.with_name(f"{path.name}.below"))
            command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
            try:
                done = subprocess.run(command, capture_output=True, text=True)
            except FileNotFoundError:
                pytest.skip("no file system can be mounted here: there is no mount")
            if done.returncode:
                pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "--lazy", str(path)], check=True)
            shutil.copytree(content, path, dirs_exist_ok=True)
            shutil.rmtree(content)
            return Disk(path)

        yield mount_at


# By where it must end: from which step the run goes on, with how many epochs between checkpoints,
# on what the disk is mounted, how many pages of 4 KiB are left, and what the error comes from. A
# checkpoint has about 60.
FULL = {
    "rows": (ENDS[1], 1, ".", 0, "write_atomically(path, "),
    "row": (ENDS[0], EPOCHS, ".", 1, "self._file.write(line)"),
    "events": (ENDS[1], EPOCHS, ".", 2, "self._records.flush()"),
    "save, begin": (ENDS[1], 1, ".", 3, "/orbax/checkpoint/"),
    "save, middle": (ENDS[1], 1, ".", 20, "/orbax/checkpoint/"),
    "save, end": (ENDS[1], 1, ".", 40, "/orbax/checkpoint/"),
    "seal": (ENDS[1], 1, "checkpoints/sha256", 0, "write_atomically(self._seals"),
}


@pytest.mark.parametrize("name", FULL)
def test_full_disk(name, tmp_path, mount, whole, killed, drill):
    """It fills up while a run is down, which goes on, and ends where nothing more can be written.

    Once there is space again, it goes on to the same bits.
    """
    step, checkpoint, mounted, pages, place = FULL[name]
    directory = back_to(step, shutil.copytree(killed, tmp_path / "run"))
    disk = mount(directory / mounted)
    before = {step: _digests(directory / "checkpoints" / str(step)) for step in seals(directory)}
    rows = read_metrics(directory)
    disk.fill(pages)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = start(directory, EPOCHS, checkpoint, **pipes)
    try:
        steps, errors = process.communicate(timeout=300)  # else it hangs
    finally:
        process.kill()
    assert place in errors
    failed = process.returncode != 0
    clear = "OSError: [Errno 28] No space left on device" in errors.splitlines()[-1]
    # Once a checkpoint is whole, the oldest goes; so it may be before the new one is sealed.
    kept = {step: _digests(directory / "checkpoints" / str(step)) for step in seals(directory)}
    lost = kept[step] != before[step] or (kept != before and name != "seal")
    kept_rows = read_metrics(directory)
    logged = {row["step"] for row in kept_rows if row["split"] == "train"}
    lost += sum(row not in kept_rows for row in rows) + len(set(map(int, steps.split())) - logged)
    disk.free()
    assert start(directory, EPOCHS).wait(timeout=300) == 0
    drill(
        "full disk, then space again",
        tried=1,
        lost=lost,
        wrong=(not failed) + (not clear) + len(differences(whole, directory)),
    )


def back_to(step: int, directory: Path) -> Path:
    """Takes later checkpoints and rows away from a run."""
    for later in seals(directory):
        if later > step:
            shutil.rmtree(directory / "checkpoints" / str(later))
            (directory / "checkpoints" / "sha256" / f"{later}.json").unlink()
    rows = [row for row in read_metrics(directory) if row["step"] <= step]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


# Orbax's threads complain of it too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_full_disk_at_every_page(tmp_path, mount, drill):
    """A second checkpoint is saved with one page more each time, until there are enough."""
    (tmp_path / "disk").mkdir()
    disk, places, lost, wrong = mount(tmp_path / "disk"), set(), 0, 0
    for pages in range(100):
        directory = disk.path / str(pages)
        checkpoints = Checkpoints(directory)
        checkpoints.save(state(1))
        checkpoints.wait()
        disk.fill(pages)
        try:
            checkpoints.save(state(2), [{"step": 2, "split": "train", "loss": 0.5}])
            checkpoints.wait()
        except OSError as error:
            places.add("arrays" if "RESOURCE_EXHAUSTED" in str(error.__cause__) else "others")
            wrong += error.errno != errno.ENOSPC
        else:
            break
        with contextlib.suppress(OSError):
            checkpoints.close()
        disk.free()
        lost += not saves_again(directory)
        shutil.rmtree(directory)
    checkpoints.close()
    assert pages > 10
    assert places == {"arrays", "others"}
    drill("full disk at every page of a save", tried=pages, lost=lost, wrong=wrong)


def saves_again(directory: Path) -> bool:
    """Whether the first checkpoint is what it was, and a second can follow it."""
    checkpoints = Checkpoints(directory)
    assert_same(checkpoints.restore(like=state(0)).state, state(1))
    checkpoints.save(state(2))
    checkpoints.close()
    checkpoints = Checkpoints(directory)
    assert_same(checkpoints.restore(like=state(0)).state, state(2))
    checkpoints.close()
    return sorted(os.listdir(directory)) == ["1", "2", "sha256"]


def flip_a_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


DAMAGES = (flip_a_bit, truncate, remove)


def files_of(run: Path, step: int) -> list[Path]:
    """The files of a checkpoint, and its seal, relative to the run's directory."""
    seal = run / "checkpoints" / "sha256" / f"{step}.json"
    files = [path for path in (run / "checkpoints" / str(step)).rglob("*") if path.is_file()]
    return sorted(path.relative_to(run) for path in (*files, seal))


def damaged_at_random(run: Path, step: int, count: int) -> Iterator[Callable[[Path], None]]:
    """Ways to damage a checkpoint: all three of its seal, others of its files."""
    rng = random.Random(step)
    *files, seal = files_of(run, step)
    chosen = rng.sample(list(itertools.product(DAMAGES, files)), count - len(DAMAGES))
    for damage, file in (*((damage, seal) for damage in DAMAGES), *chosen):
        yield lambda copy, damage=damage, file=file: damage(copy / file, rng)


def test_a_damaged_checkpoint(tmp_path, whole, killed, drill, caplog):
    """The one before is taken, and the log says so."""
    wrong, tries = Counter(), 21
    for damage in damaged_at_random(killed, ENDS[1], tries):
        copy = shutil.copytree(killed, tmp_path / "copy")
        damage(copy)
        caplog.clear()
        steps = []
        train(copy, EPOCHS, on_progress=lambda progress, steps=steps: steps.append(progress.step))
        assert steps[0] == ENDS[0] + 1
        (said,) = said_of_checkpoints(caplog)
        assert re.match(f"checkpoint of step {ENDS[1]} .*; going back to the one before", said)
        wrong[bool(differences(whole, copy))] += 1
        shutil.rmtree(copy)
    drill("damaged checkpoint", tried=tries, wrong=wrong[True])


def said_of_checkpoints(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "shufflenet_jax.checkpoint"]


def test_no_checkpoint_is_intact(tmp_path, whole, killed, drill, caplog):
    """The run starts from the beginning, and says so; what is damaged is still there."""
    wrong, tries = 0, 4
    damages = [damaged_at_random(killed, step, tries) for step in ENDS[:2]]
    for damage, other_damage in zip(*damages, strict=True):
        copy = shutil.copytree(killed, tmp_path / "copy")
        damage(copy)
        other_damage(copy)
        caplog.clear()
        steps = []
        train(copy, EPOCHS, on_progress=lambda progress, steps=steps: steps.append(progress.step))
        assert steps[0] == 1
        said = said_of_checkpoints(caplog)
        assert len(said) == 3
        assert said[-1] == "no checkpoint is left; starting from the beginning"
        wrong += bool(differences(whole, copy))
        shutil.rmtree(copy)
    drill("all checkpoints damaged", tried=tries, wrong=wrong)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


METRICS_DAMAGES = {
    "the last line is torn": lambda lines: [*lines[:-1], lines[-1][:20]],
    "every line is there twice": lambda lines: [line for line in lines for _ in range(2)],
    "lines are there again, in disorder": lambda lines: [*lines, *lines[5:10], *lines[3:30]],
    "two writers tore a line": lambda lines: [
        *lines[:7],
        lines[7][:30],
        *lines[8:12],
        lines[7][30:],
    ],
    "zeros at the end": lambda lines: [*lines, bytes(1000)],
    "zeros inside": lambda lines: [*lines[:20], bytes(500), *lines[25:]],
    "it is empty": lambda lines: [],
}


def test_damaged_metrics(tmp_path, whole, killed, drill):
    """Of metrics.jsonl and, in the same runs, TensorBoard events that end anywhere."""
    rng, wrong, duplicated = random.Random(0), 0, 0
    for damage in METRICS_DAMAGES.values():
        copy = shutil.copytree(killed, tmp_path / "copy")
        path = copy / "metrics.jsonl"
        path.write_bytes(b"".join(damage(lines_of(path))))
        for events in (copy / "events").iterdir():
            truncate(events, rng)
        duplicated += repeated(read_metrics(copy))
        assert all(row in read_metrics(whole) for row in read_metrics(copy))
        train(copy, EPOCHS)
        duplicated += repeated(read_metrics(copy))
        wrong += bool(differences(whole, copy))
        shutil.rmtree(copy)
    tried = len(METRICS_DAMAGES)
    drill("damaged metrics.jsonl and events", tried=tried, duplicated=duplicated, wrong=wrong)


def repeated(rows: list[dict]) -> int:
    return len(rows) - len({(row["step"], row["split"]) for row in rows})


def test_killed_while_saving(tmp_path, drill):
    """SIGKILL while a checkpoint is written, before it is sealed and after, again and again."""
    epochs, kills, rng = 20, 12, random.Random(0)
    whole, directory, output = tmp_path / "whole", tmp_path / "killed", tmp_path / "output"
    assert start(whole, epochs).wait() == 0
    phases, lost, sealed = Counter(), 0, set()

    def writes() -> bool:
        """Once it trains: what was begun before is gone by then."""
        return output.stat().st_size > 0 and unfinished(directory)

    def seals_next() -> bool:
        return bool(finished(directory) - sealed)

    def sealed_one() -> bool:
        return bool(seals(directory) - sealed)

    for moment in kills // 3 * (writes, seals_next, sealed_one):
        with output.open("w") as file:
            kill_at(directory, epochs, moment, rng.uniform(0, 0.1), stdout=file)
        first = int(output.read_text().split()[0])
        lost += first <= max(sealed, default=0)  # it went on from one before
        sealed = seals(directory)
        phases[unfinished(directory), bool(finished(directory) - sealed)] += 1
    assert start(directory, epochs).wait() == 0
    assert len(phases) > 1
    assert not unfinished(directory)
    drill("SIGKILL while saving", tried=kills, lost=lost, wrong=len(differences(whole, directory)))


def unfinished(directory: Path) -> bool:
    """Whether there is what orbax writes before a checkpoint is whole."""
    return any((directory / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def finished(directory: Path) -> set[int]:
    """The steps of the checkpoints that are whole."""
    paths = (directory / "checkpoints").glob("*")
    return {int(path.name) for path in paths if path.name.isdecimal()}


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Callable[[dict], data.Dataset]:
    """Makes a data set of 40 images and 12, some unusual and some broken."""

    def make(broken: dict[int, bytes]) -> data.Dataset:
        root = tmp_path_factory.mktemp("pets")
        return data.load(f"folder:{write_pets(root / 'images', broken)}", root / "prepared")

    return make


RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.05, preprocessing=AUGMENTED)


def fit_pets(dataset: data.Dataset, directory: Path, broken: data.Broken, **options):
    return fit(
        network(),
        dataset,
        RECIPE,
        seed=0,
        directory=directory,
        intervals=Intervals(log=1, evaluate=1, checkpoint=1),
        broken=broken,
        **options,
    )


def test_torn_lists_of_broken_images(tmp_path, pets, drill, caplog):
    """skipped_train.json after a crash: the images in it are counted anew."""
    dataset, skip = pets(BROKEN), data.Broken("skip", 0.1)
    fit_pets(dataset, tmp_path / "whole", skip)
    begun = tmp_path / "begun"
    answers = itertools.chain([False] * 6, itertools.repeat(True))
    with pytest.raises(Preempted):
        fit_pets(dataset, begun, skip, interrupted=lambda: next(answers))
    content = (begun / "skipped_train.json").read_bytes()
    contents = (b"", content[: len(content) // 2], bytes(len(content)), b"7")
    wrong = 0
    for damaged in contents:
        copy = shutil.copytree(begun, tmp_path / "copy")
        (copy / "skipped_train.json").write_bytes(damaged)
        caplog.clear()
        fit_pets(dataset, copy, skip)
        assert "skipped_train.json is damaged; broken images are counted anew" in caplog.messages
        assert set(json.loads((copy / "skipped_train.json").read_bytes())) == NAMES["train"]
        wrong += bool(differences(tmp_path / "whole", copy))
        shutil.rmtree(copy)
    drill("damaged skipped_SPLIT.json", tried=len(contents), wrong=wrong)


def test_torn_progress(tmp_path, drill):
    """It is as if there was none."""
    run = workdir.Run(tables.load("table3").cells[0], 0, tmp_path)
    content = json.dumps({"step": 5, "total": 10, "loss": 1.5, "rate": 2.0}).encode()
    contents = (b"", content[:20], bytes(len(content)), b"\xff" * 9)
    wrong = 0
    for damaged in contents:
        (tmp_path / "progress.json").write_bytes(damaged)
        wrong += any(run.progress.values())
    drill("damaged progress.json", tried=len(contents), wrong=wrong)


def test_corrupt_images_in_a_run(tmp_path, pets, drill):
    """Empty, cut off and no image, one in a data set; with CMYK, grayscale and 16 bits in each."""
    whole = pets({})
    fit_pets(whole, tmp_path / "whole", data.NEVER_SKIPPED)  # with the unusual ones
    images = list(data.train_batches(whole.train, AUGMENTED, batch_size=16, seed=0, steps=10))
    wrong = 0
    for index, content in BROKEN.items():
        dataset = pets({index: content})
        (name,) = (name for name in NAMES["train"] if name.endswith(f"{index:02}.jpg"))
        with pytest.raises(InputError, match=f"cannot read image {name}"):
            fit_pets(dataset, tmp_path / f"error{index}", data.NEVER_SKIPPED)
        with pytest.raises(InputError, match=f"1 of 40 train images are broken.*{name}"):
            fit_pets(dataset, tmp_path / f"budget{index}", data.Broken("skip", 0.02))
        fit_pets(dataset, tmp_path / f"skip{index}", data.Broken("skip", 0.1))
        rows = read_metrics(tmp_path / f"skip{index}")
        wrong += sum(row["skipped"] for row in rows if row["split"] == "train") != RECIPE.epochs
        skipped = data.Skipped("train", 40, 0.1, tmp_path)
        for one, other in zip(
            images,
            data.train_batches(
                dataset.train, AUGMENTED, batch_size=16, seed=0, steps=10, skipped=skipped
            ),
            strict=True,
        ):
            wrong += one.image[other.mask].tobytes() != other.image[other.mask].tobytes()
    drill("corrupt images in a run", tried=3 * len(BROKEN), wrong=wrong)
