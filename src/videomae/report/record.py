"""The files of a run, read back: settings, log, results, at any stage of the run."""

import json
import math
import tomllib
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from videomae.errors import ConfigError
from videomae.recipe import SETTINGS_NAME
from videomae.report.plots import Curve

Kind = TypeVar("Kind")

# Curves stay quick to draw however long the run was.
_MAX_POINTS = 500
# Speed and times are medians over so many of the last lines of the log.
_RECENT = 100


@dataclass(frozen=True)
class RunRecord:
    """What the files of a run say; empty where a file is missing or broken.

    facts: what follows from settings, data and model, finite numbers or None but for the reason
    `not_evaluated`; runs of earlier versions have none.
    reports: lines of the log with a loss or a learning rate. evaluations: those with a score. Their
    values, and those of results, are finite numbers or None. about: what results say in words, as
    which model on which data. mistakes: rows of mistakes.json. unreadable, bad: (path, reason) of
    videos of the evaluation and of the training. summary, warnings: of the data report.
    """

    folder: Path
    settings: dict[str, Any]
    facts: dict[str, Any]
    environment: dict[str, Any]
    reports: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    results: dict[str, Any]
    about: dict[str, Any]
    per_class: dict[str, float]
    mistakes: list[dict[str, Any]]
    unreadable: list[tuple[Any, Any]]
    bad: list[tuple[Any, Any]]
    summary: dict[str, Any]
    warnings: list[Any]

    @property
    def command(self) -> str | None:
        """The command that the settings belong to, told by keys that only it has."""
        names = {"mask_ratio": "pretrain", "layer_decay": "finetune"}
        return next((name for key, name in names.items() if key in self.settings), None)

    @property
    def title(self) -> str:
        kinds = {"pretrain": "Pre-training", "finetune": "Fine-tuning", None: "Run"}
        if not self.settings and self.about:
            kinds[None] = f"Evaluation of {self.about.get('model', 'a model')}"
        data = Path(str(self.settings.get("data", self.about.get("data", "")))).name
        return f"{kinds[self.command]}{data and f' on {data}'}"

    @property
    def last(self) -> dict[str, Any]:
        return self.reports[-1] if self.reports else {}

    @property
    def step(self) -> int:
        return self.last.get("step") or 0

    @property
    def num_steps(self) -> int | None:
        """Steps of the whole run, or None where it is not known yet."""
        if isinstance(known := self.facts.get("num_steps"), int):
            return known
        epoch, epochs = self.last.get("epoch"), self.number("epochs")
        if not epoch or not epochs:
            return None
        # The log rounds epochs; the steps of one are whole.
        return int(max(round(self.step / epoch), 1) * epochs)

    def number(self, name: str) -> Any:
        """A setting that is a number, else None."""
        return numbers(self.settings).get(name)

    @property
    def is_finished(self) -> bool:
        return self.num_steps is not None and self.step >= self.num_steps

    @property
    def seconds(self) -> float:
        rows = (*self.reports, *self.evaluations)
        return max((row.get("seconds") or 0.0 for row in rows), default=0.0)

    @property
    def loss(self) -> float | None:
        """The median loss of the last tenth of the reports."""
        known = [row["loss"] for row in self.reports if row.get("loss") is not None]
        return median(known[-max(len(known) // 10, 1) :]) if known else None

    def recent(self, key: str) -> float | None:
        """The median of a figure over the last lines of the log."""
        known = [row[key] for row in self.reports[-_RECENT:] if row.get(key) is not None]
        return median(known) if known else None

    def curve(self, key: str, *, over: str = "step") -> Curve:
        """A figure over the steps or epochs, where it is a number; thinned out."""
        rows = self.reports if over == "step" else self.evaluations
        known = [row for row in rows if row.get(over) and row.get(key) is not None]
        return thin([row[over] for row in known], [row[key] for row in known])


def read_run(folder: Path) -> RunRecord:
    """Read what there is; ConfigError where there is no such folder."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give the output folder of a run")
    rows = [numbers(row) for row in read_log(folder)]
    results, facts = _read(folder / "results.json"), _read(folder / "run.json")
    data, wrong = _read(folder / "data_report.json"), _read(folder / "mistakes.json")
    classes = numbers(_typed(dict, results.get("per_class"))).items()
    unreadable = [row for row in _typed(list, results.get("unreadable")) if isinstance(row, dict)]
    return RunRecord(
        folder=folder,
        settings=_read(folder / SETTINGS_NAME, tomllib.loads),
        facts=facts | numbers({key: facts[key] for key in facts.keys() - {"not_evaluated"}}),
        environment=_read(folder / "environment.json"),
        reports=[row for row in rows if "loss" in row or "lr" in row],
        evaluations=[row for row in rows if row.get("score") is not None],
        results=numbers(results),
        about={key: value for key, value in results.items() if isinstance(value, str)},
        per_class={name: value for name, value in classes if value is not None},
        mistakes=[row for row in _typed(list, wrong.get("shown")) if isinstance(row, dict)],
        unreadable=[(row.get("path"), row.get("reason")) for row in unreadable],
        bad=list(_read(folder / "bad_videos.json").items()),
        summary=_typed(dict, data.get("summary")),
        warnings=_typed(list, data.get("warnings")),
    )


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl.

    A last one that was cut off by a crash is left out; so is any other that is no line of a log,
    with a warning.
    """
    path = Path(output) / "log.jsonl"
    rows, lines = [], path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        row = None
        with suppress(ValueError, RecursionError):  # no JSON, no UTF-8, nested without end
            row = json.loads(line)
        if isinstance(row, dict) and all(
            _is_number(row.get(key, 0)) for key in ("step", "seconds")
        ):
            rows.append(row)
        elif number < len(lines):
            warnings.warn(f"{path}: line {number} is no line of a log, left out", stacklevel=2)
    return rows


def _read(path: Path, parse: Callable[[str], Any] = json.loads) -> dict[str, Any]:
    try:
        return _typed(dict, parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):  # not there, not whole, not UTF-8, nested deep
        return {}


def _typed(kind: type[Kind], value: Any) -> Kind:
    return value if isinstance(value, kind) else kind()


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    """The values that are finite numbers; None for the others, as the log has null."""
    return {key: value if _is_number(value) else None for key, value in values.items()}


def _is_number(value: object) -> bool:
    """Whether a value is a finite number; a whole one of 400 digits is none that can be drawn."""
    with suppress(OverflowError):
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    return False


def thin(xs: Sequence[float], ys: Sequence[float], most: int = _MAX_POINTS) -> Curve:
    """At most so many points: means of neighbours, and the last one as it is."""
    if len(xs) <= most:
        return xs, ys
    count = len(xs) - 1
    cuts = [round(part * count / (most - 1)) for part in range(most)]
    parts = [slice(start, end) for start, end in pairwise(cuts)]

    def means(values: Sequence[float]) -> list[float]:
        return [*(sum(values[part]) / len(values[part]) for part in parts), values[-1]]

    return means(xs), means(ys)
