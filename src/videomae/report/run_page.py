"""The page of a run: what it is, how far it came and what it looks like, from its files alone."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from videomae.hub import atomic_path
from videomae.recipe import to_toml
from videomae.report.card import FIGURE_NAMES, PERCENT
from videomae.report.html import Embedded, duration, embed_picture, figure, render
from videomae.report.plots import Curve, plot_curve
from videomae.report.record import RunRecord, number, read_run
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.version import __version__

_SPACE = "\N{NO-BREAK SPACE}"  # else a narrow table puts each % into a line of its own
# A page stays small however long the run was.
_MAX_ROWS, _MAX_CLASSES, _MAX_WARNINGS = 200, 1000, 30

_CHARTS = {"Loss": "loss", "Learning rate": "lr", "Norm of the gradient": "grad_norm"}
_STEP_PARTS = {
    "waiting for data": "data_ms",
    "forward": "forward_ms",
    "backward": "backward_ms",
    "optimiser": "optimizer_ms",
}


def write_page(output: Path) -> Path:
    """Write `index.html` into a run's folder, and beside it the curves as loss.png and lr.png.

    It is made from the files in the folder alone, so that it can be made again at any time, of a
    run that goes on, was broken off or is finished; what is missing or half written is left out.
    Returns its path. Raises ConfigError where there is no such folder.
    """
    run = read_run(Path(output))
    for key, name in (("loss", "loss"), ("lr", "learning rate")):
        curve = run.curve(key)
        if curve[0]:
            path = run.folder / f"{key}.png"
            plot_curve({name: curve}, path, title=run.title, xlabel="step", ylabel=name)
    path = run.folder / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(_page(run), encoding="utf-8", errors="backslashreplace")
    return path


def _page(run: RunRecord) -> str:
    return render(
        "run.html",
        title=run.title,
        known=run.settings,
        **_model(run.settings),
        state=_state(run),
        figures=_figures(run),
        **_training(run),
        **_evaluation(run),
        **_reconstructions(run),
        **_data(run),
        **_settings(run),
        command=run.command,
        is_finished=run.is_finished,
        output=str(run.settings.get("output", run.folder)),
        version=__version__,
        last_line=_last_line(run.folder / "log.jsonl"),
    )


def _model(settings: dict[str, Any]) -> dict[str, str]:
    """The size of a clip and the share that is hidden, in words; empty where not known."""
    units = {"num_frames": "frames", "image_size": "px"}
    sizes = [f"{settings[key]} {unit}" for key, unit in units.items() if key in settings]
    share = number(settings.get("mask_ratio"))
    return {
        "clip_size": " of ".join(sizes),
        "hidden": "" if share is None else f"{100 * share:.3g}{_SPACE}%",
    }


def _state(run: RunRecord) -> str:
    """How far the run has come. Whether it still runs, its files do not show."""
    epochs = number(run.settings.get("epochs"))
    if not run.step:
        return "Nothing reported yet."
    if run.num_steps is None or epochs is None:
        return f"At step {run.step:,}."
    if run.is_finished:
        return f"Finished: {run.num_steps:,} steps, {epochs:g} epochs."
    epoch = number(run.last.get("epoch")) or 0.0
    left = run.seconds / run.step * (run.num_steps - run.step)
    return (
        f"At step {run.step:,} of {run.num_steps:,}, epoch {epoch:.3g} of {epochs:g}; "
        f"about {duration(left)} to go."
    )


def _figures(run: RunRecord) -> dict[str, str]:
    """The figures in large print: time, loss, speed, the best score, what was left out."""
    found = {"time": duration(run.seconds)} if run.seconds else {}
    loss, speed = number(run.last.get("loss")), run.recent("clips_per_second")
    for name, value in (("loss", loss), ("clips per second", speed)):
        if value is not None:
            found[name] = figure(value)
    scored = run.evaluations or [run.results]
    if key := _main_figure(scored[-1]):
        values = [value for row in scored if (value := number(row.get(key))) is not None]
        best = min(values) if key == "mae" else max(values)
        found[f"best {FIGURE_NAMES.get(key, key)}"] = _score(key, best)
    for name, key in (
        ("videos unreadable", "num_bad_videos"),
        ("steps left out", "num_skipped_steps"),
    ):
        if run.last.get(key):
            found[name] = f"{run.last[key]:,}"
    return found


def _main_figure(evaluation: dict[str, Any]) -> str | None:
    """The figure that an evaluation is judged by: the first known one, or its score."""
    keys = (*FIGURE_NAMES, "score")
    return next((key for key in keys if number(evaluation.get(key)) is not None), None)


def _score(key: str, value: float) -> str:
    return f"{value:.1f}{_SPACE}%" if key in PERCENT else figure(value)


def _training(run: RunRecord) -> dict[str, Any]:
    curves = {f"{what} over steps": run.curve(key) for what, key in _CHARTS.items()}
    times = {name: run.recent(key) for name, key in _STEP_PARTS.items()}
    return {
        "charts": {what: {"": curve} for what, curve in curves.items() if curve[0]},
        "step_parts": {name: value for name, value in times.items() if value is not None},
    }


def _evaluation(run: RunRecord) -> dict[str, Any]:
    rows = run.evaluations[-_MAX_ROWS:]
    keys = [key for key in FIGURE_NAMES if any(key in row for row in rows)] or ["score"]
    found = run.results.get("per_class")
    classes = found.items() if isinstance(found, dict) else ()
    shares = {name: value / 100 for name, v in classes if (value := number(v)) is not None}
    worst_first = sorted(shares.items(), key=lambda pair: pair[1])
    unreadable = [row for row in _items(run.results.get("unreadable")) if isinstance(row, dict)]

    def cell(row: dict[str, Any], key: str) -> str:
        value = number(row.get(key))
        return "" if value is None else _score(key, value)

    return {
        "measures": ["epoch", *(FIGURE_NAMES.get(key, key) for key in keys)],
        "evaluations": [
            [f"{number(row.get('epoch')) or 0:g}", *(cell(row, key) for key in keys)]
            for row in rows
        ],
        "score_chart": _score_chart(run),
        "results": _results(run),
        "confusion": _embedded(run.folder / "confusion.png"),
        "num_classes": len(shares),
        "per_class": dict(worst_first[:_MAX_CLASSES]),
        "unreadable": _bad((row.get("path"), row.get("reason")) for row in unreadable),
    }


def _score_chart(run: RunRecord) -> tuple[str, dict[str, Curve]] | None:
    """The score over epochs with its name, where there were several evaluations."""
    if len(run.evaluations) < 2:
        return None
    key = _main_figure(run.evaluations[-1]) or "score"
    keys = ["top1", "top5"] if key == "top1" else [key]
    curves = {FIGURE_NAMES.get(key, key): run.curve(key, over="epoch") for key in keys}
    what = "Accuracy in percent" if key == "top1" else FIGURE_NAMES.get(key, key).capitalize()
    curves = {name: curve for name, curve in curves.items() if curve[0]}
    return (f"{what} over epochs", curves) if curves else None


def _results(run: RunRecord) -> str:
    """How many videos the last evaluation saw, and how."""
    count = number(run.results.get("num_videos"))
    if count is None:
        return ""
    clips, crops = (number(run.results.get(key)) or 1 for key in ("num_clips", "num_crops"))
    views = "1 view" if clips * crops == 1 else f"{clips:g} x {crops:g} views"
    num_bad = number(run.results.get("num_unreadable"))
    unreadable = f"; {num_bad:g} unreadable" if num_bad else ""
    return f"The last evaluation: {count:,.0f} videos, {views} of each{unreadable}."


def _reconstructions(run: RunRecord) -> dict[str, Any]:
    """The pictures of the first, the middle and the last epoch."""
    found = {
        int(match[1]): path
        for path in run.folder.glob("reconstructions/epoch_*.png")
        if (match := re.fullmatch(r"epoch_(\d+)\.png", path.name))
    }
    epochs = sorted(found)
    shown = {epochs[0], epochs[len(epochs) // 2], epochs[-1]} if epochs else ()
    return {
        "reconstructions": {epoch: _embedded(found[epoch]) for epoch in sorted(shown)},
        "num_pictures": len(found),
    }


def _embedded(path: Path) -> tuple[str, Embedded | None] | None:
    """Name and picture of a file, without the picture where it is broken; None without a file."""
    if not path.is_file():
        return None
    try:
        return path.name, embed_picture(path)
    except (OSError, SyntaxError):  # what Pillow raises for broken files
        return path.name, None


def _data(run: RunRecord) -> dict[str, Any]:
    summary = run.data.get("summary")
    return {
        "data_summary": [*summary.items()] if isinstance(summary, dict) else [],
        "warnings": _items(run.data.get("warnings"))[:_MAX_WARNINGS],
        "bad": _bad(run.bad.items()),
    }


def _bad(videos: Iterable[tuple[Any, Any]]) -> list[tuple[str, str]]:
    """Paths and reasons; most reasons begin with the path, for those who see them alone."""
    return [(str(path), str(reason).removeprefix(f"{path}: ")) for path, reason in videos]


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _settings(run: RunRecord) -> dict[str, Any]:
    kinds = {"pretrain": PretrainSettings, "finetune": FinetuneSettings}
    defaults = tomllib.loads(to_toml(kinds[run.command]())) if run.command else {}
    changed = {key: v for key, v in run.settings.items() if v != defaults.get(key)}
    ordered = changed | run.settings
    rows = [(key, _word(v), _word(defaults.get(key, ""))) for key, v in ordered.items()]
    command = run.environment.get("command")
    spoken = {"command": shlex.join(map(str, command))} if isinstance(command, list) else {}
    environment = {**run.environment, **spoken}
    return {
        "changed_settings": rows[: len(changed)],
        "all_settings": rows,
        "environment": [(key, _word(value)) for key, value in environment.items()],
    }


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _last_line(log: Path) -> str:
    """When the log was last written to; empty without one."""
    if not log.is_file():
        return ""
    return f"{datetime.fromtimestamp(log.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"
