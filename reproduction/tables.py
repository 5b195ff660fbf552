"""The tables of the page of findings, in Markdown."""

from collections.abc import Sequence

from reproduction.baselines import seen_elsewhere
from reproduction.claims import base_of, clip_gflop, num_visible, with_seeds
from reproduction.plan import Pretraining
from reproduction.results import Outcomes

# Below this the loss has left its plateau for good; a model may still know nothing of motion.
PLATEAU = 0.93
NONE = "–"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their columns, without the columns that say nothing."""
    said = [n for n in range(len(columns)) if any(row[n] != NONE for row in rows)]
    if not said:
        return "Not run yet."
    lines = [[line[n] for n in said] for line in (columns, *rows)]
    lines.insert(1, ["---", *["---:"] * (len(said) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def masks_table(outcomes: Outcomes, points: list[Pretraining]) -> str:
    """What masks cost, and what was learned under them."""
    known = [outcomes.pretrained[point] for point in points if point in outcomes.pretrained]
    minutes = min((run.minutes(run.num_steps) for run in known), default=0.0)
    equally_long = len({point.epochs for point in points}) == 1
    rows = []
    for point in with_seeds(outcomes.plan, points):
        run, top1 = outcomes.pretrained.get(point), outcomes.own_top1(point)
        elsewhere = seen_elsewhere(point, outcomes.plan.scale)
        row = [
            point.mask,
            f"{point.mask_ratio:g}" + (f", seed {point.seed}" if point.seed else ""),
            NONE if equally_long else f"{point.epochs}",
            str(num_visible(outcomes.plan, point)),
            f"{clip_gflop(outcomes.plan, point):.2f}",
            NONE if elsewhere is None else f"{100 * elsewhere:.0f}",
        ]
        if run is None:
            row += [NONE] * 8
        else:
            passed = run.passes(PLATEAU)
            row += [
                f"{run.loss:.3f}",
                NONE if run.copy_loss is None else f"{run.copy_loss:.3f}",
                NONE if passed is None else f"{passed:,}",
                ", ".join(f"{probe:.0f}" for probe in run.quarters),
                f"{run.probe_after(minutes):.0f}" if equally_long else NONE,
                f"{run.epoch_seconds:.0f}",
                f"{run.clips_per_second:.0f}",
            ]
            row.append(str(top1) if top1 else NONE)
        rows.append(row)
    columns = ["mask", "ratio", "epochs", "visible", "GFLOP", "elsewhere, %", "loss", "copy"]
    at = f", {minutes:.0f} min" if known else ""
    columns += ["past", "probe, %", f"equal time{at}", "CPU s per epoch", "clips/s"]
    return table([*columns, "fine-tuned, %"], rows)


def labels_table(outcomes: Outcomes) -> str:
    """Each number of labels, from scratch and pre-trained."""
    base = base_of(outcomes.plan)
    rows = []
    for point in outcomes.tuned:
        top1 = outcomes.over_seeds(point)
        if top1 and point.domain == base.domain and point.start in (base, None):
            start = "pre-trained" if point.start else "scratch"
            cost = f"{top1.cpu_seconds / 60:.1f}"
            if point.start:
                run = outcomes.pretrained.get(base)
                cost += f" + {run.cpu_seconds / 60:.0f}" if run else ""
            seeds = ", ".join(f"{value:.1f}" for value in top1.top1)
            row = [f"{point.labels:,}", start, str(point.epochs), str(top1), seeds]
            order = (point.labels, point.epochs, start)
            rows.append((order, [*row, f"{top1.loss:.2f}", cost]))
    columns = ("labels", "start", "epochs", "top-1, %", "seeds", "last loss", "CPU min of a seed")
    return table(columns, [row for _, row in sorted(rows)])


def runs_table(outcomes: Outcomes, rows: list[tuple[str, Pretraining]]) -> str:
    """Name, and what there is of a pre-training and its fine-tuning at home."""
    lines = []
    for name, point in rows:
        run, top1 = outcomes.pretrained.get(point), outcomes.own_top1(point)
        if run is None:
            lines.append([name, *[NONE] * 7])
            continue
        lines.append(
            [
                name,
                f"{run.num_steps:,}",
                f"{run.loss:.3f}",
                NONE if run.copy_loss is None else f"{run.copy_loss:.3f}",
                f"{run.probes[-1]:.1f}",
                f"{clip_gflop(outcomes.plan, point):.2f}",
                f"{1000 * run.cpu_seconds / run.num_steps:.0f}",
                str(top1) if top1 else NONE,
            ]
        )
    columns = ["what", "steps", "loss", "copy", "probe, %", "GFLOP", "CPU ms per step"]
    return table([*columns, "fine-tuned, %"], lines)
