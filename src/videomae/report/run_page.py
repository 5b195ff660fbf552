"""The page of a run: what it is, how far it came and what it looks like, from its files alone."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from videomae.hub import atomic_path
from videomae.report import html
from videomae.report.card import FIGURE_NAMES, PERCENT
from videomae.report.html import Curve
from videomae.report.plots import plot_curve
from videomae.report.record import Run, number, read_run
from videomae.settings import FinetuneSettings, PretrainSettings, to_toml
from videomae.version import __version__

# A page stays small however long the run was, and points to the files for the rest.
_MAX_LISTED = 30
_MAX_OPEN = 5  # longer lists are folded
_SPACE = "\N{NO-BREAK SPACE}"  # else a narrow table puts each % into a line of its own
_MAX_ROWS = 200

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
    _plot_curves(run)
    path = run.folder / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(_document(run), encoding="utf-8", errors="backslashreplace")
    return path


def _plot_curves(run: Run) -> None:
    """The curves as pictures of their own, for reports and for those who only have a viewer."""
    for key, name in (("loss", "loss"), ("lr", "learning rate")):
        curve = run.curve(key)
        if curve[0]:
            plot_curve(
                {name: curve},
                run.folder / f"{key}.png",
                title=run.title,
                xlabel="step",
                ylabel=name,
            )


def _document(run: Run) -> str:
    sections = (
        _section_state(run),
        _section_curves(run),
        _section_evaluation(run),
        _section_reconstructions(run),
        _section_data(run),
        _section_settings(run),
        _section_commands(run),
        _footer(run),
    )
    return html.document(run.title, sections)


def _section(title: str, *parts: str) -> str:
    """A section, or nothing where it would be empty."""
    content = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _section_state(run: Run) -> str:
    figures = {"time": duration(run.seconds)} if run.seconds else {}
    for name, value in (
        ("loss", number(run.last.get("loss"))),
        ("clips per second", run.recent("clips_per_second")),
    ):
        if value is not None:
            figures[name] = _figure(value)
    figures |= _best(run)
    for name, key in (
        ("videos unreadable", "num_bad_videos"),
        ("steps left out", "num_skipped_steps"),
    ):
        if run.last.get(key):
            figures[name] = f"{run.last[key]:,}"
    return (
        f'<section><h1>{escape(run.title)}</h1><p class="lead">{_model_words(run)}<br>'
        f"{escape(_state_words(run))}</p>{html.facts(figures) if figures else ''}</section>"
    )


def _state_words(run: Run) -> str:
    """How far the run has come. Whether it is still at it, its files cannot tell."""
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


def _model_words(run: Run) -> str:
    """The model and its clips, as HTML: 'VideoMAE tiny from scratch, clips of 4 frames.'"""
    settings = run.settings
    if not settings:
        return "There is no readable settings.toml in this folder."
    if "init" in settings:
        words = f"From <code>{escape(str(settings['init']))}</code>"
    else:
        words = f"VideoMAE {escape(str(settings.get('preset', '')))} from scratch"
    sizes = [
        f"{settings[key]} {unit}"
        for key, unit in (("num_frames", "frames"), ("image_size", "px"))
        if key in settings
    ]
    if sizes:
        words += f", clips of {escape(' of '.join(sizes))}"
    if "mask" in settings:
        share = number(settings.get("mask_ratio")) or 0.0
        words += f", {100 * share:.3g}{_SPACE}% hidden ({escape(str(settings['mask']))} mask)"
    return f"{words}."


def _best(run: Run) -> dict[str, str]:
    """The best evaluation, named after what was measured."""
    rows = run.evaluations or [row for row in [run.results] if _main_figure(row)]
    name = _main_figure(rows[-1]) if rows else None
    if name is None:
        return {}
    values = [value for row in rows if (value := number(row.get(name))) is not None]
    best = min(values) if name == "mae" else max(values)
    return {f"best {FIGURE_NAMES.get(name, name)}": _percent(name, best)}


def _main_figure(row: dict[str, Any]) -> str | None:
    """The figure that an evaluation is judged by: the first known one, or its score."""
    keys = (*FIGURE_NAMES, "score")
    return next((key for key in keys if number(row.get(key)) is not None), None)


def _percent(name: str, value: float) -> str:
    return f"{value:.1f}{_SPACE}%" if name in PERCENT else _figure(value)


def _figure(value: float) -> str:
    """Three digits that count, or the whole number where it has more.

    >>> _figure(0.6), _figure(1.5e-7), _figure(12345.6)
    ('0.600', '1.50e-07', '12,346')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def duration(seconds: float) -> str:
    """Two units of time at most.

    >>> duration(7.4), duration(151), duration(90_000)
    ('7 s', '2 min 31 s', '1 d 1 h')
    """
    rest, units = round(seconds), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        units.append((count, unit))
    first = next((place for place, (count, _) in enumerate(units) if count), len(units) - 1)
    shown = [f"{count} {unit}" for count, unit in units[first : first + 2] if count]
    return " ".join(shown) or "0 s"


