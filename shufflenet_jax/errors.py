"""The one error a user's mistake raises."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in what was asked for. The message is one line: what is wrong, and what to do."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known names, or all of them."""
    names = list(known)
    if near := difflib.get_close_matches(name, names, n=3):
        return f"; did you mean {', '.join(near)}?"
    return f"; there are {', '.join(names) or 'none'}"
