"""What a trained network says of the test images of a data set: errors, classes, confusion."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optax
from jaxtyping import Int64

from experiments.report import markdown
from shufflenet_jax import data
from shufflenet_jax.data import eval_batches
from shufflenet_jax.errors import InputError
from shufflenet_jax.evaluation import Evaluation, make_evaluate
from shufflenet_jax.train import create_state
from shufflenet_jax.trained import Trained


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, class by class.

    Attributes:
      data: The name of the data set, as others may see it.
      errors: Over all images.
      class_names: Those of the network.
      confusion: How many images of each class (row) were taken for each (column).
    """

    data: str
    errors: Evaluation
    class_names: tuple[str, ...]
    confusion: Int64[np.ndarray, "c c"]


def evaluate(trained: Trained, name: str, data_dir: Path | None, batch_size: int) -> Evaluated:
    """Evaluates a network on every test image of a data set.

    Args:
      trained: The network.
      name: Of the data set; see `shufflenet_jax.data.find`. Its classes are known by their names.
      data_dir: Where prepared data sets lie.
      batch_size: Images at a time.

    Raises:
      InputError: There is no such data set, it has classes that the network has not, or an image
        cannot be read.
    """
    dataset = data.load(name, data_dir)
    places = {each: number for number, each in enumerate(trained.class_names)}
    unknown = [each for each in dataset.class_names if each not in places]
    if unknown:
        raise InputError(
            f"{data.label(name)} has the class {unknown[0]!r}, which the network does not know"
        )
    ours = np.array([places[each] for each in dataset.class_names], np.int32)
    graphdef, state = create_state(trained.network, optax.identity())
    labels: list[np.ndarray] = []

    def batches() -> Any:
        made = eval_batches(dataset.test, trained.preprocessing, batch_size=batch_size)
        for batch in made:
            labels.append(ours[batch.label])
            yield batch._replace(label=labels[-1])

    answers = make_evaluate(graphdef, preprocessing=trained.preprocessing)(state, batches())
    count = len(trained.class_names)
    confusion = np.zeros((count, count), np.int64)
    shown = np.concatenate(labels)[answers.counts]
    np.add.at(confusion, (shown, np.asarray(answers.prediction)[answers.counts]), 1)
    return Evaluated(data.label(name), answers.evaluation(), trained.class_names, confusion)


def as_json(found: Evaluated) -> str:
    """All of it."""
    errors = dataclasses.asdict(found.errors)
    rows = [
        {"class": name, "images": images, "recall": recall, "precision": precision}
        for name, images, recall, precision in _classes(found)
    ]
    content = {
        "data": found.data,
        "top1_accuracy": 100 - errors["top1_error"],
        "top5_accuracy": 100 - errors["top5_error"],
        **errors,
        "classes": rows,
        "confusion": found.confusion.tolist(),
    }
    return json.dumps(content, indent=1)


def as_markdown(found: Evaluated) -> str:
    """Errors, a row a class, and the pairs that are mistaken most often."""
    errors = found.errors
    table = markdown.table("class", "images", "found of it, %", "right of what was taken for it, %")
    for name, images, recall, precision in _classes(found):
        table.add_row(name, str(images), *map(_percent, (recall, precision)))
    lines = [
        f"{errors.examples} images of {found.data}: top-1 error {errors.top1_error:.2f}%, "
        f"top-5 error {errors.top5_error:.2f}%",
        markdown.render(table),
    ]
    wrong = found.confusion - np.diag(np.diag(found.confusion))
    worst = [divmod(int(place), len(wrong)) for place in np.argsort(-wrong, axis=None)[:5]]
    mistaken = [
        f"{found.class_names[row]} for {found.class_names[column]}: {wrong[row, column]}"
        for row, column in worst
        if wrong[row, column]
    ]
    if mistaken:
        lines.append(f"Mistaken most often: {'; '.join(mistaken)}")
    return "\n\n".join(lines)


def _classes(found: Evaluated) -> list[tuple[str, int, float | None, float | None]]:
    """Of each class its name, images, recall and precision in percent; None of nothing."""
    right = np.diag(found.confusion)
    of, taken = found.confusion.sum(1), found.confusion.sum(0)

    def share(number: int, total: np.ndarray) -> float | None:
        return 100 * int(right[number]) / int(total[number]) if total[number] else None

    return [
        (name, int(of[number]), share(number, of), share(number, taken))
        for number, name in enumerate(found.class_names)
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def save_plot(found: Evaluated, path: Path) -> None:
    """Draws the confusion matrix, each row by the images of its class.

    Args:
      found: The evaluation.
      path: Where to; the ending says the format.

    Raises:
      InputError: The file cannot be written, or is of an unknown format.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    from experiments.report import figure_file

    count = len(found.class_names)
    side = min(4 + 0.25 * count, 16)
    figure, axes = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    shares = 100 * found.confusion / np.maximum(found.confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, label="% of the images of a class", shrink=0.8)
    if count <= 60:
        axes.set_xticks(range(count), found.class_names, rotation=90)
        axes.set_yticks(range(count), found.class_names)
    if count <= 20:
        for row in range(count):
            for column in range(count):
                if number := int(found.confusion[row, column]):
                    color = "white" if shares[row, column] > 50 else "black"
                    axes.text(column, row, str(number), ha="center", va="center", color=color)
    axes.set(xlabel="taken for", ylabel="class")
    axes.set_title(f"{found.data}, top-1 error {found.errors.top1_error:.2f}%")
    figure_file.save(figure, path)
