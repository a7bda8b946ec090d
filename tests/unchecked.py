"""Dataclasses as users make them: without the type checker that tests run under."""

import inspect
from typing import Any, TypeVar

Made = TypeVar("Made")


def unchecked(cls: type[Made], **fields: Any) -> Made:
    """What ``cls(**fields)`` is, or raises, where nothing but the class itself checks types."""
    made = object.__new__(cls)
    inspect.unwrap(cls.__init__)(made, **fields)
    return made
