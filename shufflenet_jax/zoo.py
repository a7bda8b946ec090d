"""Every network by name, and what can be configured of each family.

A family is a constructor and those of its arguments that plain values can set, so that a network
can be described in a configuration or a file and built again: `build`. A network or a unit of one's
own joins the families of this library by `register`.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from flax import nnx

from shufflenet_jax import initialisation
from shufflenet_jax.cost import abstract
from shufflenet_jax.errors import InputError, did_you_mean
from shufflenet_jax.models.alexnet import alexnet, alexnet_one_tower
from shufflenet_jax.models.googlenet import googlenet
from shufflenet_jax.models.lenet import lenet5
from shufflenet_jax.models.mobilenet import mobilenet_v1, mobilenet_v2
from shufflenet_jax.models.ported import shufflenet_ported
from shufflenet_jax.models.resnet import resnet50, resnext50_32x4d
from shufflenet_jax.models.shufflenet import (
    STAGE2_CHANNELS,
    shufflenet,
    shufflenet_se,
    shufflenet_shallow,
    stage_channels,
    stem_channels,
)
from shufflenet_jax.models.skeleton import IMAGENET_STEM, REPEATS, Network, Stem
from shufflenet_jax.models.squeezenet import squeezenet
from shufflenet_jax.models.structures import CONV1_CHANNELS, STRUCTURES, structure
from shufflenet_jax.models.vgg import vgg16
from shufflenet_jax.units import UnitConstructor

Constructor = Callable[..., nnx.Module]

ALWAYS: Mapping[str, Any] = {"init": initialisation.DEFAULT}
"""What can be set of every family: the scheme by which the layers of this library start."""


@dataclass(frozen=True)
class Family:
    """A constructor, and which of its arguments a configuration can set.

    Attributes:
      constructor: Takes the arguments, num_classes and rngs.
      arguments: The default of each: a number, a truth value, a text, a tuple or a `Stem`. A family
        that has no argument ``stem`` needs images of the size it was made for.
    """

    constructor: Constructor
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def configurable(self) -> dict[str, Any]:
        """All that can be set, with the defaults: the arguments, and those of every family."""
        return {**ALWAYS, **self.arguments}

    @property
    def plain(self) -> dict[str, Any]:
        """The same as a configuration has it, a stem as a dict."""
        return {
            name: dataclasses.asdict(value) if isinstance(value, Stem) else value
            for name, value in self.configurable.items()
        }

    def build(
        self, arguments: Mapping[str, Any], *, num_classes: int, rngs: nnx.Rngs | None = None
    ) -> nnx.Module:
        """A network of the family; see `build`."""
        known = self.configurable
        chosen = dict(known)
        for name, value in arguments.items():
            if name not in known:
                raise InputError(f"unknown argument {name!r}{did_you_mean(name, known)}")
            chosen[name] = _like(known[name], value, name)
        init = chosen.pop("init")
        initialisation.scheme(init)  # is there one?
        if rngs is None:
            return abstract(self.constructor, **chosen, num_classes=num_classes)
        network = self.constructor(**chosen, num_classes=num_classes, rngs=rngs)
        if init != initialisation.DEFAULT:
            initialisation.initialise(network, init, rngs)
        return network


def family_of(thing: Family | Constructor) -> Family:
    """Derives from a constructor what can be configured of it.

    That is every argument whose default is a number, a truth value, a text, a tuple of one kind of
    these or a `Stem`. Others, such as a unit or an activation, keep their defaults.

    Args:
      thing: One of

        * a family, which is returned;
        * a network's constructor: a function, a `functools.partial` or a class of `nnx.Module` that
          takes num_classes and rngs by keyword;
        * a unit's: one of `shufflenet_jax.units`, or of one's own, which takes in_channels,
          out_channels, stride and rngs. The family is Table 1's skeleton around it, with the
          arguments channels (by default those of g=3), conv1_channels, repeats, stem, and the
          unit's own.

    Raises:
      InputError: It is none of these; an argument has no default, so that nobody could set it; or a
        unit's argument has the name of one of the skeleton's.
    """
    if isinstance(thing, Family):
        return thing
    if not callable(thing):
        raise InputError(f"{thing!r} is no constructor of a network or a unit")
    name, parameters = _name_of(thing), _parameters(thing)
    if {"num_classes", "rngs"} <= parameters.keys():
        return Family(thing, _configurable(name, parameters, given={"num_classes", "rngs"}))
    given = {"in_channels", "out_channels", "stride", "rngs"}
    if not given <= parameters.keys():
        raise InputError(
            f"{name} is neither a network's constructor, which takes num_classes and rngs, nor a "
            "unit's, which takes in_channels, out_channels, stride and rngs"
        )
    own = _configurable(name, parameters, given)
    taken = sorted(own.keys() & {*_SKELETON, "num_classes"})
    if taken:
        raise InputError(
            f"{name} takes {', '.join(taken)}, as the network around it does: rename it"
        )
    return Family(partial(_network_of, cast(UnitConstructor, thing)), _SKELETON | own)


def register(name: str, thing: Family | Constructor) -> None:
    """Adds a family under a name, by which `build` and configurations then know it.

    Args:
      name: Letters, digits, "_", "-" and ".", a letter first.
      thing: See `family_of`.

    Raises:
      InputError: The name is taken or none; or as `family_of`.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"a network cannot be called {name!r}: take letters, digits, _, - and ., a letter first"
        )
    if name in FAMILIES:
        raise InputError(f"there is a network called {name!r} already: choose another name")
    FAMILIES[name] = family_of(thing)


