"""The page of the findings: plots, sentences and tables, all of them from the result files."""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduction.claims import (
    CHANCE,
    FINER_PX,
    LONGER_SCRATCH,
    base_of,
    by_labels,
    by_length,
    called,
    domains_verdicts,
    labels_verdict,
    longer_than_base,
    masks_in,
    masks_verdicts,
    matching,
    pictured,
    seen_and_learned,
    source,
    with_seeds,
)
from reproduction.plan import Finetuning, Plan, Pretraining
from reproduction.plots import draw, loss_groups, timed
from reproduction.results import Outcomes, read_outcomes, variants
from reproduction.sentences import (
    again_sentence,
    chance_sentence,
    change_sentence,
    domains_sentence,
    dual_sentence,
    grid_sentence,
    labels_sentence,
    leak_sentence,
    listed,
    longer_sentence,
    masks_sentence,
    seen_sentence,
)
from reproduction.tables import NONE, PLATEAU, labels_table, masks_table, runs_table, table
from videomae.data.motion import MOTIONS
from videomae.hub import atomic_path

IMAGES = Path("images") / "reproduction"


def write_page(plan: Plan, results_dir: Path, page: Path) -> Path:
    """Write the page and its pictures from what there is of a plan's results; the page's path."""
    outcomes = read_outcomes(plan, results_dir)
    folder = page.parent / IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    draw(outcomes, folder)
    for point in outcomes.pretrained:
        picture = results_dir / f"{point.name}.png"
        if picture.exists() and point in [*pictured(outcomes), *pictured(outcomes, "object")]:
            shutil.copyfile(picture, folder / picture.name)
    with atomic_path(page) as temporary:
        link = Path(os.path.relpath(results_dir, page.parent)).as_posix()
        temporary.write_text(page_text(outcomes, link), encoding="utf-8")
    return page


