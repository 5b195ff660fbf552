"""The log of a run: figures, progress on the terminal, a line of JSON per report, trackers."""

import contextlib
import dataclasses
import json
import math
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from videomae.claim import claimed
from videomae.compute.distributed import Machine, num_processes, open_tracker, tracker_name
from videomae.compute.environment import environment
from videomae.data.manifest import REPORT_NAME, Videos
from videomae.errors import ConfigError, going_on, one_line
from videomae.evaluation.sharding import list_unreadable
from videomae.hub import atomic_path, check_writable, write_json, write_text
from videomae.recipe import SETTINGS_NAME, to_toml, write_recipe
from videomae.report.advice import advice
from videomae.report.html import duration
from videomae.report.record import read_log, read_run
from videomae.report.revision import git_revision, source_digest
from videomae.report.run_page import write_page
from videomae.settings import TrainSettings
from videomae.training.checkpoint import checkpoint_paths
from videomae.training.estimate import Pace

# Figures that log.jsonl has and a line on the screen does without.
_QUIET = ("lr", "grad_norm", "data_ms", "forward_ms", "backward_ms", "optimizer_ms", "per_class")


# The page is made anew so seldom that it takes less than a hundredth of the time.
_PAGE_SECONDS, _PAGE_SHARE = 30.0, 0.01


def say(text: str, machine: Machine) -> None:
    """One line on stderr, of the main process."""
    console = Console(stderr=True, quiet=not machine.is_main)
    console.print(one_line(text), highlight=False, markup=False, soft_wrap=True)


def say_model(settings: TrainSettings, machine: Machine) -> None:
    """Say what is loaded or made: large models take a while, and those of a hub longer."""
    start = f"loading {settings.init}" if settings.init else f"making a {settings.preset} model"
    say(start, machine)


