"""The plots of the findings, as SVG; the same results give the same files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from reproduction.findings import Results, arms, clip_sets, names_of_starts
from reproduction.motion import MOTIONS
from reproduction.plan import LONG, ClipKind, Pretraining
from videomae.rendering.actions import CLASSES
from videomae.report.plots import plot_curve

Line = tuple[Sequence[float], Sequence[float]]
Points = Mapping[Any, Sequence[float]]  # (line, x) -> values

CHANCE: dict[ClipKind, float] = {"actions": 100 / len(CLASSES), "motion": 100 / len(MOTIONS)}
_SEEN = "clips seen in pre-training"


def plots(results: Results) -> dict[str, Callable[[Path], None]]:
    """By name, what draws each plot that there is something for."""
    found: dict[str, Callable[[Path], None]] = {}

    def add(name: str, points: Points, **options: Any) -> None:
        if points:
            found[name] = lambda path: _plot_points(points, path, **options)

    def add_losses(name: str, lines: Mapping[str, Line], title: str) -> None:
        if lines:
            found[name] = lambda path: _plot_lines(lines, path, title=title, xlabel=_SEEN)

    chance = {"levels": {"chance": CHANCE["actions"]}}
    masks = arms(results.plan)
    title = "linear probe on people, top-1, %"
    add("masks", _probes(results, "linear", masks), title=title, xlabel=_SEEN, **chance)
    title = "where the left hand is, R2 from frozen features"
    add("hand", _probes(results, "hand", masks), title=title, xlabel=_SEEN)
    lines = {
        name: (run.clips, run.losses)
        for name, group in masks.items()
        if (run := results.pretrained.get(group[0].name))
    }
    add_losses("loss", lines, "pre-training loss")
    if run := results.pretrained.get(LONG.name):
        name = f"{LONG.preset}, {LONG.mask} {LONG.mask_ratio:g}"
        line = {name: (run.clips, run.losses)}
        add_losses("long-loss", line, f"pre-training loss, {name}")
        probes = _probes(results, "linear", {name: [LONG]})
        title = f"linear probe on people, top-1, %: {name}"
        add("long", probes, title=title, xlabel=_SEEN, **chance)

    bars = ", %; bars: worst to best seed"
    names = names_of_starts(results.plan)
    labels: dict[tuple[str, int], Sequence[float]] = {}
    for each in results.plan.finetunings:
        if each.kind == "actions" and each.start in names and (top1 := results.top1(each)):
            first = results.find(each.start, labels=each.labels)
            longer = ", longer" if first and each.epochs > first.epochs else ""
            labels[names[each.start] + longer, each.labels] = top1.top1
    options = {"xlabel": "labelled clips", "log_x": True, "ticks": True}
    add("labels", labels, title=f"fine-tuned top-1{bars}", **options, **chance)

    for name, kind in (("domains", "actions"), ("domains-motion", "motion")):
        tops: dict[tuple[str, int], Sequence[float]] = {}
        for start in clip_sets(results.plan):
            if top1 := results.top1(results.find(start, labels=300, kind=kind)):
                words = "people" if start.kind == "actions" else "motion"
                tops[f"pre-trained on {words}", start.clips] = top1.top1
        scratch = results.top1(results.find(None, labels=300, kind=kind))
        levels = {"scratch": mean(scratch.top1)} if scratch else {}
        what = "people" if kind == "actions" else "moving planes"
        options = {"xlabel": "clips pre-trained on", "log_x": True, "ticks": True}
        title = f"fine-tuned top-1 on {what}{bars}"
        add(name, tops, title=title, levels=levels, **options)
    return found


def _probes(results: Results, probe: str, groups: Mapping[str, list[Pretraining]]) -> Points:
    """(arm, clips seen) -> the probe of each pre-training of the arm."""
    found: dict[tuple[str, int], list[float]] = {}
    for name, group in groups.items():
        for each in group:
            if run := results.pretrained.get(each.name):
                for clips, value in zip(run.probe_clips, run.probes[probe], strict=True):
                    found.setdefault((name, clips), []).append(value)
    return found


def _plot_lines(lines: Mapping[str, Line], path: Path, **options: Any) -> None:
    """Plot losses from where they are below 1: the first are worse than predicting nothing."""
    cut = {}
    for name, (xs, ys) in lines.items():
        start = next((n for n, y in enumerate(ys) if y < 1), 0)
        cut[name] = (xs[start:], ys[start:])
    plot_curve(cut, path, **options)


def _plot_points(points: Points, path: Path, *, ticks: bool = False, **options: Any) -> None:
    """Plot the values at each (line, x): a line through their means, bars from least to most."""
    lines: dict[str, Line] = {}
    spreads: dict[str, list[tuple[float, float]]] = {}
    for line in dict.fromkeys(line for line, _ in points):
        xs = sorted(x for other, x in points if other == line)
        lines[line] = (xs, [mean(points[line, x]) for x in xs])
        spreads[line] = [(min(points[line, x]), max(points[line, x])) for x in xs]
    marks = sorted({x for _, x in points}) if ticks else ()
    plot_curve(lines, path, spreads=spreads, ticks=marks, **options)
