"""The command line: read the flags of one command, import its code, call its function.

A command is a frozen dataclass of `flags.py`. Nothing heavy is imported before a command runs.
"""

import argparse
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from tyro import conf
from tyro._errors import (
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    on_parse_error,
)

from videomae.commands import flags, model_flags
from videomae.commands.overview import quick_answer
from videomae.compute.cores import heed_quota
from videomae.errors import ConfigError, VideoMAEError, complain, nearest, say
from videomae.fields import check_fields
from videomae.recipe import SETTINGS_NAME, load_recipe, nearest_setting
from videomae.signals import heard

# Ctrl-C is answered within the first, and the process has ended after both.
_ANSWER_SECONDS, _PATIENCE_SECONDS = 1.0, 4.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 all went well, 1 something failed, 2 wrong usage."""
    if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return _as_program(sys.argv[1:])
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a sign that it cannot show must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    if text := quick_answer(arguments):
        say(text)
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            code = run(parse(arguments))
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # The reader, such as `head`, has enough. What is still unwritten must not raise again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt as interrupt:
            return complain("; ".join(["interrupted", *map(str, interrupt.args)]), code=130)
        except (VideoMAEError, OSError) as error:
            return complain(as_typed(str(error), options_of(arguments[0])))
        except RuntimeError as error:
            if "WORLD_SIZE" not in os.environ or not re.search("gloo|NCCL", str(error)):
                raise
            return complain("another process of this run has ended; what it said tells why")


def _as_program(arguments: list[str]) -> int:
    """Run one command so that Ctrl-C ends the process soon, whatever that is computing.

    KeyboardInterrupt is raised as always, but once: launchers hand on what the terminal has sent
    already. Where nothing comes of it for a second, a line says so, and some seconds later the
    process ends all the same. Threads that still decode are not waited for.
    """
    heed_quota()
    over, raised = threading.Event(), False

    def handle(*_: object) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise KeyboardInterrupt

    def hear(_: int) -> None:
        if not over.wait(_ANSWER_SECONDS):
            complain("interrupted; ending what is being computed")
            if not over.wait(_PATIENCE_SECONDS):
                _end_now()

    with heard({signal.SIGINT: handle}, hear):
        try:
            code = main(arguments)
        finally:
            over.set()
    if code == 130:
        _end_now()
    return code


def _end_now() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")  # shows the cursor, which a bar hides
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


def options_of(command: str) -> set[str]:
    """The names of a command's options, as its class writes them: {"mask_ratio", ...}."""
    kind: Any = flags.COMMANDS.get(command)
    if kind is None:
        return set()
    names = {each.name for each in fields(kind)}
    if issubclass(kind, flags.RecipeCommand):
        names |= {each.name for each in fields(kind().settings)}
    return names


def as_typed(text: str, options: Iterable[str]) -> str:
    """An error with its settings as they are typed: mask_ratio=2 is --mask-ratio=2.

    Settings in a recipe are typed as they are.
    """
    if text.startswith("recipe ") or not options:
        return text
    names = "|".join(sorted(options, key=len, reverse=True))
    setting = re.compile(rf"(?<![-\w./])({names})(?==)")
    return setting.sub(lambda found: flag(found[1]), text)


