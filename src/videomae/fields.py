"""What a field of a dataclass may hold: stated once, in its type, and checked in one place.

lr: Annotated[float, Limits(0)] = 0.0
"""

import dataclasses
import functools
import math
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from videomae.errors import ConfigError, nearest


@dataclass(frozen=True)
class Limits:
    """The numbers that a field may hold: the ends that are allowed, or those just beyond them.

    >>> print(Limits(0, below=1))
    be at least 0 and below 1
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"lie in {self.least} to {self.most}"
        ends = {"at least": self.least, "above": self.above, "at most": self.most}
        known = [f"{word} {end}" for word, end in (ends | {"below": self.below}).items()]
        return f"be {' and '.join(text for text in known if 'inf' not in text) or 'finite'}"


_ANY_NUMBER = Limits(-(2**63), 2**63)  # what is beyond, or infinite, no setting can mean
Count = Annotated[int, Limits(1)]
Share = Annotated[float, Limits(0, 1)]
PartialShare = Annotated[float, Limits(0, below=1)]
Positive = Annotated[float, Limits(above=0)]
NotNegative = Annotated[float, Limits(0)]
RATES = Limits(0.01, 1000)  # frames a second
Rate = Annotated[float, RATES]
Seed = Annotated[int, Limits(0, 2**63 - 1)]
Pixels = Annotated[int, Limits(1, 4096)]  # of a side


@dataclass(frozen=True)
class Checked:
    """Settings whose fields hold what their types say: recipes and callers can write anything."""

    def __post_init__(self) -> None:
        check_fields(self)


def check_fields(settings: Any) -> None:
    """Raise ConfigError where a field of a dataclass does not hold what its type says.

    That is a word that is none of the choices, a number beyond its limits or not finite, and a
    value of another kind. Numbers in tuples are checked too. Kinds that are not named here pass.
    """
    for field in dataclasses.fields(settings):
        value, kind = getattr(settings, field.name), field_types(type(settings))[field.name]
        try:
            check_value(field.name, value, kind)
        except ConfigError as error:
            if not isinstance(field.default, bool | int | float | str):
                raise
            raise ConfigError(f"{error}; the default is {field.default!r}") from None


def field_types(kind: Any) -> Mapping[str, Any]:
    """The types of the fields of a dataclass, with the limits in them."""
    return _field_types(kind)


@functools.cache
def _field_types(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def check_value(name: str, value: Any, kind: Any) -> None:
    """Raise ConfigError where a value is not what a type asks for; `name` is for the error."""
    found = list(parts(kind))
    kinds = {part for part in found if isinstance(part, type)}
    words = [part for part in found if isinstance(part, str)]
    expected = next((each for each in found if isinstance(each, type)), str)
    if not _fits(value, kinds | ({str} if words else set())):
        raise ConfigError(f"{name}={shortened(value)} should be {expected.__name__}")
    if words and isinstance(value, str) and str not in kinds:
        check_choice(name, value, words)
    if isinstance(value, int | float) and not isinstance(value, bool):
        limits = [part for part in found if isinstance(part, Limits)] or [Limits()]
        if value in limits[0]:
            limits = [_ANY_NUMBER]
        if value not in limits[0]:
            others = [*words, *(["None"] if type(None) in kinds else [])]
            instead = f", or be {' or '.join(others)}" if others else ""
            raise ConfigError(f"{name}={shortened(value)} must {limits[0]}{instead}")
    if isinstance(value, tuple | list) and (inner := element_types(kind)):
        if Ellipsis not in inner and len(value) != len(inner):
            raise ConfigError(f"{name}={shortened(value)} should be {len(inner)} values")
        if not value and Limits in map(type, parts(inner[0])):
            raise ConfigError(f"{name}={value} should be one or more values")
        for each in value:
            check_value(name, each, inner[0])


def parts(kind: Any) -> Iterator[Any]:
    """The types, words and limits that a type is made of.

    >>> list(parts(Count | Literal["uniform"] | None))
    [<class 'int'>, Limits(least=1, most=inf, above=-inf, below=inf), 'uniform', <class 'NoneType'>]
    """
    if get_origin(kind) in (tuple, list, dict) or not get_args(kind):
        yield get_origin(kind) or kind
    else:
        for part in get_args(kind):
            yield from parts(part)


def element_types(kind: Any) -> tuple[Any, ...]:
    """The types of the elements, where a type is or may be a tuple or a list: all of one type."""
    if get_origin(kind) in (tuple, list):
        return get_args(kind) if get_origin(kind) is tuple else (*get_args(kind), Ellipsis)
    if hasattr(kind, "_fields"):  # a named tuple
        return tuple(get_type_hints(kind, include_extras=True).values())
    return next(filter(None, map(element_types, get_args(kind))), ())


# A whole number is a float too, text a path, a list from JSON or TOML a tuple; True is no number.
_ALIKE: dict[type, tuple[type, ...]] = {
    type(None): (type(None),),
    bool: (bool,),
    int: (int, float),
    float: (float,),
    str: (str, Path),
    Path: (str, Path),
    tuple: (tuple, list),
    list: (tuple, list),
    dict: (dict,),
}


def _fits(value: Any, kinds: Collection[type]) -> bool:
    """Whether a value is of one of the kinds, or of none that is known here."""
    own = next((kind for kind in _ALIKE if isinstance(value, kind)), None)
    if own is None or Any in kinds:
        return not isinstance(value, date | time)  # as TOML has them; no setting is one
    return any(issubclass(each, _ALIKE[own]) for each in kinds if each is not bool or own is bool)


def shortened(value: object) -> str:
    """The repr of a value that may be endless."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise ConfigError where a value is none of the choices, naming the nearest."""
    if value not in choices:
        raise ConfigError(
            f"{name}={shortened(value)} is not one of {', '.join(choices)}"
            f"{nearest(str(value), choices)}"
        )
