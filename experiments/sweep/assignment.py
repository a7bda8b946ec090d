"""``KEY=VALUE``, as a user sets a key of the configuration on the command line."""

from typing import Any

from shufflenet_jax.errors import InputError


def split(assignment: str) -> tuple[str, str]:
    """The key, and the text of the value.

    Raises:
      InputError: There is no value.
    """
    key, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"--config.{key} needs a value: --config.{key}=VALUE")
    return key, text


def parse(key: str, text: str, old: Any) -> Any:
    """Reads text as a value of the type of the one it replaces. Nothing is evaluated.

    Raises:
      InputError: It is none of that type.
    """
    kind = type(old)
    if kind is tuple:
        parts = text.strip("()[], ").split(",")
        # How many units or channels there are is the network's to judge.
        if len(parts) != len(old) and not key.startswith("network."):
            example = ",".join(map(str, old))
            raise InputError(f"{key} must be {len(old)} values, as {example}, not {text!r}")
        return tuple(parse(key, part.strip(), old[0]) for part in parts)
    if kind is str and text.lower() in ("none", "null"):
        raise InputError(f"{key} must be a text, not {text}: leave it empty for the default")
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "an integer", float: "a number"}[kind]
        raise InputError(f"{key} must be {expected}, not {text!r}") from None
