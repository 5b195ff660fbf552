"""The page of a run: what it is, how far it came and what it looks like, from its files alone."""

import json
import shlex
import tomllib
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from videomae.hub import write_text
from videomae.recipe import to_toml
from videomae.report.advice import advice
from videomae.report.card import FIGURE_NAMES, PERCENT
from videomae.report.html import Embedded, embed_picture, figure, render
from videomae.report.plots import plot_curve
from videomae.report.record import RunRecord, numbers, read_run
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.version import __version__

# A page stays small however long the run was.
_MAX_ROWS, _MAX_CLASSES = 200, 1000


def write_page(output: Path) -> Path:
    """Write `index.html` into a run's folder, and beside it the curves as loss.png and lr.png.

    It is made from the files in the folder alone, so that it can be made again at any time, of a
    run that goes on, was broken off or is finished; what is missing or half written is left out.
    Returns its path. Raises ConfigError where there is no such folder.
    """
    run = read_run(Path(output))
    for key, name in (("loss", "loss"), ("lr", "learning rate")):
        if (curve := run.curve(key))[0]:
            plot_curve(
                {name: curve},
                run.folder / f"{key}.png",
                title=run.title,
                xlabel="step",
                ylabel=name,
                levels=_level(run.facts.get("baseline_loss"), run) if key == "loss" else {},
            )
    log = run.folder / "log.jsonl"
    text = render(
        "run.html",
        title=run.title,
        run=run,
        advice=advice(run),
        step_seconds=_step_seconds(run),
        loss_levels=_level(run.facts.get("baseline_loss"), run),
        **_evaluation(run),
        **_pictures(run.folder),
        mistakes=_mistakes(run),
        **_settings(run),
        version=__version__,
        last_line=datetime.fromtimestamp(log.stat().st_mtime, UTC) if log.is_file() else None,
    )
    path = run.folder / "index.html"
    write_text(path, text)
    return path


def _level(value: Any, run: RunRecord) -> dict[str, float]:
    """The line in a chart that needs no learning: name -> y, or none where it is not known."""
    name = "predicting nothing" if run.command == "pretrain" else "guessing"
    return {name: value} if isinstance(value, int | float) else {}


def _step_seconds(run: RunRecord) -> dict[str, float | None]:
    """What a step spends its time on, as medians over the last lines of the log."""
    keys = {
        "waiting for data": "data_ms",
        "forward": "forward_ms",
        "backward": "backward_ms",
        "optimiser": "optimizer_ms",
    }
    spent = {name: run.recent(key) for name, key in keys.items()}
    return {name: None if ms is None else ms / 1000 for name, ms in spent.items()}


def _evaluation(run: RunRecord) -> dict[str, Any]:
    """The figures by which the model was judged: the best, all of them, and their curves."""
    scored = run.evaluations or [run.results]
    keys = [key for key in FIGURE_NAMES if any(key in row for row in scored)] or ["score"]
    names = {key: FIGURE_NAMES.get(key, key) for key in keys}
    main, *_ = keys
    values = [row[main] for row in scored if row.get(main) is not None]
    best = min(values, default=None) if main == "mae" else max(values, default=None)
    drawn = [key for key in keys if key == main or (main, key) == ("top1", "top5")]
    classes = run.facts.get("num_classes")
    chance = 100 / classes if main == "top1" and classes else None
    return {
        "score_levels": _level(chance, run),
        "measures": list(names.values()),
        "best": _score(main, best),
        "evaluations": [
            [f"{row.get('epoch') or 0:g}", *(_score(key, row.get(key)) for key in keys)]
            for row in run.evaluations[-_MAX_ROWS:]
        ],
        "curves": {names[key]: run.curve(key, over="epoch") for key in drawn},
        "worst_first": dict(sorted(run.per_class.items(), key=itemgetter(1))[:_MAX_CLASSES]),
    }


def _score(key: str, value: float | None) -> str:
    if value is None:
        return ""
    # Else a narrow table puts each % into a line of its own.
    return f"{value:.1f}\N{NO-BREAK SPACE}%" if key in PERCENT else figure(value)


def _pictures(folder: Path) -> dict[str, Any]:
    """Reconstructions of the first, the middle and the last epoch, and the confusion matrix."""
    paths = folder.glob("reconstructions/epoch_*.png")
    found = {int(path.stem[6:]): path for path in paths if path.stem[6:].isdigit()}
    epochs = sorted(found)
    shown = sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1]}) if epochs else []
    return {
        "num_pictures": len(found),
        "reconstructions": {epoch: _embedded(found[epoch]) for epoch in shown},
        "confusion": _embedded(folder / "confusion.png"),
    }


def _mistakes(run: RunRecord) -> list[tuple[str, str, str, str, Embedded | None]]:
    """Wrong answers: class, answer, its score, path, and a picture where there is one."""
    rows = []
    for row in run.mistakes:
        name = Path(str(row.get("picture", ""))).name  # none that leads out of the folder
        made = _embedded(run.folder / "mistakes" / name) if name else None
        label, predicted, path = (str(row.get(key, "")) for key in ("label", "predicted", "path"))
        score = numbers(row).get("score")
        shown = "" if score is None else f"{score:.0%}"
        if label:
            rows.append((label, predicted, shown, path, made[1] if made else None))
    return rows


def _embedded(path: Path) -> tuple[str, Embedded | None] | None:
    """Name and picture of a file, without the picture where it is broken; None without a file."""
    if not path.is_file():
        return None
    try:
        return path.name, embed_picture(path)
    except (OSError, SyntaxError):  # what Pillow raises for broken files
        return path.name, None


def _settings(run: RunRecord) -> dict[str, Any]:
    """Rows of key, value and default, those first that are not the default; the environment."""
    kinds = {"pretrain": PretrainSettings, "finetune": FinetuneSettings}
    defaults = tomllib.loads(to_toml(kinds[run.command]())) if run.command else {}
    changed = {key: v for key, v in run.settings.items() if v != defaults.get(key)}
    ordered = changed | run.settings
    rows = [(key, _word(v), _word(defaults.get(key, ""))) for key, v in ordered.items()]
    environment = {key: _word(value) for key, value in run.environment.items()}
    if isinstance(command := run.environment.get("command"), list):
        environment["command"] = shlex.join(map(str, command))
    return {"num_changed": len(changed), "settings": rows, "environment": environment}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