def build(
    name: str,
    arguments: Mapping[str, Any],
    *,
    num_classes: int,
    rngs: nnx.Rngs | None = None,
) -> nnx.Module:
    """A network of a family, from plain values such as JSON has.

    Args:
      name: Of the family.
      arguments: Those that are not to have their defaults. Lists stand for tuples, and a dict with
        the fields of a `Stem` for one.
      num_classes: Outputs of the classifier.
      rngs: Source of the initial weights; without, the network is abstract (`abstract`).

    Raises:
      InputError: No such family or argument, a value of another kind than the argument's default,
        or one that the constructor refuses.
    """
    if name not in FAMILIES:
        raise InputError(f"unknown network {name!r}{did_you_mean(name, FAMILIES)}")
    try:
        return FAMILIES[name].build(arguments, num_classes=num_classes, rngs=rngs)
    except InputError as error:
        raise InputError(f"network {name}: {error}") from error


def _name_of(thing: Constructor) -> str:
    while isinstance(thing, partial):
        thing = thing.func
    return getattr(thing, "__name__", repr(thing))


def _parameters(thing: Constructor) -> dict[str, inspect.Parameter]:
    """The parameters by name, as `functools.partial` has left them."""
    bound: list[partial] = []
    while isinstance(thing, partial):
        bound.append(thing)
        thing = thing.func
    # Of a class of nnx, `inspect.signature` sees the metaclass, which takes anything.
    called = partial(thing.__init__, None) if inspect.isclass(thing) else partial(thing)
    for each in reversed(bound):
        called = partial(called, *each.args, **each.keywords)
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError) as error:
        raise InputError(f"{_name_of(thing)}: {error}") from error
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _configurable(
    name: str, parameters: Mapping[str, inspect.Parameter], given: set[str]
) -> dict[str, Any]:
    own = {key: each.default for key, each in parameters.items() if key not in given}
    if taken := own.keys() & ALWAYS.keys():
        raise InputError(f"{name} takes {', '.join(taken)}, as every network does: rename it")
    missing = [key for key, default in own.items() if default is inspect.Parameter.empty]
    if missing:
        raise InputError(
            f"{name} needs {', '.join(missing)}: give a default, or bind with functools.partial"
        )
    return {
        key: default
        for key, default in own.items()
        if _is_plain(default) or isinstance(default, Stem)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return len({type(each) for each in value}) == 1 and all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str))


def _like(default: Any, value: Any, name: str) -> Any:
    """A plain value as one of the kind of a default."""
    if isinstance(default, Stem):
        if isinstance(value, Stem):
            return value
        fields = dataclasses.asdict(default)
        if not isinstance(value, Mapping) or not value.keys() <= fields.keys():
            raise InputError(f"{name} must have the fields {', '.join(fields)}, not be {value!r}")
        own = {key: _like(fields[key], each, f"{name}.{key}") for key, each in value.items()}
        return dataclasses.replace(default, **own)
    for kind, (taken, described) in _KINDS.items():
        if isinstance(default, kind):
            fits = isinstance(value, taken) and (kind is bool or not isinstance(value, bool))
            if not fits:
                raise InputError(f"{name} must be {described}, not {value!r}")
            if isinstance(value, (list, tuple)) and isinstance(default, tuple):
                return tuple(_like(default[0], each, f"each of {name}") for each in value)
            return kind(value)
    raise TypeError(f"{name} cannot be configured: {default!r}")


