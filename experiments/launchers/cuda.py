"""The NVIDIA GPUs of this machine, and whether JAX would use any; JAX is not started for it."""

import importlib.util
import os
import pkgutil
import re
from importlib import metadata
from pathlib import Path

INSTALL = "pip install -e '.[cuda]'"


def is_used_by_jax() -> bool:
    """Whether JAX as it is installed here runs on NVIDIA GPUs where it finds some."""
    return is_wanted() and any("cuda" in name for name in _plugins())


def is_wanted() -> bool:
    """Whether the environment leaves it to JAX, or names CUDA (JAX_PLATFORMS)."""
    named = os.environ.get("JAX_PLATFORMS", "")
    return not named or not {"cuda", "gpu"}.isdisjoint(named.lower().split(","))


def visible() -> list[str]:
    """Those of this machine by the names that CUDA_VISIBLE_DEVICES takes, which limits them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    numbers = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in numbers if match), key=int)


def _plugins() -> set[str]:
    """Names of the plugins that JAX finds: by entry points, and in a package of that name."""
    found = {each.name for each in metadata.entry_points(group="jax_plugins")}
    package = importlib.util.find_spec("jax_plugins")
    places = package.submodule_search_locations if package is not None else None
    return found | {each.name for each in pkgutil.iter_modules(places or [])}
