"""The tables and plots of the findings, filled into a page whose words are written by hand.

A table goes between the lines `<!-- table: NAME -->` and `<!-- end of table -->` of the page.
`tests/reproduction/test_page.py` holds the numbers in the words against the results.
"""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from reproduction.baselines import clip_cost, seen_elsewhere
from reproduction.findings import (
    FINER_PX,
    NOT_PLANNED,
    PLACES,
    Results,
    by_labels,
    claims,
    clip_sets,
    longer,
    masks_in,
    read_results,
)
from reproduction.plan import Plan, Pretraining
from reproduction.plots import called, draw, source
from reproduction.run import Study
from videomae.hub import atomic_path

IMAGES = "images/reproduction"
# Below this the loss has left its plateau for good; a model may still know nothing of motion.
PLATEAU = 0.93
NONE = NOT_PLANNED

_REGION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def write_page(study: Study, page: Path) -> None:
    """Fill in the tables of a page and write its pictures; where there is no page, make one."""
    results = read_results(study)
    images = page.parent / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    draw(results, images)
    pictures = [study.result_path(each).with_suffix(".png") for each in results.pretrained]
    if page.exists():
        text = page.read_text(encoding="utf-8")
    else:
        names = [path.name for path in (*sorted(images.glob("*.svg")), *pictures) if path.exists()]
        parts = [f"<!-- table: {name} -->\n<!-- end of table -->" for name in tables(results)]
        parts += [f"![{name}]({IMAGES}/{name})" for name in names]
        text = "\n\n".join(["# The paper's findings, in small", *parts]) + "\n"
    for picture in pictures:
        if picture.exists() and f"{IMAGES}/{picture.name})" in text:
            shutil.copyfile(picture, images / picture.name)
    with atomic_path(page) as temporary:
        temporary.write_text(fill(text, results), encoding="utf-8")


def fill(text: str, results: Results) -> str:
    """The text of a page with its tables as the results have them."""
    found = tables(results)
    return _REGION.sub(lambda region: f"{region[1]}\n{found[region[2]]}\n\n{region[3]}", text)


def tables(results: Results) -> dict[str, str]:
    """The tables by name, in Markdown."""
    plan, table = results.plan, partial(_pretrainings, results)
    return {
        "status": _status(results),
        "claims": _claims(results),
        "masks": table(masks_in(plan, "seed")),
        "masks-object": table(masks_in(plan, "seed", domain="object")),
        "masks-longer": table(longer(plan)),
        "masks-finer": table(masks_in(plan, "seed", image_size=FINER_PX)),
        "labels": _labels(results),
        "clips": table(plan.variants(plan.base, "clips", "epochs", "seed")),
        "domains": _domains(results),
        "ablations": table(ablations(plan)),
        "recipes": _recipes(results),
    }


