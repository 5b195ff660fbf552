"""The plots of the page of findings; the same results give the same files."""

from collections.abc import Iterable
from pathlib import Path
from statistics import mean

from reproduction.claims import (
    CHANCE,
    FINER_PX,
    PAPER_RATIO,
    by_labels,
    by_length,
    called,
    masks_in,
    matching,
    seen_and_learned,
    source,
)
from reproduction.plan import Pretraining
from reproduction.results import Outcomes, Pretrained
from videomae.report.plots import plot_bars, plot_curve

_TITLE = "fine-tuned top-1, %; bars: worst to best seed"

Series = dict[str, tuple[list[float], list[float]]]
Spreads = dict[str, list[tuple[float, float]]]


def draw(outcomes: Outcomes, folder: Path) -> None:
    """Write every plot that there is something for, as SVG."""
    plan = outcomes.plan
    _draw_masks(outcomes, masks_in(plan), folder / "masks.svg")
    _draw_masks(outcomes, masks_in(plan, "object"), folder / "masks-object.svg")
    for name, runs in loss_groups(outcomes).items():
        if runs:
            losses = {called: _plateau_and_after(run) for called, run in runs.items()}
            title = f"pre-training loss: {name}"
            plot_curve(losses, folder / f"loss-{name}.svg", title=title, xlabel="step")
    probes = {
        name: ([run.minutes(step) for step in run.probe_steps], run.probes)
        for name, run in timed(outcomes).items()
    }
    if probes:
        title, chance = "linear probe top-1, %", {"chance": CHANCE}
        plot_curve(probes, folder / "time.svg", title=title, xlabel="CPU minutes", levels=chance)
    _draw_seen(outcomes, folder / "seen.svg")
    _draw_labels(outcomes, folder / "labels.svg")
    bars = {source(start): top1.top1 for start, top1 in matching(outcomes)}
    if bars:
        title = "top-1 on clips of a moving object, by what was pre-trained on"
        plot_bars(bars, folder / "domains.svg", title=title, xlabel="%; dots: seeds")


def loss_groups(outcomes: Outcomes) -> dict[str, dict[str, Pretrained]]:
    """The runs whose losses are drawn together, by the name of the plot and of the line."""
    plan = outcomes.plan
    every = masks_in(plan)
    groups = {
        mask: _runs(outcomes, (point for point in every if point.mask == mask))
        for mask in ("tube", "random", "frame")
    }
    groups["object"] = _runs(outcomes, masks_in(plan, "object"))
    groups["longer"] = {
        f"{called(point)}, {point.epochs} epochs": outcomes.pretrained[point]
        for point in by_length(plan)
        if point in outcomes.pretrained
    }
    return groups


def timed(outcomes: Outcomes) -> dict[str, Pretrained]:
    """The runs whose probes are drawn over time: the ratios at which there are all masks."""
    every = masks_in(outcomes.plan)
    return _runs(outcomes, (point for point in every if point.mask_ratio in (0.75, PAPER_RATIO)))


def _plateau_and_after(run: Pretrained) -> tuple[list[float], list[float]]:
    """Without the first steps: their losses above 1, worse than predicting nothing, dwarf all."""
    first = next((index for index, loss in enumerate(run.losses) if loss < 1), 0)
    return list(run.steps[first:]), list(run.losses[first:])


def _runs(outcomes: Outcomes, points: Iterable[Pretraining]) -> dict[str, Pretrained]:
    found = outcomes.pretrained
    return {called(point): found[point] for point in points if point in found}


def _draw_masks(outcomes: Outcomes, points: list[Pretraining], path: Path) -> None:
    series: Series = {}
    spreads: Spreads = {}
    for point in points:
        top1 = outcomes.top1(point, point.domain)
        if top1:
            ratios, means = series.setdefault(point.mask, ([], []))
            ratios.append(point.mask_ratio)
            means.append(top1.mean)
            spreads.setdefault(point.mask, []).append((min(top1.top1), max(top1.top1)))
    if series:
        ticks = sorted({ratio for ratios, _ in series.values() for ratio in ratios})
        plot_curve(
            series, path, title=_TITLE, xlabel="mask ratio", spreads=spreads,
            levels={"chance": CHANCE}, ticks=ticks,
        )  # fmt: skip


def _draw_seen(outcomes: Outcomes, path: Path) -> None:
    seeds: dict[tuple[str, float], list[float]] = {}
    for point, elsewhere, probe in seen_and_learned(outcomes):
        kind = point.mask + (", finer grid" if point.image_size == FINER_PX else "")
        seeds.setdefault((kind, 100 * elsewhere), []).append(probe)
    series: Series = {}
    spreads: Spreads = {}
    for (kind, share), probes in seeds.items():
        shares, means = series.setdefault(kind, ([], []))
        shares.append(share)
        means.append(mean(probes))
        spreads.setdefault(kind, []).append((min(probes), max(probes)))
    if series:
        title = "linear probe top-1, %; bars: worst to best pre-training"
        plot_curve(
            series, path, title=title, levels={"chance": CHANCE}, spreads=spreads,
            xlabel="of what is hidden, shows elsewhere at another time, %",
        )  # fmt: skip


def _draw_labels(outcomes: Outcomes, path: Path) -> None:
    series: Series = {}
    spreads: Spreads = {}
    labels = by_labels(outcomes)
    for count, each in labels.items():
        for who, top1 in sorted(each.items()):
            counts, means = series.setdefault(who, ([], []))
            counts.append(count)
            means.append(top1.mean)
            spreads.setdefault(who, []).append((min(top1.top1), max(top1.top1)))
    if series:
        plot_curve(
            series, path, title=_TITLE, xlabel="labelled clips", log_x=True, spreads=spreads,
            levels={"chance": CHANCE}, ticks=list(labels),
        )  # fmt: skip