def flag(name: str) -> str:
    """A setting as it is typed: mask_ratio is --mask-ratio."""
    return "--" + name.replace("_", "-")


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line."""
    complain(f"warning: {message}")


def parse(arguments: list[str]) -> Any:
    """The chosen command as an instance of its class; SystemExit for --help and wrong usage."""
    options: dict[str, Any] = {"config": (conf.OmitSubcommandPrefixes, conf.FlagCreatePairsOff)}
    name, *rest = arguments
    if name.startswith("--tyro-"):  # tyro's own: --tyro-print-completion bash
        return tyro.cli(_every_command(), prog="videomae", args=arguments, **options)
    if name not in flags.COMMANDS:
        hint = nearest(name, flags.COMMANDS)
        text = f"there is no command {name!r}{hint}; `videomae --help` lists them"
        raise SystemExit(complain(text, code=2))
    kind: Any = flags.COMMANDS[name]
    program, known = f"videomae {name}", options_of(name)
    if issubclass(kind, flags.RecipeCommand):
        rest = _as_flags(rest, known)
        # The recipe must be known before the other flags have their defaults.
        finder = argparse.ArgumentParser(program, add_help=False, allow_abbrev=False)
        finder.add_argument("--recipe")
        finder.add_argument("--output", type=Path, default=kind().settings.output)
        finder.add_argument("--resume", action="store_true")
        found = finder.parse_known_args(rest)[0]
        recipe, settings = found.recipe, kind().settings
        goes_on = found.resume and issubclass(kind, flags.TrainCommand)  # others have no --resume
        if recipe is None and goes_on and (found.output / SETTINGS_NAME).is_file():
            recipe = str(found.output / SETTINGS_NAME)  # goes on with what it began with
        if recipe is not None:
            settings = load_recipe(recipe, type(settings))
            options["default"] = kind(recipe=recipe, settings=settings)
        # A switch has one flag, the opposite of its default; the other one changes nothing.
        switches = {key: value for key, value in vars(settings).items() if isinstance(value, bool)}
        held = {flag(key if value else f"no_{key}") for key, value in switches.items()}
        rest = [word for word in rest if word not in held]
    with on_parse_error(_refuse):
        command, unknown = tyro.cli(
            kind, prog=program, args=rest, return_unknown_args=True, **options
        )
    if unknown:
        wrong = next((word for word in unknown if word.startswith("-")), unknown[0]).split("=")[0]
        what = f"option {wrong}" if wrong.startswith("-") else f"place for {wrong!r}"
        hint = nearest_setting(wrong.lstrip("-"), known, written=flag) if "-" in wrong[:1] else ""
        if wrong.lstrip("-").replace("-", "_") in known:  # one that is known by its place
            hint = f": give {wrong.lstrip('-').upper()} without it"
        text = f"{name} has no {what}{hint}; `{program} --help` lists its options"
        raise SystemExit(complain(text, code=2))
    check_fields(command)
    # what stands in for files: a list of them, a camera
    instead = getattr(command, "input", None) or getattr(command, "camera", "")
    if isinstance(command, model_flags.VideoCommand) and not (command.files or instead):
        say(f"{program}: name at least one video", to=sys.stderr)
        raise SystemExit(2)
    return command


def _refuse(event: ParseErrorEvent) -> None:
    """Say in one line what tyro would say in a box; of other events the box remains."""
    found = [each.arg.lowered for each in getattr(event, "missing_arguments", [])]
    argument = getattr(event, "argument", None)
    found += [argument.lowered] if argument else []
    expected = str(found[0].metavar) if found else ""
    named = (each.name_or_flags[-1] for each in found)
    words = zip(named, found, strict=True)
    name = " and ".join(n if n.startswith("-") else each.metavar for n, each in words)
    match event:
        case MissingArgs():
            text = f"give {name}"
        case InvalidChoice():
            choices = [each for each in expected.strip("{}").split(",") if each in event.choices]
            text = f"{name} {event.value} is not one of {', '.join(choices)}"
            text += nearest(event.value, choices)
        case BadValue(reason="too_few_values"):
            text = f"{name} lacks a value; expected {expected}"
        case InstantiationFailure(argument=None):
            text = as_typed(event.message, options_of(event.prog.split()[-1]))  # says all itself
            raise SystemExit(complain(text, code=2))
        case InstantiationFailure():
            given = re.findall(r"'(.*?)'", event.message.splitlines()[0])
            text = f"{name} {' '.join(given)}: expected {expected}"
        case _:
            return
    raise SystemExit(complain(f"{text}; `{event.prog} --help` lists the options", code=2))


def _every_command() -> Any:
    """All commands as one type, which is what completion of a shell needs."""
    return Union[  # noqa: UP007
        tuple(Annotated[each, conf.subcommand(name)] for name, each in flags.COMMANDS.items())
    ]


def _as_flags(arguments: list[str], known: set[str]) -> list[str]:
    """Words such as epochs=100 become --epochs=100, as a recipe's lines are often copied.

    A path such as dt=2024-01-01 stays as it is.
    """
    words = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or argument.startswith("-") or not name.isidentifier():
            words.append(argument)
            continue
        if name not in known and Path(argument).exists():
            words.append(argument)
            continue
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}{nearest_setting(name, known)}")
        switch = {"true": flag(name), "false": flag(f"no_{name}")}.get(value.lower())
        words.append(switch or f"{flag(name)}={value}")
    return words


def run(command: Any) -> int:
    """Import the code of one command, and call its function; the exit code."""
    match command:
        case model_flags.Timeline():
            _import_torch()
            from videomae.commands.timeline import timeline

            return timeline(command)
        case model_flags.Index() | model_flags.Search() | model_flags.Duplicates():
            _import_torch()
            from videomae.commands import search

            return search.FUNCTIONS[type(command)](command)
        case model_flags.ModelCommand():
            from videomae.commands import answers

            return answers.FUNCTIONS[type(command)](command)
        case flags.Probe() | flags.Prepare() | flags.Actions():
            from videomae.commands import videos

            return videos.FUNCTIONS[type(command)](command)
        case flags.Recipes() | flags.RecipeCommand():
            from videomae.commands import runs

            return runs.FUNCTIONS[type(command)](command)
        case flags.Convert():
            from videomae.commands.convert import convert

            say(convert(command))
        case flags.Export():
            from videomae.commands.export import export

            say(export(command))
        case flags.Doctor():
            try:
                from videomae.commands.doctor import doctor
            except ImportError as error:
                return complain(f"broken: {error}; install videomae anew in a fresh environment")
            return doctor(command)
        case flags.Demo():
            from videomae.commands.demo import demo

            demo(command)
        case flags.Serve():
            from videomae.commands.serve import serve

            return serve(command)
        case flags.Space():
            from videomae.commands.space import write_space

            say(f"wrote {write_space(command)}; its README.md says how to push it")
        case flags.Bench():
            from videomae.commands.bench import bench

            bench(command)
    return 0


def _import_torch() -> None:
    from videomae.inference.predict import import_engines

    import_engines()
