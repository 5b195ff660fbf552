"""Recipes: settings as TOML files."""

import dataclasses
import tomllib
from collections.abc import Callable, Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from videomae.errors import ConfigError, as_text, nearest
from videomae.fields import Checked, field_types, parts
from videomae.hub import write_text

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
# Keys that runs of earlier versions wrote, and that never changed what a run computes.
_RETIRED = {"workers"}

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
    fields = field_types(kind)
    left_out = {"about", *(_RETIRED - set(fields))}
    values = {key: value for key, value in read_recipe(name).items() if key not in left_out}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(
                f"recipe {name}: {kind.__name__} has no key {key!r}{nearest_setting(key, fields)}"
            )
        if isinstance(value, str) and Path in parts(fields[key]):
            values[key] = Path(value)
        if isinstance(value, list):
            values[key] = tuple(value)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"recipe {name}: {error}") from error


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
    write_text(path, to_toml(settings))