def page_text(outcomes: Outcomes, results: str = "../benchmarks/findings") -> str:
    """The page in Markdown, with a link to the results from where it will stand."""
    plan = outcomes.plan
    parts = [
        "# The paper's findings, in small",
        _answer(outcomes),
        f"*Written by `make findings` from {outcomes.num_done} of {len(plan.points)} points, "
        f"{outcomes.cpu_hours:.1f} hours of one core. Chance is {CHANCE:.1f} %. A figure such as "
        "72.0 ± 2.0 is the mean over the fine-tuning seeds and half the distance from the worst to "
        "the best.*",
        again_sentence(outcomes),
        "## In a minute",
        _image("fine-tuned top-1 against the mask ratio", "masks", _any(outcomes, masks_in(plan))),
        f"**1. Masks.** {masks_sentence(outcomes, masks_in(plan))}{longer_sentence(outcomes)}",
        _image("top-1 against the number of labels", "labels", by_labels(outcomes)),
        f"**2. Few labels.** {labels_sentence(outcomes)}",
        _image("top-1 by what was pre-trained on", "domains", matching(outcomes)),
        f"**3. Matching data.** {domains_sentence(outcomes)}",
        _setting(outcomes),
        _masks_section(outcomes),
        _labels_section(outcomes),
        _domains_section(outcomes),
        _ablations_section(outcomes),
        _repeat_section(outcomes, results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _answer(outcomes: Outcomes) -> str:
    """How many claims hold, then each of them where it was tried."""
    plan = outcomes.plan
    places = {
        "camera moves": masks_in(plan),
        "one object moves": masks_in(plan, "object"),
        "trained longer": longer_than_base(plan),
        "finer grid": masks_in(plan, image_size=FINER_PX),
    }
    verdicts = {place: masks_verdicts(outcomes, points) for place, points in places.items()}
    rows = [
        [f"1. {claim}", *(found[claim] for found in verdicts.values())]
        for claim in next(iter(verdicts.values()))
    ]
    for alike, scratch in (("as much fine-tuning", "scratch"), ("as much time", LONGER_SCRATCH)):
        few, _ = labels_verdict(outcomes, scratch)
        rows.append([f"2. pre-training pays on few labels, in {alike}", few, *[NONE] * 3])
    for (own, others), found in domains_verdicts(outcomes).items():
        claim = f"3. {own:,} matching clips beat {others:,} others"
        rows.append([claim, NONE, found, *[NONE] * 2])
    rows = [row for row in rows if set(row[1:]) != {NONE}]
    every = [word for row in rows for word in row[1:]]
    outcome = {
        "holds": "{} as in the paper",
        "holds in part": "{} as in the paper in part",
        "does not hold": "{} the other way round",
        "undecided": "{} undecided, as seeds do as much",
        "neither learns": "{} where neither side is better than a guess",
        "not run yet": "{} not run yet",
    }
    counted = [text.format(n) for word, text in outcome.items() if (n := every.count(word))]
    return (
        "The paper's three findings, tried with small models on two CPU cores. Comparisons: "
        f"{', '.join(counted)}.\n\n" + table(("the paper's claim", *places), rows)
    )


# The sections.


def _setting(outcomes: Outcomes) -> str:
    scale, base = outcomes.plan.scale, base_of(outcomes.plan)
    config = scale.config(base.image_size)
    grid, machine = config.grid, outcomes.machine
    return f"""## What was run

- **Clips**: rendered by `videomae motion`, {base.image_size} x {base.image_size} px,
  {scale.video_frames} frames, {len(MOTIONS)} motions. In the domain *camera* the whole picture
  moves, over a bright smooth plane; in *object* one vivid object moves by the same motions over a
  grey, hard-edged ground that stands still, so that what is hidden in one slice can be copied from
  another. The middle frame is the same for all classes: no single picture tells the class. Tested
  on {scale.held_out} clips of other scenes, one view each.
- **Model**: preset `{scale.preset}`, {config.num_hidden_layers} layers of {config.hidden_size},
  decoder of {config.decoder_num_hidden_layers} layers of {config.decoder_hidden_size};
  {scale.num_frames} frames, every second one, patch {config.patch_size}: {grid.frames} slices of
  {grid.height} x {grid.width} cells, {grid.num_tokens} tokens.
- **Pre-training**, unless said otherwise: {called(base)}, {base.clips:,} clips,
  {base.epochs} epochs, batches of {scale.batch_size}, normalised pixels as targets.
  {outcomes.plan.why}
  The linear probe learns from {scale.probe_clips:,} labelled clips on frozen features.
- **Fine-tuning**, unless said otherwise: {_few(outcomes.plan)} labels, the first of the clips that
  were pre-trained on, the same settings from scratch and from a pre-trained encoder.
- **Machine**: {machine.get("processor", NONE)}, {machine.get("cores", NONE)} cores, torch
  {machine.get("torch", NONE)}, float32, two points at a time with one thread each. Points
  ran on processors of two generations, some beside other work: GFLOP compares costs better than CPU
  seconds do; clips per second are as seen on the clock."""


def _few(plan: Plan) -> int:
    return next((p.labels for p in plan.points if isinstance(p, Finetuning)), 0)


def _masks_section(outcomes: Outcomes) -> str:
    plan, base = outcomes.plan, base_of(outcomes.plan)
    parts = [
        "## Finding 1: masks",
        "### Where the camera moves",
        masks_table(outcomes, masks_in(plan)),
        "*Visible*: tokens that the encoder sees; frame masks of 0.9 and 0.95 both leave one slice "
        "of 8, which is 0.875. *GFLOP*: what a step computes for one clip, forward and backward; "
        "it says what a mask saves better than the seconds of a busy machine. *Elsewhere*: of what "
        "is hidden, how much shows in a visible cell of another slice, where the motion of these "
        "clips takes it. *Copy*: the loss of a mere copy of each hidden tubelet from the same cell "
        "of the nearest slice in which it is visible, by the best factor for slices so far apart; "
        "tubes leave nothing to copy. *Past*: the step from which on the loss stays below "
        f"{PLATEAU:g}. *Probe*: after each quarter of the steps. *Equal time*: the probe when the "
        "cheapest of the runs is over. Losses of different masks are losses of different tasks.",
        *(
            _image(f"loss of {mask} masks", f"loss-{mask}", loss_groups(outcomes)[mask])
            for mask in ("tube", "random", "frame")
        ),
        _image("probe against time", "time", timed(outcomes)),
        seen_sentence(outcomes),
        _image("probe against what shows elsewhere", "seen", seen_and_learned(outcomes)),
    ]
    shown = _pictures(pictured(outcomes))
    if shown:
        parts += ["What they see and paint, on the first of the clips they learned from:", *shown]
    static = masks_in(plan, "object")
    if static:
        parts += [
            "### The task changed: where only an object moves",
            "The reason given for tubes is that what is hidden can be copied from another slice. "
            "In the domain above, everything moves, and a copy is never quite right; here it is, "
            f"for all but the object. {masks_sentence(outcomes, static)}",
            leak_sentence(outcomes),
            _image("fine-tuned top-1, object", "masks-object", _any(outcomes, static)),
            masks_table(outcomes, static),
            _image("loss, object", "loss-object", loss_groups(outcomes)["object"]),
            *_pictures(pictured(outcomes, "object")),
        ]
    longer = longer_than_base(plan)
    if longer:
        parts += [
            "### The schedule changed: longer",
            f"The same with {listed([str(point.epochs) for point in longer])} epochs in place of "
            f"{base.epochs}, in case the plateau alone decides.{change_sentence(outcomes, longer)}",
            masks_table(outcomes, by_length(plan)),
            _image("loss, longer", "loss-longer", loss_groups(outcomes)["longer"]),
        ]
    finer = masks_in(plan, image_size=FINER_PX)
    if finer:
        parts += [
            "### The grid changed: finer",
            f"{grid_sentence(plan, finer[0])}{change_sentence(outcomes, finer)}",
            masks_table(outcomes, finer),
        ]
    return "\n\n".join(part for part in parts if part)


def _pictures(points: Sequence[Pretraining]) -> list[str]:
    return [f"![{called(p)}]({IMAGES.as_posix()}/{p.name}.png)" for p in points]


def _labels_section(outcomes: Outcomes) -> str:
    plan, base = outcomes.plan, base_of(outcomes.plan)
    _, each = labels_verdict(outcomes)
    _, longer = labels_verdict(outcomes, LONGER_SCRATCH)
    in_as_much_time = f" In as much time: {'; '.join(longer)}." if longer else ""
    sizes = sorted(
        (
            p
            for p in variants(plan, base, "clips", "epochs")
            if p.clips <= base.clips and p not in longer_than_base(plan)
        ),
        key=lambda point: point.clips,
    )
    gives_time = (
        " A scratch row with more epochs gives that time to the labels: as many steps as the "
        "pre-training took, and about as much time as it and its fine-tuning."
    )
    parts = [
        "## Finding 2: few labels",
        f"Whether pre-training pays, by labels: {'; '.join(each)}.{in_as_much_time}"
        if each
        else "",
        labels_table(outcomes),
        f"The pre-trained encoder has seen {base.clips:,} clips without labels, and its "
        f"fine-tuning costs the pre-training besides.{gives_time if longer else ''}",
    ]
    if len(sizes) > 1 and base in outcomes.pretrained:
        rows = [
            (f"{point.clips:,} clips" + (f", seed {point.seed}" if point.seed else ""), point)
            for point in with_seeds(plan, sizes)
        ]
        parts += [
            "### How many clips to pre-train on",
            f"At about {outcomes.pretrained[base].num_steps:,} steps each.",
            runs_table(outcomes, rows),
        ]
    return "\n\n".join(part for part in parts if part)


def _domains_section(outcomes: Outcomes) -> str:
    rows = [
        [
            source(start),
            str(top1),
            ", ".join(f"{mean:.1f}" for mean in top1.starts) or NONE,
            ", ".join(f"{value:.1f}" for value in top1.top1),
        ]
        for start, top1 in matching(outcomes)
    ]
    columns = ("pre-trained on", "top-1, %", "of each pre-training", "seeds")
    each = [
        f"{own:,} against {others:,}: {found}"
        for (own, others), found in domains_verdicts(outcomes).items()
        if found != NONE
    ]
    better = (
        f" That clips of it are better to pre-train on than those of *camera*: {'; '.join(each)}."
    )
    parts = [
        "## Finding 3: matching data",
        f"Fine-tuned and tested in the domain *object*.{better if each else ''} All at equal "
        "steps: more clips are seen less often each.",
        table(columns, rows),
        "From random masks of 0.75, one pre-training each, [it came out the other way](log.md): "
        "1,000 object clips 35 %, 10,000 camera clips 28 %."
        if each
        else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _ablations_section(outcomes: Outcomes) -> str:
    plan, base = outcomes.plan, base_of(outcomes.plan)
    # Epochs make up for repeats alone; longer training has a table of its own.
    settings = {
        "seed {seed}": ("seed",),
        "decoder depth {decoder_depth}": ("decoder_depth",),
        "raw pixels as targets": ("norm_pix_loss",),
        "frame_stride {frame_stride}": ("frame_stride",),
        "{num_repeats} crops of each clip": ("num_repeats", "epochs"),
        "decoder mask {decoder_mask_ratio} (dual masking)": ("decoder_mask_ratio",),
    }
    usual = [base, *longer_than_base(plan)]
    rows = [("as usual", base)]
    rows += [
        (text.format(**dataclasses.asdict(point)), point)
        for text, names in settings.items()
        for point in variants(plan, base, *names)
        if point not in usual
    ]
    if len(rows) < 2:
        return ""
    parts = [
        "## What else the paper ablates",
        runs_table(outcomes, rows),
        chance_sentence(outcomes, rows),
        dual_sentence(plan),
        "Losses of normalised and of raw pixels are not comparable. With two crops of each clip a "
        "step reads half as many clips; with frame_stride 1 a model sees half of the motion, and "
        "what moves less is easier to copy. The paper finds a decoder of 4 layers best among 1 to "
        "8, normalised targets better, and repeated augmentation of use.",
    ]
    return "\n\n".join(part for part in parts if part)


def _repeat_section(outcomes: Outcomes, results: str) -> str:
    base = base_of(outcomes.plan)
    first = next((p for p in outcomes.tuned if p.start == base), None)
    parts = [
        "## To repeat it",
        "```bash\nmake findings           # all points, a night on two cores; goes on where it "
        "stopped\nmake findings QUICK=1   # a few of them in half an hour, "
        "runs/findings/quick/reproduction.md\n```",
        f"Each point is a JSON file in [{results.replace('../', '')}]({results}) with its "
        "settings, loss, probes, seeds, times and machine; this page is written from those. All "
        "points differ from these two recipes by what their names say:",
    ]
    for title, point in (("pre-training", base), ("fine-tuning", first)):
        text = outcomes.settings.get(point) if point else None
        if text:
            parts.append(f"<details><summary>{title}</summary>\n\n```toml\n{text}```\n\n</details>")
    return "\n\n".join(parts)


def _image(text: str, name: str, there_if: Any = True) -> str:
    """A picture in the page, where there is something to draw."""
    return f"![{text}]({IMAGES.as_posix()}/{name}.svg)" if there_if else ""


def _any(outcomes: Outcomes, points: list[Pretraining]) -> bool:
    return any(outcomes.top1(point, point.domain) for point in points)
