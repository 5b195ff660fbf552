"""Settings whose fields are checked, and recipes: settings as TOML files."""

import dataclasses
import math
import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tomli_w

from videomae.config import check_choice
from videomae.errors import ConfigError, as_text, in_brief, nearest
from videomae.hub import atomic_path

RECIPES_DIR = Path(__file__).parent / "recipes"
SETTINGS_NAME = "settings.toml"  # of a run, in its folder

# What transformers' TrainingArguments and the original scripts call our settings.
ELSEWHERE = {
    "clip_gradient": "clip_grad",
    "cutmix": "cutmix_alpha",
    "data_path": "data",
    "dataset": "data",
    "drop_path": "drop_path_rate",
    "gradient_accumulation_steps": "accumulate",
    "gradient_checkpointing": "activation_checkpointing",
    "input_size": "image_size",
    "learning_rate": "lr",
    "mask_type": "mask",
    "max_grad_norm": "clip_grad",
    "mixup": "mixup_alpha",
    "model_ema_decay": "ema_decay",
    "num_epochs": "epochs",
    "num_sample": "num_repeats",
    "num_train_epochs": "epochs",
    "output_dir": "output",
    "per_device_train_batch_size": "batch_size",
    "reprob": "erase_prob",
    "sampling_rate": "frame_stride",
    "save_steps": "save_every_steps",
    "smoothing": "label_smoothing",
    "update_freq": "accumulate",
    "warmup_ratio": "warmup_epochs",
}


@dataclass(frozen=True)
class Limits:
    """The least and the largest number that a field may hold."""

    least: float
    most: float = math.inf


_ANY_NUMBER = Limits(-(2**63), 2**63)  # what is beyond, or is no number, no setting can mean
Count = Annotated[int, Limits(1)]
Share = Annotated[float, Limits(0, 1)]
Rate = Annotated[float, Limits(0.01, 1000)]  # frames a second


@dataclass(frozen=True)
class Checked:
    """Settings whose fields hold what their types say: recipes and callers can write anything.

    Raises ConfigError for a word that is none of the choices, and for a number beyond its limits.
    """

    def __post_init__(self) -> None:
        for name, parts in _field_parts(type(self)).items():
            value = getattr(self, name)
            words = [part for part in parts if isinstance(part, str)]
            if words and isinstance(value, str):
                check_choice(name, value, words)
            for part in (*parts, _ANY_NUMBER):
                if isinstance(part, Limits) and isinstance(value, int | float):
                    _check_limits(name, value, part)


def _check_limits(name: str, value: float, limits: Limits) -> None:
    least, most = limits.least, limits.most
    if not least <= value <= most:
        expected = f"be at least {least}" if most == math.inf else f"lie in {least} to {most}"
        raise ConfigError(f"{name}={in_brief(str(value), 60)} must {expected}")


def _field_parts(kind: type) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: tuple(_parts(hints[field.name])) for field in dataclasses.fields(kind)}


def _parts(kind: Any) -> Iterator[Any]:
    """The types, words and limits that a field's type is made of.

    >>> list(_parts(Count | Literal["uniform"] | None))
    [<class 'int'>, Limits(least=1, most=inf), 'uniform', <class 'NoneType'>]
    """
    if get_origin(kind) is tuple or not get_args(kind):
        yield kind
    else:
        for part in get_args(kind):
            yield from _parts(part)


Settings = TypeVar("Settings", bound=Checked)


def nearest_setting(
    name: str, known: Collection[str], *, written: Callable[[str], str] = repr
) -> str:
    """`; did you mean 'lr'?` for learning_rate: the setting that means this, or of a near name."""
    name = name.replace("-", "_")
    near = [ELSEWHERE[name]] if ELSEWHERE.get(name) in known else get_close_matches(name, known, 1)
    return f"; did you mean {written(near[0])}?" if near else ""


def recipe_names() -> list[str]:
    """The recipes that come with the package: `["hmdb51-base-finetune", ...]`."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))


def find_recipe(name: Path | str) -> Path:
    """The file of a recipe: a path that exists, or the name of one that comes with the package."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES_DIR / f"{path.name}.toml"
    if path.name == str(name) and shipped.is_file():
        return shipped
    raise ConfigError(
        f"there is no recipe {name}, neither a file nor one of those that come with the package"
        f"{nearest(path.stem, recipe_names())}; `videomae recipes` lists them"
    )


def read_recipe(name: Path | str) -> dict[str, Any]:
    """The whole of a recipe file, with its table `[about]`."""
    text = recipe_text(name)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"recipe {name} is not valid TOML: nested too deeply") from error
    except ValueError as error:  # of TOML, and of numbers with thousands of digits
        raise ConfigError(f"recipe {name} is not valid TOML: {error}") from error


def recipe_text(name: Path | str) -> str:
    """A recipe file as it is written."""
    path = find_recipe(name)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {path} is not valid TOML, but other bytes: {error}") from error


def load_recipe(name: Path | str, kind: type[Settings]) -> Settings:
    """Settings out of a TOML file; the table `[about]` is for people and not read.

    Raises ConfigError for a file that is not TOML, an unknown key (naming the nearest) or a value
    of the wrong kind.
    """
    values = read_recipe(name)
    values.pop("about", None)
    fields = _field_parts(kind)
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(
                f"recipe {name}: {kind.__name__} has no key {key!r}{nearest_setting(key, fields)}"
            )
        values[key] = _from_toml(value, fields[key], f"recipe {name}: {key}")
    return kind(**values)


def _from_toml(value: Any, parts: tuple[Any, ...], name: str) -> Any:
    """A TOML value as a field of these parts wants it: a path is text, a tuple a list."""
    types = [str if isinstance(part, str) else part for part in parts]
    if isinstance(value, str) and Path in types:
        return Path(value)
    if isinstance(value, list):
        for kind in types:
            if get_origin(kind) is tuple:
                return tuple(_from_toml(each, get_args(kind)[:1], name) for each in value)
    if type(value) not in types and not (type(value) is int and float in types):
        shown, expected = in_brief(repr(value), 200), getattr(types[0], "__name__", types[0])
        raise ConfigError(f"{name}={shown} should be {expected}")
    return value


def to_toml(settings: Checked) -> str:
    """Settings as the text of a recipe; fields that are None are left out."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    text: str = tomli_w.dumps(
        {
            name: as_text(value) if isinstance(value, str | Path) else value
            for name, value in values.items()
            if value is not None
        }
    )
    return text


def write_recipe(settings: Checked, path: Path) -> None:
    """Write settings as a recipe that `load_recipe` reads back unchanged."""
    with atomic_path(path) as temporary:
        Path(temporary).write_text(to_toml(settings), encoding="utf-8")
