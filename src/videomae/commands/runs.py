"""The commands that train and measure models, and the recipes they go by."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Column, Table

from videomae.commands.flags import Evaluate, Finetune, LinearProbe, Pretrain, Recipes
from videomae.commands.terminal import Screen, aligned
from videomae.errors import complain, say
from videomae.recipe import read_recipe, recipe_names, recipe_text

if TYPE_CHECKING:
    from videomae.training.estimate import DryRun

RECIPE_COLUMNS = ("recipe", "data", "model", "epochs", "batch", "hardware", "hours", "top-1")
_NUMBERS = ("epochs", "batch", "hours", "top-1")


def pretrain(command: Pretrain) -> int:
    """Pre-train a model, and say where it is."""
    _say_loading()
    from videomae.training.pretrain import dry_run, pretrain

    if command.dry_run:
        return _print_dry_run(dry_run(command.settings))
    folder = pretrain(command.settings)
    if _is_first():
        say(f"model: {folder}")
    return 0


def finetune(command: Finetune) -> int:
    """Train a classifier, and say where it is and what it reached."""
    _say_loading()
    from videomae.training.finetune import dry_run, finetune

    if command.dry_run:
        return _print_dry_run(dry_run(command.settings))
    evaluation = finetune(command.settings)
    if _is_first():
        say(f"model: {command.settings.output / 'model'}")
        if evaluation is not None:
            say(evaluation)
    return 0


def _say_loading() -> None:
    """Say what the first seconds go to, where a person watches."""
    if _is_first() and sys.stderr.isatty() and "torch" not in sys.modules:
        say("loading PyTorch", to=sys.stderr)


def _print_dry_run(made: "DryRun") -> int:
    if _is_first():
        out = Screen("dry run").out
        out.print(aligned(made.rows()))
        for line in filter(None, (made.advice(), "nothing was written")):
            out.print(line, soft_wrap=True)
    return 0


def _is_first() -> bool:
    """Of the processes that torchrun started, only the first one prints."""
    return os.environ.get("RANK", "0") == "0"


def evaluate(command: Evaluate) -> int:
    """Measure a classifier; 1 if a video could not be read."""
    _say_loading()
    from videomae.compute.distributed import Machine
    from videomae.data.manifest import left_out
    from videomae.evaluation.evaluate import chosen_split, evaluate
    from videomae.evaluation.sharding import list_unreadable

    settings = command.settings
    machine = Machine.start(settings.device, settings.dtype)
    with Screen("evaluating", hidden=not machine.is_main) as screen:
        evaluation = evaluate(settings, machine=machine, on_progress=screen.advance)
    code = 1 if evaluation.bad else 0
    if not machine.is_main:
        return code
    rows = list(evaluation.rows())
    if lost := left_out(settings.data, chosen_split(settings.data, settings.split) or ""):
        rows.append(("left out when prepared", f"{lost:,}"))
    if worst := sorted(evaluation.per_class.items(), key=lambda pair: pair[1])[:5]:
        rows.append(("lowest classes", ""))
        rows += [(f"  {name}", f"{value:.2f} %") for name, value in worst]
    screen.out.print(aligned(rows, justify="right"))
    for reason in list_unreadable(evaluation.videos, evaluation.bad):
        complain(reason)
    return code


def linear_probe(command: LinearProbe) -> int:
    """Measure a pre-trained encoder; 1 if a video could not be read."""
    _say_loading()
    from videomae.compute.distributed import Machine
    from videomae.evaluation.features import FEATURES_NAME
    from videomae.evaluation.probe import linear_probe

    settings = command.settings
    machine = Machine.start(settings.device, settings.dtype)
    with Screen("learning", hidden=not machine.is_main) as screen:
        result = linear_probe(settings, machine=machine, on_progress=screen.update)
    if machine.is_main:
        screen.out.print(aligned(result.rows(), justify="right"))
        if result.reused:
            say(f"the features were those of {settings.output / FEATURES_NAME}")
        for reason in result.unreadable:
            complain(reason)
    return 1 if result.unreadable else 0


def recipes(command: Recipes) -> int:
    """Print one recipe, or a table of all."""
    if command.name is not None:
        say(recipe_text(command.name).removesuffix("\n"))
        return 0
    out, rows = Screen("listing").out, recipe_rows()
    room, out.width = out.width, 1000  # the names are to be copied, so none is ever cut
    shown = list(RECIPE_COLUMNS)
    for least_missed in ("hardware", "data", "batch", "epochs"):
        if out.measure(_recipe_table(rows, shown)).maximum <= room:
            break
        shown.remove(least_missed)
    out.print(_recipe_table(rows, shown))
    return 0


def _recipe_table(rows: Sequence[tuple[str, ...]], shown: Sequence[str]) -> Table:
    columns = (Column(x, justify="right" if x in _NUMBERS else "left") for x in shown)
    table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(row[RECIPE_COLUMNS.index(name)] for name in shown))
    return table


FUNCTIONS: dict[type, Callable[[Any], int]] = {
    Pretrain: pretrain,
    Finetune: finetune,
    Evaluate: evaluate,
    LinearProbe: linear_probe,
    Recipes: recipes,
}


def recipe_rows() -> list[tuple[str, ...]]:
    """The package's recipes in short: a row each, under RECIPE_COLUMNS.

    Hours that nobody measured have a ~; top-1 is empty where none was published.
    """
    rows: list[tuple[str, ...]] = []
    for name in recipe_names():
        recipe = read_recipe(name)
        about = recipe["about"]
        known = about["hours_are"].startswith(("published", "measured"))
        hours = f"{'' if known else '~'}{about['estimated_hours']:g}"
        top1 = f"{about['expected_top1']:.1f} %" if "expected_top1" in about else ""
        size = recipe["preset"], f"{recipe['epochs']:,}", f"{recipe['batch_size']:,}"
        rows.append((name, about["data"], *size, about["hardware"], hours, top1))
    return rows
