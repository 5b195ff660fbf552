"""The files of a run, read back: settings, log, results, at any stage of the run."""

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from videomae.errors import ConfigError
from videomae.report.plots import Curve

# Curves stay quick to draw however long the run was.
_MAX_POINTS = 500
# Speed and times are medians over so many of the last lines of the log.
_RECENT = 100


@dataclass(frozen=True)
class RunRecord:
    """What the files of a run say; empty where a file is missing or broken.

    reports: lines of the log with a loss or a learning rate. evaluations: those with a score.
    """

    folder: Path
    settings: dict[str, Any]
    environment: dict[str, Any]
    reports: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    results: dict[str, Any]
    bad: dict[str, Any]
    data: dict[str, Any]

    @property
    def command(self) -> str | None:
        """The command that the settings belong to, told by keys that only it has."""
        names = {"mask_ratio": "pretrain", "layer_decay": "finetune"}
        return next((name for key, name in names.items() if key in self.settings), None)

    @property
    def title(self) -> str:
        kinds = {"pretrain": "Pre-training", "finetune": "Fine-tuning", None: "Run"}
        data = Path(str(self.settings.get("data", ""))).name
        return f"{kinds[self.command]}{data and f' on {data}'}"

    @property
    def last(self) -> dict[str, Any]:
        return self.reports[-1] if self.reports else {}

    @property
    def step(self) -> int:
        return round(number(self.last.get("step")) or 0)

    @cached_property
    def num_steps(self) -> int | None:
        """Steps of the whole run, or None where it is not known yet."""
        epoch, epochs = (number(v) for v in (self.last.get("epoch"), self.settings.get("epochs")))
        if not epoch or not epochs:
            return None
        # The log rounds epochs; the steps of one are whole.
        return round(max(round(self.step / epoch), 1) * epochs)

    @property
    def is_finished(self) -> bool:
        return self.num_steps is not None and self.step >= self.num_steps

    @property
    def seconds(self) -> float:
        every = [number(row.get("seconds")) for row in (*self.reports, *self.evaluations)]
        return max((value for value in every if value is not None), default=0.0)

    def recent(self, key: str) -> float | None:
        """The median of a figure over the last lines of the log."""
        values = [number(row.get(key)) for row in self.reports[-_RECENT:]]
        known = [value for value in values if value is not None]
        return median(known) if known else None

    def curve(self, key: str, *, over: str = "step") -> Curve:
        """A figure over the steps or epochs, where it is a number; thinned out."""
        rows = self.reports if over == "step" else self.evaluations
        pairs = [(number(row.get(over)), number(row.get(key))) for row in rows]
        known = [(x, y) for x, y in pairs if x is not None and y is not None and x > 0]
        return thin([x for x, _ in known], [y for _, y in known])


def read_run(folder: Path) -> RunRecord:
    """Read what there is; ConfigError where there is no such folder."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give the output folder of a run")
    rows = [row for row in read_log(folder) if isinstance(row, dict)]
    return RunRecord(
        folder=folder,
        settings=_read(folder / "settings.toml", tomllib.loads),
        environment=_read(folder / "environment.json"),
        reports=[row for row in rows if "loss" in row or "lr" in row],
        evaluations=[row for row in rows if number(row.get("score")) is not None],
        results=_read(folder / "results.json"),
        bad=_read(folder / "bad_videos.json"),
        data=_read(folder / "data_report.json"),
    )


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl; a last one that was cut off by a crash is left out."""
    path = Path(output) / "log.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _read(path: Path, parse: Callable[[str], Any] = json.loads) -> dict[str, Any]:
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, not whole, not UTF-8
        return {}
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """The value where it is a finite number: the log has null for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def thin(xs: Sequence[float], ys: Sequence[float], most: int = _MAX_POINTS) -> Curve:
    """At most so many points: means of neighbours, and the last one as it is.

    >>> thin([1, 2, 3, 4, 5], [10, 20, 30, 40, 90], most=3)
    ([1.5, 3.5, 5], [15.0, 35.0, 90])
    """
    if len(xs) <= most:
        return xs, ys
    count = len(xs) - 1
    cuts = [round(part * count / (most - 1)) for part in range(most)]
    parts = [slice(start, end) for start, end in pairwise(cuts)]

    def means(values: Sequence[float]) -> list[float]:
        return [*(sum(values[part]) / len(values[part]) for part in parts), values[-1]]

    return means(xs), means(ys)
