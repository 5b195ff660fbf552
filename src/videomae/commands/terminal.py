"""The output of commands: results on stdout, complaints on stderr, a bar while more is to come."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from rich.bar import Bar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from videomae.data.rows import write_csv
from videomae.errors import complain, counted, keeping, one_line, say, to_json

if TYPE_CHECKING:
    from videomae.video.reader import BadVideo

Result = TypeVar("Result")
# What is shown of one result: the fields of its line of JSON, and its rows of a table.
Shown = tuple[dict[str, Any], Sequence[tuple[str | Bar, ...]]]

_PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}


class _Rate(ProgressColumn):
    """How many are done in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g}/s" if speed else "")


class _Console(Console):
    """A console that escapes what would move the cursor, in all text that it is given."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(one_line, text.split("\n"))), **options)


class Screen:
    """Results on stdout, complaints on stderr, and below them a bar where there is a terminal."""

    def __init__(
        self, what: str, total: int = 0, *, as_json: bool = False, hidden: bool = False
    ) -> None:
        self.out = _Console(**_PLAIN)
        if not self.out.is_terminal:
            self.out.width = 1000  # a file has no edge at which to cut
        self.error = _Console(stderr=True, **_PLAIN)
        # Bar and results must share a console, or they write into each other. In a terminal that
        # is stdout's; lines of JSON are not to be mixed with anything.
        shared = self.out.is_terminal and not as_json
        self.live = self.out if shared else self.error
        hidden |= not self.live.is_terminal or (as_json and self.out.is_terminal)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=self.live,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=hidden,
        )
        self.task = self.progress.add_task(one_line(what), total=total)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def advance(self, done: int, total: int) -> None:
        """Move the bar; where it begins, what is done already is not counted as speed."""
        if self.progress.tasks[0].completed == 0:
            self.progress.reset(self.task, completed=done, total=total)
        self.progress.update(self.task, completed=done, total=total)

    def update(self, what: str, done: int, total: int) -> None:
        """Move the bar, and name what is done."""
        self.progress.update(self.task, description=one_line(what), completed=done, total=total)

    def complain(self, text: str) -> None:
        """Print one line to stderr; above the bar where that is in the same terminal."""
        if self.live.is_terminal and self.error.is_terminal:
            line = Text.assemble(("videomae:", "red"), " ", one_line(" ".join(text.split())))
            self.live.print(line, soft_wrap=True)
        else:
            complain(text)


def report(
    results: "Iterable[Result | BadVideo]",
    files: list[Path],
    what: str,
    show: Callable[[Result], Shown],
    *,
    widths: Sequence[int] = (),
    as_json: bool,
    csv_path: Path | None = None,
    cells: Callable[[Result], dict[str, Any]] | None = None,
) -> int:
    """Print each result as soon as it is there; 1 if any video could not be read.

    `show` gives the fields of its line of JSON, and its rows of a table, whose columns after the
    path are at least `widths` wide. `cells` gives its columns in the table at `csv_path`, which is
    written at the end, or with what is there where the work is broken off, as by SIGTERM.
    """
    from videomae.video.reader import BadVideo

    failed, done, width = 0, 0, path_width(files)
    with (
        stopped_by_sigterm(),
        keeping(lambda: f"{done} of {counted(len(files), 'video')} are done, and kept"),
        Screen(what, len(files), as_json=as_json) as screen,
        _csv_rows(csv_path) as rows_of_csv,
    ):
        for done, (path, result) in enumerate(zip(files, results, strict=True), start=1):
            if isinstance(result, BadVideo):
                failed += 1
                shown: Shown = ({"error": result.reason}, ())
                rows_of_csv.append({"path": path, "error": result.reason})
                screen.complain(result.reason)
            else:
                shown = show(result)
                if csv_path is not None and cells is not None:
                    rows_of_csv.append({"path": path, **cells(result)})
            record, rows = shown
            if as_json:
                # The only values that are not of JSON are arrays.
                line = {"path": str(path), **record}
                say(to_json(line, default=lambda array: array.tolist()))
            elif rows:
                screen.out.print(file_table(path, rows, width, widths))
            screen.advance(done, len(files))
    if failed and len(files) > 1:
        complain(f"{failed} of {len(files)} videos could not be read")
    return 1 if failed else 0


@contextmanager
def _csv_rows(path: Path | None) -> Iterator[list[dict[str, Any]]]:
    """Rows to be filled, which are written as CSV in the end; columns in the order they came."""
    rows: list[dict[str, Any]] = []
    try:
        yield rows
    finally:
        if path is not None and rows:
            columns = dict.fromkeys(name for row in rows for name in row if name != "error")
            write_csv(path, [*columns, "error"], rows)


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let a scheduler's SIGTERM end the work as Ctrl-C does, so that what is done is written."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def path_width(files: Iterable[Path]) -> int:
    """The width of a column of these paths."""
    longest = max((len(one_line(each)) for each in files), default=0)
    return min(longest, 60) if sys.stdout.isatty() else longest


def file_table(
    path: Path, rows: Sequence[tuple[str | Bar, ...]], width: int, widths: Sequence[int]
) -> Table:
    """Rows about one file, which line up with those about others: of one `path_width`."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=width, overflow="fold")
    for _, least in zip_longest(rows[0], widths):
        table.add_column(min_width=least, no_wrap=True)
    for number, row in enumerate(rows):
        cells = (one_line(cell) if isinstance(cell, str) else cell for cell in row)
        table.add_row("" if number else one_line(path), *cells)
    return table


def aligned(
    rows: Iterable[tuple[str, str]], *, justify: Literal["left", "right"] = "left"
) -> Table:
    """Names, and beside them their values."""
    table = Table.grid("", Column(justify=justify), padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*map(one_line, row))
    return table


def score_bar(score: float) -> Bar | str:
    """A bar of up to 20 characters for 0 to 1; nothing where the output has no such characters."""
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return ""
    return Bar(1, 0, min(max(score, 0), 1), width=20, color="cyan")


def names_file(path: Path) -> bool:
    """Whether an output is one file by its suffix, and no folder, as `features-1.0` is.

    >>> names_file(Path("a.csv")), names_file(Path("features-1.0")), names_file(Path("a"))
    (True, False, False)
    """
    return path.suffix[1:2].isalpha() and not path.is_dir()