def _section_curves(run: Run) -> str:
    charts = [
        _chart(what, {"": run.curve(key)})
        for what, key in (
            ("Loss", "loss"),
            ("Learning rate", "lr"),
            ("Norm of the gradient", "grad_norm"),
        )
    ]
    found = "".join(charts)
    curves = f'<div class="charts">{found}{_step_parts(run)}</div>' if found else ""
    return _section("Training", curves)


def _step_parts(run: Run) -> str:
    values = {name: run.recent(key) for name, key in _STEP_PARTS.items()}
    parts = {name: value for name, value in values.items() if value is not None}
    total = sum(parts.values())
    if not total:
        return ""
    bar = html.split_bar(parts, unit="ms")
    return f"<figure><figcaption>A step: {total:.3g} ms</figcaption>{bar}</figure>"


def _chart(what: str, curves: dict[str, Curve], *, over: str = "steps") -> str:
    shown = {name: curve for name, curve in curves.items() if curve[0]}
    return html.chart(shown, what=f"{what} over {over}", marks={}) if shown else ""


def _section_evaluation(run: Run) -> str:
    confusion = _embedded(
        run.folder / "confusion.png", "Confusion matrix: true classes against predicted ones"
    )
    return _section(
        "Evaluation",
        _evaluations(run),
        _results(run),
        f'<div class="column">{confusion}</div>' if confusion else "",
        _per_class(run),
        _listed(
            "Videos of the evaluation that cannot be read",
            [(e.get("path"), e.get("reason")) for e in _objects(run.results.get("unreadable"))],
            "results.json",
        ),
    )


def _evaluations(run: Run) -> str:
    """A table of all evaluations, and where there are several, curves beside it."""
    table = _evaluation_table(run)
    if len(run.evaluations) < 2:
        return table
    name = _main_figure(run.evaluations[-1]) or "score"
    names = ["top1", "top5"] if name == "top1" else [name]
    curves = {FIGURE_NAMES.get(key, key): run.curve(key, over="epoch") for key in names}
    what = "Accuracy in percent" if name == "top1" else FIGURE_NAMES.get(name, name).capitalize()
    return f'<div class="charts">{_chart(what, curves, over="epochs")}{table}</div>'


def _evaluation_table(run: Run) -> str:
    rows = run.evaluations[-_MAX_ROWS:]
    names = [key for key in FIGURE_NAMES if any(key in row for row in rows)] or ["score"]
    if not rows:
        return ""

    def cell(row: dict[str, Any], name: str) -> str:
        value = number(row.get(name))
        return "" if value is None else _percent(name, value)

    lines = [
        [f"{number(row.get('epoch')) or 0:g}", *(cell(row, name) for name in names)] for row in rows
    ]
    return html.table(["epoch", *(FIGURE_NAMES.get(name, name) for name in names)], lines)


def _results(run: Run) -> str:
    """On what the last evaluation was made."""
    count = number(run.results.get("num_videos"))
    if count is None:
        return ""
    clips, crops = (number(run.results.get(key)) or 1 for key in ("num_clips", "num_crops"))
    views = "1 view" if clips * crops == 1 else f"{clips:g} x {crops:g} views"
    text = f"The last evaluation: {count:,.0f} videos, {views} of each"
    num_bad = number(run.results.get("num_unreadable"))
    return f'<p class="note">{text}{f"; {num_bad:g} unreadable" if num_bad else ""}.</p>'


def _per_class(run: Run) -> str:
    found = run.results.get("per_class")
    values = found.items() if isinstance(found, dict) else ()
    shares = {name: value / 100 for name, v in values if (value := number(v)) is not None}
    if not shares:
        return ""
    worst_first = dict(sorted(shares.items(), key=lambda pair: pair[1]))
    kept = dict(list(worst_first.items())[: 5 * _MAX_ROWS])
    return html.folded(
        f"Each of {len(shares):,} classes, the worst first",
        f'<div class="scroll">{html.score_table(kept)}</div>',
    )


def _section_reconstructions(run: Run) -> str:
    """The pictures of the first, the middle and the last epoch."""
    found = {
        int(match[1]): path
        for path in run.folder.glob("reconstructions/epoch_*.png")
        if (match := re.fullmatch(r"epoch_(\d+)\.png", path.name))
    }
    epochs = sorted(found)
    if not epochs:
        return ""
    shown = sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1]})
    pictures = (
        f"<h3>Epoch {epoch}</h3>"
        + _embedded(found[epoch], f"Original, hidden and reconstructed frames, epoch {epoch}")
        for epoch in shown
    )
    words = (
        '<p class="note">One clip: as it is, as the model sees it, and as it paints it. All '
        f"{len(epochs)} pictures are in <code>reconstructions/</code>.</p>"
    )
    return _section("Reconstructions", *pictures, words)


