"""What a run shows and keeps: progress on the terminal, a line of JSON per report, a curve."""

import json
import platform
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from videomae import __version__
from videomae.errors import ConfigError
from videomae.training.settings import TrainSettings, write_recipe
from videomae.visualize import plot_curve


class RunLog:
    """The folder and the face of one run.

    Writes `settings.toml` (a recipe that repeats the run), `environment.json`, `log.jsonl` and
    `curve.png` into the output folder, and draws a progress bar on stderr.
    """

    def __init__(self, settings: TrainSettings, *, num_steps: int, title: str) -> None:
        self.output = Path(settings.output)
        self.path = self.output / "log.jsonl"
        self.started = time.perf_counter()
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task(title, total=num_steps, state="")
        self.title, self.num_steps = title, num_steps

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

    def say(self, text: str) -> None:
        """One line above the progress bar."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def advance(self, step: int, state: str) -> None:
        """Move the bar to a step."""
        self.progress.update(self.task, completed=step, state=state)

    def record(self, **values: Any) -> None:
        """Append one line to log.jsonl, and print it where there is no terminal to draw on."""
        values = {
            key: round(value, 6) if isinstance(value, float) else value
            for key, value in values.items()
        }
        values["seconds"] = round(time.perf_counter() - self.started, 1)
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
        if not self.console.is_terminal:
            line = "  ".join(f"{key} {value}" for key, value in values.items())
            self.say(f"{self.title}: {line}")

    def draw_curve(self) -> None:
        """Draw loss and learning rate over the epochs from log.jsonl."""
        rows = [row for row in read_log(self.output) if "loss" in row]
        if len(rows) > 1:
            epochs = [row["epoch"] for row in rows]
            plot_curve(
                {"loss": (epochs, [row["loss"] for row in rows])},
                self.output / "curve.png",
                title=self.title,
                xlabel="epoch",
                ylabel="loss",
            )


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl."""
    path = Path(output) / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def open_output(settings: TrainSettings) -> None:
    """Make the output folder and write what the run is made of, before any work is done.

    Raises ConfigError where the folder cannot be written, or holds another run that this one
    would overwrite.
    """
    output = Path(settings.output)
    if not settings.resume and (output / "log.jsonl").exists():
        raise ConfigError(
            f"{output} holds a run already; pass --resume to go on with it, "
            "or choose another --output"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not settings.resume:
            write_recipe(settings, output / "settings.toml")
        environment = {
            "videomae": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        }
        (output / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write to the output folder {output}: {error}") from error


def forget_after(output: Path, step: int) -> None:
    """Cut log.jsonl back to a step, so that a resumed run does not tell the same steps twice."""
    path = Path(output) / "log.jsonl"
    if path.exists():
        rows = [row for row in read_log(output) if row.get("step", 0) <= step]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
