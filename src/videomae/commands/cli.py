"""The command line: read the flags of one command, import its code, call its function.

A command is a frozen dataclass of `flags.py`. Nothing heavy is imported before a command runs, so
that `videomae --help` answers at once.
"""

import argparse
import gc
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Union

import tyro
from tyro import conf

from videomae.commands import flags
from videomae.config import nearest
from videomae.errors import ConfigError, VideoMAEError, complain
from videomae.recipe import load_recipe
from videomae.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 all went well, 1 something failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        print(f"videomae {__version__}")
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            code = run(parse(arguments or ["--help"]))
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # The reader, such as `head`, has enough. What is still unwritten must not raise again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            return complain("interrupted", code=130)
        except (VideoMAEError, OSError) as error:
            return complain(str(error))


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line."""
    complain(f"warning: {message}")


def parse(arguments: list[str]) -> Any:
    """The chosen command as an instance of its class; SystemExit for --help and wrong usage."""
    options: dict[str, Any] = {"config": (conf.OmitSubcommandPrefixes, conf.FlagCreatePairsOff)}
    kind: Any = flags.COMMANDS.get(arguments[0])
    if kind is None:
        every: Any = Union[  # noqa: UP007
            tuple(Annotated[each, conf.subcommand(name)] for name, each in flags.COMMANDS.items())
        ]
        about = f"videomae {__version__}: masked autoencoders for video. `videomae COMMAND --help`"
        return tyro.cli(every, prog="videomae", description=about, args=arguments, **options)
    program = f"videomae {arguments[0]}"
    if issubclass(kind, flags.RecipeCommand):
        settings = type(kind().settings)
        arguments = _as_flags(arguments, {each.name for each in fields(settings)} | {"recipe"})
        # The recipe must be known before the other flags have their defaults.
        finder = argparse.ArgumentParser(program, add_help=False, allow_abbrev=False)
        finder.add_argument("--recipe")
        if recipe := finder.parse_known_args(arguments[1:])[0].recipe:
            options["default"] = kind(recipe=recipe, settings=load_recipe(recipe, settings))
    command: Any = tyro.cli(kind, prog=program, args=arguments[1:], **options)
    if isinstance(command, flags.VideoCommand) and not command.files:
        print(f"{program}: name at least one video", file=sys.stderr)
        raise SystemExit(2)
    return command


def _as_flags(arguments: list[str], known: set[str]) -> list[str]:
    """Words such as epochs=100 become --epochs=100, as a recipe's lines are often copied."""
    words = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or argument.startswith("-") or not name.isidentifier():
            words.append(argument)
            continue
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}{nearest(name, known)}")
        switch = {"true": f"--{name}", "false": f"--no-{name}"}.get(value.lower())
        words.append((switch or f"--{name}={value}").replace("_", "-", name.count("_")))
    return words


def run(command: Any) -> int:
    """Import the code of one command, and call its function; the exit code."""
    match command:
        case flags.ModelCommand():
            _import_torch()
            from videomae.commands import answers

            return answers.FUNCTIONS[type(command)](command)
        case flags.Probe() | flags.Prepare() | flags.Motion():
            from videomae.commands import videos

            return videos.FUNCTIONS[type(command)](command)
        case flags.Recipes() | flags.RecipeCommand():
            from videomae.commands import runs

            return runs.FUNCTIONS[type(command)](command)
        case flags.Convert():
            from videomae.commands.convert import convert

            print(convert(command))
        case flags.Demo():
            from videomae.commands.demo import demo

            demo(command)
        case flags.Bench():
            from videomae.commands.bench import bench

            bench(command)
    return 0


def _import_torch() -> None:
    """Import torch without the garbage collector, which would search it again and again in vain.

    What was imported is not searched at the end either. Of the CPU time of `videomae classify`,
    this saves a seventh.
    """
    if "torch" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        from videomae.inference import predict  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()
