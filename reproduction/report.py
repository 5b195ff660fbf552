"""The figures, tables and plots of the findings, filled into a page whose words are by hand.

What is filled in stands between `<!-- figure: NAME -->`, or table or plot, and `<!-- end -->`.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reproduction.findings import (
    NOT_RUN,
    PROBES,
    Pretrained,
    Results,
    arms,
    clip_sets,
    names_of_starts,
    read_results,
)
from reproduction.plan import LONG
from reproduction.plots import plots
from reproduction.run import Study
from videomae.hub import atomic_path

IMAGES = "images/reproduction"
_REGION = re.compile(r"(<!-- (figure|table|plot): ([^>]+?) -->).*?(<!-- end -->)", re.DOTALL)
_NONE = "–"
_PROBE_COLUMNS = ("linear, %", "hand, R2", "limbs, R2")


def write_page(study: Study, page: Path) -> None:
    """Fill in a page and write its pictures; where there is no page, make one."""
    results, images = read_results(study), page.parent / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    for name, draw in plots(results).items():
        draw(images / f"{name}.svg")
    text = page.read_text(encoding="utf-8") if page.exists() else _new_page(results)
    for name in results.pretrained:
        picture = study.results_dir / f"{name}.png"
        if picture.exists() and f"<!-- plot: {name} -->" in text:
            shutil.copyfile(picture, images / picture.name)
    with atomic_path(page) as temporary:
        temporary.write_text(fill(text, results, images), encoding="utf-8")


def _new_page(results: Results) -> str:
    names = [*(f"table: {name}" for name in TABLES), *(f"plot: {name}" for name in plots(results))]
    parts = [f"<!-- {name} -->\n<!-- end -->" for name in names]
    return "\n\n".join(["# The paper's findings, in small", *parts]) + "\n"


def fill(text: str, results: Results, images: Path) -> str:
    """The text of a page with its figures and tables as the results have them.

    A plot or picture of reconstructions is shown where it lies in `images`.
    """

    def filled(region: re.Match[str]) -> str:
        start, kind, name, end = region.groups()
        if kind == "figure":
            return f"{start}{results.figure(name)}{end}"
        if kind == "table":
            found = TABLES[name](results)
        else:
            there = [
                f"{name}{end}" for end in (".svg", ".png") if (images / f"{name}{end}").exists()
            ]
            found = f"![{name}]({IMAGES}/{there[0]})" if there else f"*Plot: {NOT_RUN}.*"
        return f"{start}\n\n{found}\n\n{end}"

    return _REGION.sub(filled, text)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"*Table: {NOT_RUN}.*"
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _status(results: Results) -> str:
    """Of each step of the plan, how much is done, and how long the rest takes."""
    rows = []
    for name, step in {**results.plan.steps, "all": tuple(results.plan.experiments)}.items():
        spent = [seconds for each in step if (seconds := results.seconds(each)) is not None]
        left = sum(map(results.seconds_left, step))
        done = f"{len(spent)} of {len(step)}"
        rows.append([name, done, f"{sum(spent) / 3600:.1f}", f"{left / 3600:.1f}"])
    return _table(["step", "experiments", "core hours", "still, about"], rows)


def _settings(results: Results) -> str:
    plan = results.plan
    scale, first = plan.scale, plan.pretrainings[0]
    config, settings = scale.config(), first.settings(scale, Path())
    tuned = plan.finetunings[0]
    tuning = tuned.settings(scale, Path(), init=None)
    grid, machine = config.grid, results.machine
    rows = {
        "clips": f"`videomae actions`, {scale.image_size} px, {scale.video_frames} frames",
        "model": f"preset `{scale.preset}`: {config.num_hidden_layers} layers of "
        f"{config.hidden_size}, decoder {config.decoder_num_hidden_layers} of "
        f"{config.decoder_hidden_size}",
        "input": f"{scale.num_frames} frames, every second one, cells of {config.patch_size} px: "
        f"{grid.frames} slices of {grid.height} x {grid.width} cells",
        "pre-training": f"{first.clips_seen:,} clips seen of {first.clips:,}, batches of "
        f"{scale.batch_size}, peak lr {settings.peak_lr:g}, beta2 {settings.beta2:g}, half of what "
        "is hidden decoded",
        "probes": f"learn from {scale.labelled:,} labelled clips",
        "fine-tuning": f"batches of {scale.tuned_batch_size}, peak lr {tuning.peak_lr:g}, no "
        f"crops, drop path or layer decay, begun with a fitted head, {len(tuned.seeds)} seeds",
        "tested on": f"{scale.held_out} clips of other people before other grounds",
        "arithmetic": f"{scale.dtype}, one thread for each of two experiments at a time",
        "machine": f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}"
        if machine
        else NOT_RUN,
    }
    return _table(["what", "setting"], list(map(list, rows.items()))).replace("---:", "---")


def _probes(runs: Sequence[Pretrained], clips: float) -> list[str]:
    """The figures of each probe after so many clips, one for each seed."""
    return [
        ", ".join(form.format(run.after(probe, clips)) for run in runs)
        for probe, form in PROBES.items()
    ]


def _masks(results: Results) -> str:
    """Each mask at equal clips: what is copied, learned and known, and what it costs."""
    tokens = results.plan.scale.config().grid.num_tokens
    rows: list[list[str]] = []
    untrained = results.seeds([each for group in arms(results.plan).values() for each in group])[:1]
    for name, group in arms(results.plan).items():
        runs = results.seeds(group)
        if untrained and not rows:
            known = _probes(untrained, 0)
            rows.append(["random weights", *[_NONE] * 3, *known, *[_NONE] * 2])
        if not runs:
            continue
        rows.append(
            [
                name,
                f"{(1 - group[0].mask_ratio) * tokens:.0f}",
                ", ".join(f"{run.loss:.3f}" for run in runs),
                f"{runs[0].copy_loss:.3f}",
                *_probes(runs, group[0].clips_seen),
                str(results.top1(results.find(group[0], labels=300)) or NOT_RUN),
                f"{_cost(runs) / 60:.0f}",
            ]
        )
    columns = ["mask", "visible", "loss", "copy", *_PROBE_COLUMNS, "300 labels, %", "CPU min"]
    return _table(columns, rows)


def _cost(runs: Sequence[Pretrained]) -> float:
    """CPU seconds of a pre-training: of the seed that other work on the machine delayed least."""
    return min(run.cpu_seconds for run in runs)


def _time(results: Results) -> str:
    """The probes of each mask when the cheapest pre-training of them is over."""
    groups = {name: results.seeds(group) for name, group in arms(results.plan).items()}
    costs = {name: _cost(runs) for name, runs in groups.items() if runs}
    limit = min(costs.values(), default=0.0)
    rows = []
    for name, cost in costs.items():
        clips = groups[name][0].clips_seen * limit / cost
        rows.append([name, f"{clips:,.0f}", *_probes(groups[name], clips)])
    return _table([f"after {limit / 60:.0f} CPU min", "clips seen", *_PROBE_COLUMNS], rows)


def _tuned(results: Results) -> str:
    """All fine-tunings on people but those of finding 3."""
    names = names_of_starts(results.plan)
    rows: dict[tuple[int, int, str], list[str]] = {}
    for each in results.plan.finetunings:
        name = names.get(each.start)
        if name and each.kind == "actions" and (top1 := results.top1(each)):
            seeds = ", ".join(f"{value:.1f}" for value in top1.top1)
            row = [name, f"{each.labels:,}", str(each.epochs), str(top1), seeds]
            rows[each.labels, each.epochs, name] = [*row, f"{top1.cpu_seconds / 60:.1f}"]
    found = sorted(rows.items(), key=lambda row: row[0][:2])
    columns = ["start", "labels", "epochs", "top-1, %", "seeds", "CPU min of a seed"]
    return _table(columns, [row for _, row in found])


def _domains(results: Results) -> str:
    rows = []
    for start in (None, *clip_sets(results.plan)):
        tops = [
            results.top1(results.find(start, labels=300, kind=kind))
            for kind in ("actions", "motion")
        ]
        what = ["scratch", _NONE] if start is None else [start.kind, f"{start.clips:,}"]
        if any(tops):
            rows.append([*what, *(str(top1 or NOT_RUN) for top1 in tops)])
    columns = ["pre-trained on", "clips", "top-1 on actions, %", "top-1 on motion, %"]
    return _table(columns, rows)


def _long(results: Results) -> str:
    """A pre-training over its clips."""
    rows = []
    if run := results.pretrained.get(LONG.name):
        for index, clips in enumerate(run.probe_clips):
            loss = f"{np.interp(clips, run.clips, run.losses):.3f}" if clips else _NONE
            probes = (form.format(run.probes[probe][index]) for probe, form in PROBES.items())
            rows.append([f"{clips:,}", loss, *probes])
    return _table(["clips seen", "loss", *_PROBE_COLUMNS], rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "status": _status,
    "settings": _settings,
    "masks": _masks,
    "time": _time,
    "labels": _tuned,
    "domains": _domains,
    "long": _long,
}
