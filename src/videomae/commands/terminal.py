"""What the commands show: results on stdout, complaints on stderr, a bar while more is to come."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rich import box
from rich.bar import Bar
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from videomae.settings import read_recipe, recipe_names

if TYPE_CHECKING:
    from videomae.video.reader import BadVideo

Result = TypeVar("Result")

RECIPE_COLUMNS = ("recipe", "data", "model", "epochs", "batch", "hardware", "hours", "top-1")
_NUMBERS = ("epochs", "batch", "hours", "top-1")


class Screen:
    """Results on stdout, complaints on stderr, and below them a bar where there is a terminal."""

    def __init__(self, what: str, total: int, *, as_json: bool) -> None:
        self.out = Console(highlight=False)
        if not self.out.is_terminal:
            self.out.width = 1000  # a file has no edge at which to cut
        self.error = Console(stderr=True, highlight=False, soft_wrap=True)
        # Bar and results must share a console, or they write into each other. In a terminal that
        # is stdout's; lines of JSON are not to be mixed with anything.
        shared = self.out.is_terminal and not as_json
        self.live = self.out if shared else self.error
        hidden = not self.live.is_terminal or (as_json and self.out.is_terminal)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.live,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=hidden,
        )
        self.task = self.progress.add_task(what, total=total)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def advance(self, done: int) -> None:
        self.progress.update(self.task, completed=done)

    def complain(self, text: str) -> None:
        """One line on stderr; above the bar where that is in the same terminal."""
        if self.live.is_terminal and self.error.is_terminal:
            self.live.print(f"[red]videomae:[/red] {escape(text)}", soft_wrap=True)
        else:
            complain(text)


def report(
    results: "Iterable[Result | BadVideo]",
    files: list[Path],
    what: str,
    record: Callable[[Result], dict[str, Any]],
    show: Callable[[Result], Table],
    *,
    as_json: bool,
) -> int:
    """Print each result as soon as it is there; 1 if any video could not be read."""
    from videomae.video.reader import BadVideo

    failed = 0
    with Screen(what, len(files), as_json=as_json) as screen:
        for done, (path, result) in enumerate(zip(files, results, strict=True), start=1):
            line: dict[str, Any] = {"path": str(path)}
            if isinstance(result, BadVideo):
                failed += 1
                line["error"] = result.reason
                screen.complain(result.reason)
            elif as_json:
                line |= record(result)
            else:
                screen.out.print(show(result))
            if as_json:
                print(json.dumps(line, ensure_ascii=False), flush=True)
            screen.advance(done)
    if failed and len(files) > 1:
        complain(f"{failed} of {len(files)} videos could not be read")
    return 1 if failed else 0


def rows_for(files: list[Path], *widths: int | None) -> Table:
    """A table without lines; the first column holds any of the files, the others are that wide."""
    rows = Table.grid(padding=(0, 2, 0, 0))
    longest = max(len(str(path)) for path in files)
    rows.add_column(width=min(longest, 60) if sys.stdout.isatty() else longest, overflow="fold")
    for width in widths:
        rows.add_column(min_width=width, no_wrap=True)
    return rows


def score_bar(score: float) -> Bar | str:
    """A bar of up to 20 characters for 0 to 1; nothing where the output has no such characters."""
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return ""
    return Bar(1, 0, min(max(score, 0), 1), width=20, color="cyan")


def recipe_rows() -> list[tuple[str, ...]]:
    """What the package's recipes say of themselves: a row each, under RECIPE_COLUMNS.

    Hours that nobody measured have a ~; where no top-1 was published, nothing is said.
    """
    rows: list[tuple[str, ...]] = []
    for name in recipe_names():
        recipe = read_recipe(name)
        about = recipe["about"]
        known = about["hours_are"].startswith(("published", "measured"))
        hours = f"{'' if known else '~'}{about['estimated_hours']:g}"
        top1 = about.get("expected_top1")
        rows.append(
            (
                name,
                about["data"],
                recipe["preset"],
                f"{recipe['epochs']:,}",
                f"{recipe['batch_size']:,}",
                about["hardware"],
                hours,
                "" if top1 is None else f"{top1:.1f} %",
            )
        )
    return rows


def show_recipes() -> None:
    """The package's recipes as a table on stdout."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in RECIPE_COLUMNS:
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    for row in recipe_rows():
        table.add_row(*row)
    out = Screen("listing", 0, as_json=False).out
    out.width = 1000  # a narrow terminal breaks the ends of rows, never the names to be copied
    out.print(table)


def complain(text: str, *, code: int = 1) -> int:
    print("videomae:", " ".join(text.split()), file=sys.stderr)
    return code


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(f"warning: {message}")
