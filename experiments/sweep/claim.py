"""A statement of the paper about a table, as data: a manifest can carry it, a report judges it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from shufflenet_jax.errors import InputError

Term = str | tuple[str, ...]
"""The mean error of a cell, by its name; of several names, the least of their mean errors."""

Contrast = Mapping[Term, float]
"""A weighted sum of terms."""

_MOST_CHOICES = 1000  # a claim may come from someone else, and each choice is tested


@dataclass(frozen=True)
class Claim:
    """A statement of the paper about a table.

    Attributes:
      text: The statement.
      contrasts: Weighted sums of mean errors that are all above zero if the statement is true, and
        only then. ``{"a": 1.0, ("b", "c"): -1.0}`` says that the best of b and c beats a.

    Raises:
      InputError: Something of it has another form.
    """

    text: str
    contrasts: tuple[Contrast, ...] = field(hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InputError(f"the text of a claim must be a text, not {self.text!r}")
        if not self.contrasts:
            raise InputError(f"the claim {self.text!r} has no contrasts")
        for contrast in self.contrasts:
            if not contrast:
                raise InputError(f"a contrast of the claim {self.text!r} is empty")
            choices = 1
            for term, weight in contrast.items():
                self._check(term, weight)
                choices *= len(names_of(term))
            if choices > _MOST_CHOICES:
                raise InputError(f"a contrast of the claim {self.text!r} has too many choices")

    def _check(self, term: object, weight: object) -> None:
        names = term if isinstance(term, tuple) else (term,)
        if not names or any(not isinstance(name, str) or not name for name in names):
            raise InputError(f"the claim {self.text!r} is of cells by name, not of {term!r}")
        if len(set(names)) < len(names):
            raise InputError(f"the claim {self.text!r} has a cell twice in {term!r}")
        if (
            not isinstance(weight, int | float)
            or isinstance(weight, bool)
            or not 1e-6 <= abs(weight) <= 1e6
        ):
            raise InputError(
                f"the claim {self.text!r} must weigh {term!r} with a number that is neither 0 nor "
                f"huge, not {str(weight)[:20]}"
            )

    def as_data(self) -> dict[str, Any]:
        """The claim as JSON can hold it; `from_data` reads it."""
        return {
            "text": self.text,
            "contrasts": [
                [
                    {"of": term if isinstance(term, str) else list(term), "weight": float(weight)}
                    for term, weight in contrast.items()
                ]
                for contrast in self.contrasts
            ],
        }

    @classmethod
    def from_data(cls, data: object) -> Self:
        """Reads what `as_data` made, and JSON has held since.

        Raises:
          InputError: It is damaged.
        """
        match data:
            case {"text": str(text), "contrasts": [*contrasts]}:
                return cls(text, tuple(_contrast(text, each) for each in contrasts))
        raise InputError(f"a claim has a text and contrasts, unlike {str(data)[:100]!r}")


def names_of(term: Term) -> tuple[str, ...]:
    """The cells of a term."""
    return (term,) if isinstance(term, str) else term


def _contrast(text: str, data: object) -> Contrast:
    contrast: dict[Term, float] = {}
    for entry in data if isinstance(data, list) else [data]:
        match entry:
            case {"of": str(term), "weight": weight} if term not in contrast:
                contrast[term] = weight
            case {"of": [*names], "weight": weight} if _new(names, contrast):
                contrast[tuple(names)] = weight
            case _:
                raise InputError(f"the claim {text!r} is damaged at {str(entry)[:100]!r}")
    return contrast


def _new(names: list[object], contrast: Contrast) -> bool:
    return all(isinstance(name, str) for name in names) and tuple(names) not in contrast