def ablations(plan: Plan) -> list[Pretraining]:
    """The base, then those that differ in one setting of the paper's or in their seed."""
    settings = ("decoder_depth", "norm_pix_loss", "decoder_mask_ratio", "frame_stride")
    found = plan.variants(plan.base, *settings, "num_repeats", "epochs", "seed")
    return sorted(found, key=lambda each: each != plan.base)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their columns, without the columns that say nothing."""
    said = [n for n in range(len(columns)) if any(row[n] != NONE for row in rows)]
    if not said:
        return "Not run yet."
    lines = [[line[n] for n in said] for line in (columns, *rows)]
    lines.insert(1, ["---", *["---:"] * (len(said) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _status(results: Results) -> str:
    plan, done = results.plan, len(results.tuned) + len(results.pretrained)
    return (
        f"{done} of {len(plan.experiments)} experiments, {results.cpu_hours:.1f} hours of one core."
    )


def _claims(results: Results) -> str:
    rows = [
        [claim, *(verdicts.get(place, NONE) for place in PLACES)]
        for claim, verdicts in claims(results).items()
    ]
    tried = [row for row in rows if set(row[1:]) != {NONE}]
    return _table(["the paper's claim", *PLACES], tried)


def _pretrainings(results: Results, experiments: Sequence[Pretraining]) -> str:
    """The cost of pre-trainings, and what was learned in them."""
    plan = results.plan
    known = [results.pretrained[each] for each in experiments if each in results.pretrained]
    equally_long = len({run.num_steps // 100 for run in known}) == 1
    minutes = min((run.minutes(run.num_steps) for run in known), default=0.0)
    columns = ["mask", "steps", "visible", "GFLOP", "elsewhere, %", "loss", "copy", "past"]
    columns += ["probe, %", f"after {minutes:.0f} min", "CPU ms", "clips/s", "fine-tuned, %"]
    rows = []
    for each in experiments:
        run, top1 = results.pretrained.get(each), results.top1(each, each.domain, own=True)
        if run is None:
            rows.append([_name(each, plan.base), *[NONE] * (len(columns) - 1)])
            continue
        visible, gflop = clip_cost(each, plan.scale)
        elsewhere = seen_elsewhere(each, plan.scale)
        passed = run.passes(PLATEAU) if each.norm_pix_loss else None
        rows.append(
            [
                _name(each, plan.base),
                f"{run.num_steps:,}",
                str(visible),
                f"{gflop:.2f}",
                NONE if elsewhere is None else f"{100 * elsewhere:.0f}",
                f"{run.loss:.3f}",
                NONE if run.copy_loss is None else f"{run.copy_loss:.3f}",
                f"{passed:,}" if passed else NONE,
                ", ".join(f"{probe:.1f}" for probe in run.quarters),
                f"{run.probe_after(minutes):.0f}" if equally_long else NONE,
                f"{1000 * run.cpu_seconds / run.num_steps:.0f}",
                f"{run.clips_per_second:.0f}",
                str(top1 or NONE),
            ]
        )
    return _table(columns, rows)


def _name(experiment: Pretraining, base: Pretraining) -> str:
    """The mask of a pre-training, and the settings in which it differs: `tube 0.9, seed 1`."""
    same = ("name", "domain", "image_size", "mask", "mask_ratio")  # the table's, or in the name
    differ = [k for k, v in vars(experiment).items() if k not in same and v != getattr(base, k)]
    return ", ".join([called(experiment), *(f"{k} {getattr(experiment, k)}" for k in differ)])


def _labels(results: Results) -> str:
    base = results.pretrained.get(results.plan.base)
    rows = []
    for labels, group in by_labels(results.plan).items():
        for who, each in group.items():
            if top1 := results.over_seeds(each):
                before = f" + {base.cpu_seconds / 60:.0f}" if each.start and base else ""
                seeds = ", ".join(f"{value:.1f}" for value in top1.top1)
                cost = f"{top1.cpu_seconds / 60:.1f}{before}"
                row = [f"{labels:,}", who.split(",")[0], str(each.epochs), str(top1), seeds]
                rows.append([*row, f"{top1.loss:.2f}", cost])
    columns = ["labels", "start", "epochs", "top-1, %", "seeds", "last loss", "CPU min of a seed"]
    return _table(columns, rows)


def _domains(results: Results) -> str:
    rows = [
        [
            source(start),
            str(top1),
            ", ".join(f"{mean:.1f}" for mean in top1.starts) or NONE,
            ", ".join(f"{value:.1f}" for value in top1.top1),
        ]
        for start in (None, *clip_sets(results.plan))
        if (top1 := results.top1(start, "object"))
    ]
    return _table(["pre-trained on", "top-1, %", "of each pre-training", "seeds"], rows)


def _recipes(results: Results) -> str:
    """The settings of the first pre-training and of its fine-tuning."""
    plan = results.plan
    tuned = next((each for each in plan.finetunings if each.start == plan.base), None)
    firsts = {"pre-training": plan.base, "fine-tuning": tuned}
    return "\n\n".join(
        f"<details><summary>{title}</summary>\n\n```toml\n{text}```\n\n</details>"
        for title, each in firsts.items()
        if each and (text := results.settings.get(each))
    )
