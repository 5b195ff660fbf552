"""Each field of all settings holds what its type says, and no number that makes no sense."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from videomae.commands.flags import COMMANDS
from videomae.commands.model_flags import Files
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.fields import (
    Checked,
    Count,
    Limits,
    check_fields,
    check_value,
    element_types,
    field_types,
    parts,
)
from videomae.processing.stored import StoredSettings
from videomae.serving.settings import ServeSettings
from videomae.settings import (
    ActionsSettings,
    EvaluateSettings,
    FinetuneSettings,
    LinearProbeSettings,
    PrepareSettings,
    PretrainSettings,
)
from videomae.video.limits import VideoLimits

SETTINGS: list[Any] = [
    *(ActionsSettings, EvaluateSettings, FinetuneSettings, LinearProbeSettings, PrepareSettings),
    *(PretrainSettings, ServeSettings, VideoMAEConfig, VideoLimits),
    *COMMANDS.values(),
]


def number_fields() -> Iterator[Any]:
    for kind in SETTINGS:
        for name, hint in field_types(kind).items():
            for each in (hint, *element_types(hint)[:1]):
                if each is not Any and {int, float} & set(parts(each)):
                    limits = [part for part in parts(each) if isinstance(part, Limits)]
                    yield pytest.param(
                        kind, name, hint, each, limits, id=f"{kind.__name__}-{name}-{len(limits)}"
                    )


@pytest.mark.parametrize(("kind", "name", "hint", "each", "limits"), list(number_fields()))
def test_no_field_takes_a_number_that_makes_no_sense(
    kind: Any, name: str, hint: Any, each: Any, limits: list[Limits]
) -> None:
    if kind is VideoLimits:  # where an infinite number is no limit
        for value in (math.nan, -1, 0):
            with pytest.raises(ConfigError, match=f"{name}={value} is not above 0; leave it out"):
                VideoLimits(**{name: value})
        return
    assert limits, f"{kind.__name__}.{name} has no limits"
    (limit,) = limits
    inside, types = each is not hint, set(parts(each))
    wrong: list[Any] = [math.nan, math.inf, -math.inf, limit.least - 1, limit.most + 1]
    wrong += [-1] if limit.least != -1 else []  # which a similarity may be
    wrong += [value for value in (limit.above, limit.below) if math.isfinite(value)]
    wrong += [True] if bool not in types else []
    wrong += [0] if 0 not in limit else []
    for value in wrong:
        length = len([part for part in element_types(hint) if part is not Ellipsis])
        given = (value,) * length if inside else value
        with pytest.raises(ConfigError, match=f"^{name}=.* (must|should) "):
            check_value(name, given, hint)


def test_the_defaults_of_all_settings_pass() -> None:
    for kind in SETTINGS:
        needed = {
            field.name: Files() if field.name == "files" else Path("x")
            for field in dataclasses.fields(kind)
            if field.default is field.default_factory is dataclasses.MISSING
        }
        check_fields(kind(**needed)) if kind is not VideoLimits else VideoLimits()


# What may well be a number of that size, in the settings of processors.
SENSIBLE = {
    "resample": [0],  # Pillow's number for the nearest
    "image_mean": [-1, 0],
}


@pytest.mark.parametrize("name", [*(each.name for each in dataclasses.fields(StoredSettings))])
def test_processors_take_no_number_that_makes_no_sense(name: str) -> None:
    if name == "device":
        return  # of torch, which has its own words
    for value in (math.nan, math.inf, -1, 0, 10**9, 10**400, [math.nan], {"height": math.inf}):
        if value not in SENSIBLE.get(name, []):
            with pytest.raises(ConfigError, match=f"{name}=.*; expected "):
                StoredSettings(**{name: value})


@dataclasses.dataclass(frozen=True)
class Sample(Checked):
    count: Count | Literal["all"] | None = 3
    path: Path = Path("x")
    pair: tuple[Annotated[float, Limits(0)], Annotated[float, Limits(0)]] = (0.0, 1.0)
    word: Literal["red", "green"] = "red"
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count=0 must be at least 1, or be all or None; the default is 3"),
        ({"count": 2.0}, "count=2.0 should be int; the default is 3"),
        ({"count": "some"}, "count='some' is not one of all; the default is 3"),
        ({"count": True}, "count=True should be int; the default is 3"),
        ({"path": 3}, "path=3 should be Path"),
        ({"path": None}, "path=None should be Path"),
        ({"pair": (1.0,)}, r"pair=\(1.0,\) should be 2 values"),
        ({"pair": (1.0, "2")}, "pair='2' should be float"),
        ({"pair": 1.0}, "pair=1.0 should be tuple"),
        ({"word": "rde"}, "word='rde' is not one of red, green; did you mean 'red'"),
        ({"word": 1}, "word=1 should be str"),
        ({"names": (1,)}, "names=1 should be str"),
    ],
)
def test_a_value_that_is_not_what_the_type_says_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Sample(**values)


def test_what_the_type_says_is_taken() -> None:
    Sample(count="all", path="text", pair=[0, 2], names=["a"])  # type: ignore[arg-type]
    Sample(count=None)


def test_a_value_without_end_is_shortened() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ConfigError, match=r"count=\[\[\[.*\.\.\..* should be int"):
        Sample(count=endless)  # type: ignore[arg-type]