class RunLog:
    """The log of one run, on disk and on the screen.

    Appends to `log.jsonl` in the output folder, hands the same figures to the tracker, makes the
    page of the run, and draws a progress bar on stderr. All of it in the main process only.
    """

    def __init__(
        self, settings: TrainSettings, machine: Machine, *, num_steps: int, title: str,
        first_step: int = 0,
    ) -> None:  # fmt: skip
        self.output, self.title, self.is_main = Path(settings.output), title, machine.is_main
        self.path = self.output / "log.jsonl"
        self.seconds_before = 0.0
        self.tracker = None
        if self.is_main:
            if settings.resume:
                self._forget_after(first_step)
            self.tracker = open_tracker(settings.tracker, self.output, to_toml(settings))
        self.started = time.perf_counter()
        self.next_page = self.started
        self.pace = Pace(first_step, num_steps)
        self.console = Console(stderr=True, quiet=not self.is_main)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            refresh_per_second=2,  # drawing it takes time from the steps
            disable=not (self.console.is_terminal and self.is_main),
        )
        self.task = self.progress.add_task(
            title, total=num_steps, completed=first_step, state="in the first step", left=""
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        if self.tracker is not None:
            self.tracker.finish()

    def say(self, text: str) -> None:
        """One line above the progress bar."""
        self.console.print(one_line(text), highlight=False, markup=False, soft_wrap=True)

    def show(self, done: int, total: int) -> None:
        """Move the bar of work that is not counted in steps."""
        self.progress.update(self.task, completed=done, total=total, state="")

    def advance(self, done: int) -> None:
        """Move the bar by a step."""
        self.pace.step(done)
        if not self.progress.disable:
            left = f"{duration(self.pace.seconds_left)} left"
            self.progress.update(self.task, completed=done, left=left)

    def record(self, **values: Any) -> None:
        """Append one line to log.jsonl, and print it where there is no terminal to draw on.

        Figures that are no number become null, for which JSON has no other word.
        """
        if not self.is_main:
            return
        if "clips_per_second" in values:
            loss, speed = f"loss {values['loss']:.3f}", f"{values['clips_per_second']:.0f} clips/s"
            state = f"{loss}  {speed}  data {values['data_share']:.0%}"
            self.progress.update(self.task, state=state)
        seconds = time.perf_counter() - self.started + self.seconds_before
        values["seconds"] = round(seconds, 1)
        values = {name: _as_json(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        if self.tracker is not None:
            figures = {k: v for k, v in values.items() if isinstance(v, int | float)}
            self.tracker.log(figures, step=figures.pop("step"))
        if not self.console.is_terminal:
            shown = {k: v for k, v in values.items() if k not in _QUIET and v != 0}
            line = "  ".join(f"{name} {_short(value)}" for name, value in shown.items())
            self.say(f"{self.title}: {line}")

    def draw_page(self) -> None:
        """Write the page of the run, if the last time is long ago; a failure never ends a run."""
        began = time.perf_counter()
        if not self.is_main or began < self.next_page:
            return
        with going_on(str(self.output / "index.html")):
            write_page(self.output)
        ended = time.perf_counter()
        self.next_page = ended + max(_PAGE_SECONDS, (ended - began) / _PAGE_SHARE)

    def last_checkpoint(self) -> str:
        """Where the run would go on, in words."""
        paths = checkpoint_paths(self.output)
        if not paths:
            return "there is no checkpoint yet"
        command = resume_command(self.title, self.output)
        return f"the last checkpoint is {paths[-1]}; go on with {command}"

    def list_bad(self, videos: Videos, bad: Mapping[int, str]) -> None:
        """Write bad_videos.json and name the first of the videos that could not be read."""
        if not bad or not self.is_main:
            return
        path = self.output / "bad_videos.json"
        write_json(path, {str(videos.items[index]): bad[index] for index in sorted(bad)})
        lines = list_unreadable(videos, dict(sorted(bad.items())))
        for line in lines[:20]:
            self.say(f"skipped {line}")
        if len(lines) > 20:
            self.say(f"and {len(lines) - 20} more: {path}")

    def _forget_after(self, step: int) -> None:
        """Cut log.jsonl back to a step, for a resumed run logs again what comes after.

        The evaluation at that step is made again, as the run may have stopped before its end.
        """
        rows = [
            row
            for row in read_log(self.output)
            if row.get("step", 0) < step or (row.get("step") == step and "score" not in row)
        ]
        if rows:
            self.seconds_before = float(rows[-1].get("seconds", 0.0))
        if self.path.exists():
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))


class Meter:
    """Means over the steps since the last line of the log, and where the time went.

    On a GPU, work is only queued by the calls that are timed; each step ends by waiting for the
    loss, so that forward and backward together are right, and the waiting counts as backward.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.num_clips = self.num_steps = 0.0
        self.since = time.perf_counter()

    @contextlib.contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Add what happens inside to the seconds of that kind of work."""
        began = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of all speeds what happens inside."""
        began = time.perf_counter()
        yield
        self.since += time.perf_counter() - began

    def add(self, num_clips: float, loss: float, norm: float) -> None:
        """Count a step; its loss and norm only where they are numbers."""
        self.num_steps += 1
        self.num_clips += num_clips
        if math.isfinite(norm):
            self.losses.append(loss)
            self.norms.append(norm)

    def take(self) -> dict[str, float]:
        """Figures for the log, which start again from zero; ms are those of one step."""
        spent = time.perf_counter() - self.since
        figures = {
            "loss": _mean(self.losses),
            "grad_norm": _mean(self.norms),
            "clips_per_second": self.num_clips / spent,
            "data_share": self.seconds["data"] / spent,
            **{f"{kind}_ms": 1000 * s / self.num_steps for kind, s in sorted(self.seconds.items())},
        }
        self._start()
        return figures


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def finish(settings: TrainSettings, machine: Machine) -> None:
    """Write the page of a finished run, and say what to change where it has learned nothing."""
    if machine.is_main:
        output = Path(settings.output)
        with going_on(str(output / "index.html")):
            write_page(output)
        run = read_run(output)
        for text in (run.facts.get("not_evaluated"), advice(run)):
            if text:
                say(text, machine)
    machine.wait()


def keep(settings: TrainSettings, machine: Machine) -> None:
    """Say that a run is finished and stays as it is, but for a page that is still to be written."""
    output = Path(settings.output)
    page, last = output / "index.html", [output / "model" / "README.md", output / "results.json"]
    ended = max(path.stat().st_mtime for path in last if path.exists())
    if machine.is_main and not (page.exists() and page.stat().st_mtime >= ended):
        with going_on(str(page)):
            write_page(output)
    say(
        f"{output} is finished and stays as it is; to train on, begin in another folder with "
        f"--init {shlex.quote(str(output / 'model'))}",
        machine,
    )


def resume_command(title: str, output: Path) -> str:
    """The command that goes on with a run."""
    return f"videomae {title} --output {shlex.quote(str(output))} --resume"


# Folders of a run that unfinished files may be left in.
_PARTS = ("checkpoints", "model", "best", "epoch_*", "reconstructions", "mistakes")


@contextlib.contextmanager
def own_output(settings: TrainSettings, machine: Machine, title: str) -> Iterator[None]:
    """Claim the output folder of a run, before any work is done and anything else is written.

    Raises ConfigError, in all processes, where the run cannot be written: the tracker is not
    installed, the folder cannot be written, another process holds it, or it has another run that
    this one would overwrite. The same where the disk is full on the way, with how to go on.
    """
    output, reasons = Path(settings.output), [""]
    with contextlib.ExitStack() as stack:
        if machine.is_main:
            try:
                tracker_name(settings.tracker)
                check_writable(output)
                again = f"make room, then go on with {resume_command(title, output)}"
                stack.enter_context(claimed(output, *_PARTS, again=again))
                _check_new(settings)
            except ConfigError as error:
                reasons = [str(error)]
        if reason := machine.gather(reasons)[0]:
            raise ConfigError(reason)
        yield


def _check_new(settings: TrainSettings) -> None:
    output = Path(settings.output)
    if not settings.resume and ((output / "log.jsonl").exists() or checkpoint_paths(output)):
        raise ConfigError(
            f"{output} holds a run already; pass --resume to go on with it, "
            "or choose another --output"
        )


def open_output(settings: TrainSettings, machine: Machine, facts: Mapping[str, Any]) -> None:
    """Write what the run is made of into its folder.

    `settings.toml` is a recipe that repeats the run, `run.json` has `facts`, which follow from
    settings, data and model, `environment.json` versions, hardware, command and commit; what
    `videomae prepare` found out about the data is copied beside them.
    """
    output = Path(settings.output)
    if machine.is_main:
        write_recipe(dataclasses.replace(settings, resume=False), output / SETTINGS_NAME)
        write_json(output / "run.json", facts)
        write_json(output / "environment.json", _environment())
        data_report = Path(settings.data) / REPORT_NAME
        if data_report.is_file():
            with atomic_path(output / "data_report.json") as temporary:
                temporary.write_bytes(data_report.read_bytes())
    machine.wait()


def _environment() -> dict[str, Any]:
    facts = {"git": git_revision(), "source": source_digest(), "command": sys.argv}
    return {**facts, "processes": num_processes(), **environment()}


def _as_json(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # not 1.23e+04