# What stands for a value of a kind, and what to call it; a truth value is an integer to Python.
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    tuple: ((list, tuple), "a list"),
}

_SKELETON: dict[str, Any] = {
    "channels": stage_channels(groups=3, width=1.0),
    "conv1_channels": stem_channels(width=1.0),
    "repeats": REPEATS,
    "stem": IMAGENET_STEM,
}
"""What can be configured of the network around a unit."""


def _network_of(
    unit: UnitConstructor,
    *,
    channels: Sequence[int],
    conv1_channels: int,
    repeats: Sequence[int],
    stem: Stem,
    num_classes: int,
    rngs: nnx.Rngs,
    **options: Any,
) -> Network:
    return Network(
        partial(unit, **options),
        channels=channels,
        conv1_channels=conv1_channels,
        repeats=repeats,
        stem=stem,
        num_classes=num_classes,
        rngs=rngs,
    )


FAMILIES: dict[str, Family] = {
    "shufflenet": family_of(shufflenet),
    "shufflenet_se": family_of(shufflenet_se),
    # One network: its channels are chosen for its groups, and its width is in them.
    "shufflenet_shallow": Family(shufflenet_shallow, {"stem": IMAGENET_STEM}),
    "shufflenet_ported": family_of(shufflenet_ported),
    **{name: family_of(partial(structure, name)) for name in STRUCTURES},
    "mobilenet_v1": family_of(mobilenet_v1),
    "mobilenet_v2": family_of(mobilenet_v2),
    "resnet50": family_of(resnet50),
    "resnext50_32x4d": family_of(resnext50_32x4d),
    "vgg16": family_of(vgg16),
    "googlenet": family_of(googlenet),
    # What else these two can be given is what tells them apart.
    "alexnet": Family(alexnet, {"upscale_to": 0}),
    "alexnet_one_tower": Family(alexnet_one_tower, {"upscale_to": 0}),
    "squeezenet": family_of(squeezenet),
    "lenet5": family_of(lenet5),
}
"""The families of networks, as ``--config.network.name`` knows them."""

BUILT_IN = frozenset(FAMILIES)
"""The names of the families of this library; `register` adds others."""

_SINGLE = (
    "mobilenet_v2",
    "resnet50",
    "resnext50_32x4d",
    "vgg16",
    "googlenet",
    "alexnet",
    "alexnet_one_tower",
    "squeezenet",
    "lenet5",
)
"""Families of which each is one network."""

WIDTHS = (2.0, 1.5, 1.0, 0.5, 0.25)
"""The widths of the paper's networks."""

MOBILENET_WIDTHS = ("1.0", "0.75", "0.5", "0.25")
"""The widths of MobileNet in Table 5, as its names write them."""


def shufflenet_name(groups: int, width: float, shuffle: bool) -> str:
    """The name of a ShuffleNet: ``shufflenet_g8_0.25x_noshuffle``."""
    return f"shufflenet_g{groups}_{width:g}x{'' if shuffle else '_noshuffle'}"


NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        shufflenet_name(groups, width, shuffle): (
            "shufflenet",
            {"groups": groups, "width": width, "shuffle": shuffle},
        )
        for width in WIDTHS
        for groups in STAGE2_CHANNELS
        for shuffle in (True, False)
        if shuffle or groups > 1
    },
    "shufflenet_g3_2x_se": ("shufflenet_se", {"groups": 3, "width": 2.0}),
    "shufflenet_g3_0.5x_shallow": ("shufflenet_shallow", {}),
    **{
        f"{name}_{mflops}m": (name, {"mflops": mflops})
        for mflops in CONV1_CHANNELS
        for name in STRUCTURES
    },
    **{
        f"mobilenet_v1_{width}": ("mobilenet_v1", {"width": float(width)})
        for width in MOBILENET_WIDTHS
    },
    **{name: (name, {}) for name in _SINGLE},
}
"""Every single network: its family, and its own arguments, as `build` takes them."""

NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    name: partial(FAMILIES[family].constructor, **arguments)
    for name, (family, arguments) in NAMED.items()
}
"""The same as constructors that need only ``rngs``."""
