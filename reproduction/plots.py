"""The plots of the findings, as SVG; the same results give the same files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from reproduction.findings import (
    CHANCE,
    FINER_PX,
    PAPER_RATIO,
    Results,
    by_labels,
    clip_sets,
    longer,
    masks_in,
    seen_and_learned,
)
from reproduction.plan import KINDS, Pretraining
from videomae.report.plots import plot_bars, plot_curve

_TOP1 = "fine-tuned top-1, %; bars: worst to best seed"

Line = tuple[Sequence[float], Sequence[float]]
Points = Mapping[Any, Sequence[float]]  # (line, x) -> values


def draw(results: Results, folder: Path) -> None:
    """Write every plot that there is something for."""
    plan, runs = results.plan, results.pretrained
    everywhere, still = masks_in(plan), masks_in(plan, domain="object")
    for name, masks in (("masks", everywhere), ("masks-object", still)):
        tops = {(p.mask, p.mask_ratio): results.top1(p, p.domain) for p in masks}
        points = {point: top1.top1 for point, top1 in tops.items() if top1}
        _plot_points(points, folder / f"{name}.svg", title=_TOP1, xlabel="mask ratio", ticks=True)

    groups: dict[str, list[Pretraining]] = {"object": still, "longer": longer(plan)}
    groups |= {mask: [p for p in everywhere if p.mask == mask] for mask in KINDS}
    for name, group in groups.items():
        lines: dict[str, Line] = {}
        for each in group:
            if each in runs:
                steps, losses = runs[each].steps, runs[each].losses
                # The first losses, above 1, are worse than predicting nothing and dwarf the others.
                start = next((n for n, loss in enumerate(losses) if loss < 1), 0)
                epochs = f", {each.epochs} epochs" if name == "longer" else ""
                lines[called(each) + epochs] = (steps[start:], losses[start:])
        title = f"pre-training loss: {name}"
        _plot_lines(lines, folder / f"loss-{name}.svg", title=title, xlabel="step")

    probes = {
        called(each): ([run.minutes(step) for step in run.probe_steps], run.probes)
        for each in everywhere
        if each.mask_ratio in (0.75, PAPER_RATIO) and (run := runs.get(each))
    }
    title, chance = "linear probe top-1, %", {"chance": CHANCE}
    _plot_lines(probes, folder / "time.svg", title=title, xlabel="CPU minutes", levels=chance)

    seen: dict[tuple[str, float], list[float]] = {}
    for each, share, probe in seen_and_learned(results):
        kind = each.mask + (", finer grid" if each.image_size == FINER_PX else "")
        seen.setdefault((kind, share), []).append(probe)
    title = "linear probe top-1, %; bars: worst to best pre-training"
    xlabel = "of what is hidden, shows elsewhere at another time, %"
    _plot_points(seen, folder / "seen.svg", title=title, xlabel=xlabel)

    curves = {
        (who, labels): top1.top1
        for labels, group in by_labels(plan).items()
        for who, each in sorted(group.items())
        if (top1 := results.over_seeds(each))
    }
    path, xlabel = folder / "labels.svg", "labelled clips"
    _plot_points(curves, path, title=_TOP1, xlabel=xlabel, ticks=True, log_x=True)

    bars = {
        source(start): top1.top1
        for start in (None, *clip_sets(plan))
        if (top1 := results.top1(start, "object"))
    }
    if bars:
        title = "top-1 on clips of a moving object, by what was pre-trained on"
        plot_bars(bars, folder / "domains.svg", title=title, xlabel="%; dots: seeds")


def called(experiment: Pretraining) -> str:
    """A mask and its ratio in words, `tube 0.9`."""
    return f"{experiment.mask} {experiment.mask_ratio:g}"


def source(start: Pretraining | None) -> str:
    """The clips of a pre-training in words."""
    return "scratch" if start is None else f"{start.clips:,} {start.domain} clips"


def _plot_lines(lines: Mapping[str, Line], path: Path, **options: Any) -> None:
    if lines:
        plot_curve(lines, path, **options)


def _plot_points(points: Points, path: Path, *, ticks: bool = False, **options: Any) -> None:
    """Plot the values at each (line, x): a line through their means, bars from least to most."""
    lines: dict[str, Line] = {}
    spreads: dict[str, list[tuple[float, float]]] = {}
    for line in dict.fromkeys(line for line, _ in points):
        xs = sorted(x for other, x in points if other == line)
        lines[line] = (xs, [mean(points[line, x]) for x in xs])
        spreads[line] = [(min(points[line, x]), max(points[line, x])) for x in xs]
    marks = sorted({x for _, x in points}) if ticks else ()
    options |= {"spreads": spreads, "ticks": marks, "levels": {"chance": CHANCE}}
    _plot_lines(lines, path, **options)
