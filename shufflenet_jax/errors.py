"""The one error a user's mistake raises."""


class InputError(ValueError):
    """A mistake in what was asked for. The message is one line: what is wrong, and what to do."""