def _embedded(path: Path, alt: str) -> str:
    """A picture of the folder; a word where it is broken, nothing where there is none."""
    if not path.is_file():
        return ""
    try:
        return f'<div class="strip">{html.picture(path, alt)}</div>'
    except (OSError, SyntaxError):  # what Pillow raises for broken files
        return f'<p class="note">{escape(path.name)} cannot be read.</p>'


def _section_data(run: Run) -> str:
    summary = run.data.get("summary")
    rows = summary.items() if isinstance(summary, dict) else ()
    warnings = run.data.get("warnings")
    listed = warnings[:_MAX_LISTED] if isinstance(warnings, list) else []
    items = "".join(f"<li>{escape(str(text))}</li>" for text in listed)
    return _section(
        "Data",
        html.table(("", ""), [(str(k), str(v)) for k, v in rows]) if rows else "",
        f"<h3>Look at this</h3><ul>{items}</ul>" if items else "",
        _listed("Videos that cannot be read", list(run.bad.items()), "bad_videos.json"),
    )


def _listed(title: str, pairs: Sequence[tuple[Any, Any]], file: str) -> str:
    """Videos and what is wrong with them: some of them, and where the others are."""
    if not pairs:
        return ""
    items = "".join(
        # Most reasons begin with the path, for those who see them alone.
        f"<li><code>{escape(str(path))}</code><br>{escape(str(reason).removeprefix(f'{path}: '))}"
        "</li>"
        for path, reason in pairs[:_MAX_LISTED]
    )
    more = len(pairs) - _MAX_LISTED
    rest = f'<p class="note">And {more:,} more, in <code>{file}</code>.</p>' if more > 0 else ""
    listed = f'<ul class="listed">{items}</ul>{rest}'
    if len(pairs) > _MAX_OPEN:
        return html.folded(f"{title}: {len(pairs):,}", listed)
    return f"<h3>{escape(title)} <small>{len(pairs):,}</small></h3>{listed}"


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _section_settings(run: Run) -> str:
    defaults = _defaults(run.command)
    changed = {key: v for key, v in run.settings.items() if v != defaults.get(key)}
    same = {key: v for key, v in run.settings.items() if key not in changed}
    return _section(
        "Settings",
        _settings_table("Other than the defaults", changed, defaults) if changed else "",
        html.folded("All settings", _settings_table("Setting", {**changed, **same}, defaults))
        if run.settings
        else "",
        _environment(run),
    )


def _defaults(command: str | None) -> dict[str, Any]:
    kinds = {"pretrain": PretrainSettings, "finetune": FinetuneSettings}
    return tomllib.loads(to_toml(kinds[command]())) if command else {}


def _settings_table(title: str, values: dict[str, Any], defaults: dict[str, Any]) -> str:
    rows = [(key, _word(v), _word(defaults.get(key, ""))) for key, v in values.items()]
    return html.table((title, "here", "default"), rows)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _environment(run: Run) -> str:
    if not run.environment:
        return ""
    rows = [
        (key, shlex.join(map(str, v)) if key == "command" and isinstance(v, list) else _word(v))
        for key, v in run.environment.items()
    ]
    return html.folded("Versions and hardware", html.table(("", ""), rows))


def _section_commands(run: Run) -> str:
    if run.command is None:
        return ""
    code = escape("\n".join(_commands(run)))
    return _section("What next", f"<pre><code>{code}</code></pre>")


def _commands(run: Run) -> Iterable[str]:
    """Lines for a shell, in the folder in which the run was started; `#` begins a remark."""
    output = str(run.settings.get("output", run.folder))
    folder = shlex.quote(output)
    recipe = f"videomae {run.command} --recipe {shlex.quote(f'{output}/settings.toml')}"
    if not run.is_finished:
        return [
            "# go on from the last checkpoint",
            f"{recipe} --resume",
        ]
    again = ["# the same run again", f"{recipe} --output {shlex.quote(f'{output}-again')}"]
    model = shlex.quote(f"{output}/model")
    if run.command == "finetune":
        return [
            *("# name what happens in a video", f"videomae classify VIDEO.mp4 --model {model}"),
            "# measure it with more views of each video",
            f"videomae evaluate --model {model} --data VIDEOS --num-clips 5 --num-crops 3",
            *again,
        ]
    return [
        "# teach it classes",
        f"videomae finetune --init {model} --data LABELLED --output {folder}-finetune",
        *("# one vector per video", f"videomae embed VIDEOS --model {model}"),
        *again,
    ]


def _footer(run: Run) -> str:
    words = f"Written by videomae {escape(__version__)} from the files of this folder"
    log = run.folder / "log.jsonl"
    if log.is_file():
        time = datetime.fromtimestamp(log.stat().st_mtime, UTC)
        words += f"; last line of the log: {time:%Y-%m-%d %H:%M} UTC"
    return f"<footer>{words}.</footer>"
