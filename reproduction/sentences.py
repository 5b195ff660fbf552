"""What the page of the findings says in words.

No sentence takes the outcome for granted: what it says follows from the figures. One that has no
figures yet is empty or says so.
"""

import dataclasses
from collections.abc import Sequence

from reproduction.baselines import seen_elsewhere
from reproduction.claims import (
    CHANCE,
    LONGER_SCRATCH,
    MARGIN,
    PAPER_PX,
    PAPER_RATIO,
    base_of,
    both_starts,
    by_seed,
    called,
    clip_gflop,
    longer_than_base,
    masks_in,
    matching,
    seen_and_learned,
    source,
)
from reproduction.plan import Plan, Pretraining
from reproduction.results import Outcomes, variants


def masks_sentence(outcomes: Outcomes, points: list[Pretraining]) -> str:
    known = {point: top1 for point in points if (top1 := outcomes.top1(point, point.domain))}
    if not known:
        return "Not run yet."
    best = max(known, key=lambda point: known[point].mean)
    tubes = [point for point in known if point.mask == "tube"]
    words = [f"Of {len(known)} masks, {called(best)} comes out best, with {known[best]} %"]
    if tubes and best.mask != "tube":
        tube = max(tubes, key=lambda point: known[point].mean)
        words.append(f"; of the tubes, {tube.mask_ratio:g} with {known[tube]} %")
    same = {p.mask: known[p] for p in known if p.mask_ratio == PAPER_RATIO}
    if len(same) > 1:
        each = ", ".join(f"{mask} {top1} %" for mask, top1 in same.items())
        words.append(f". At {PAPER_RATIO:g}: {each}")
    if len(tubes) > 1:
        low, high = (
            f"{outcomes.pretrained[tube].epoch_seconds:.0f} CPU seconds at {tube.mask_ratio:g} "
            f"({clip_gflop(outcomes.plan, tube):.2f} GFLOP a clip)"
            for tube in (tubes[0], tubes[-1])
        )
        words.append(f". An epoch of tubes takes {low} and {high}")
    return "".join(words) + "."


def longer_sentence(outcomes: Outcomes) -> str:
    """What the longest of the longer pre-trainings comes to."""
    known = {
        point: top1
        for point in longer_than_base(outcomes.plan)
        if (top1 := outcomes.top1(point, point.domain))
    }
    if not known:
        return ""
    longest = max(known, key=lambda point: point.epochs)
    return (
        f" Given {longest.epochs} epochs in place of {base_of(outcomes.plan).epochs}, "
        f"{called(longest)} reaches {known[longest]} %."
    )


def labels_sentence(outcomes: Outcomes) -> str:
    both = both_starts(outcomes)
    if not both:
        return "Not run yet."
    labels, ours, scratch = (
        listed(words)
        for words in (
            [f"{count:,}" for count in both],
            [f"{top1.mean:.0f}" for top1, _ in both.values()],
            [f"{top1.mean:.0f}" for _, top1 in both.values()],
        )
    )
    text = (
        f"With {labels} labels a pre-trained encoder reaches {ours} %; fresh weights, with the "
        f"same settings, {scratch} %."
    )
    longer = both_starts(outcomes, LONGER_SCRATCH)
    if longer:
        each = listed([f"{top1} % with {count:,}" for count, (_, top1) in longer.items()])
        text += f" Given the time of the pre-training too, fresh weights reach {each}."
    return text


def domains_sentence(outcomes: Outcomes) -> str:
    known = matching(outcomes)
    if len(known) < 2:
        return "Not run yet."
    each = ", ".join(f"{source(start)} {top1} %" for start, top1 in known)
    return f"On clips where one object moves: {each}."


def again_sentence(outcomes: Outcomes) -> str:
    """How far pre-trainings are apart that differ in their seed alone, and what follows."""
    again = []
    for point in [*masks_in(outcomes.plan), *masks_in(outcomes.plan, "object")]:
        top1 = outcomes.top1(point, point.domain)
        if top1 and len(top1.starts) > 1:
            where = "" if point.domain == "camera" else f" on clips of an {point.domain}"
            means = listed([f"{mean:.0f} %" for mean in top1.starts])
            again.append(f"{called(point)}{where} leads to {means}")
    if not again:
        return ""
    return (
        "**A pre-training can be its chance.** By its seed alone, "
        f"{'; '.join(again)} after fine-tuning. All others were run with one seed: a claim that "
        f"rests on one of those is decided only by more than {by_seed(outcomes):.0f} points, any "
        f"other by more than {MARGIN:g}."
    )


def leak_sentence(outcomes: Outcomes) -> str:
    """What the usual mask learns where the camera moves, and where the ground stands still."""
    base = base_of(outcomes.plan)
    like = dataclasses.replace(base, domain="object")
    camera, still = (
        [
            outcomes.pretrained[p]
            for p in variants(outcomes.plan, point, "seed")
            if p in outcomes.pretrained
        ]
        for point in (base, like)
    )
    if not camera or not still:
        return ""
    first, second = (
        listed([f"a loss of {run.loss:.2f} and a probe of {run.probes[-1]:.0f} %" for run in runs])
        for runs in (camera, still)
    )
    return (
        f"With {called(base)}, clips of a camera lead to {first}; those of an object to {second}. "
        "Each probe is on clips of its own domain, so the two are no measure of each other."
    )


def seen_sentence(outcomes: Outcomes) -> str:
    """Whether the masks that teach motion are those that let it be seen."""
    learned: dict[bool, list[float]] = {}
    for _, elsewhere, probe in seen_and_learned(outcomes):
        learned.setdefault(probe > CHANCE + MARGIN, []).append(100 * elsewhere)
    if len(learned) < 2:
        return ""
    return (
        "A likely reason: a model that knows the motion finds what is hidden where it shows at "
        "another time, and tubes hide much of it throughout. Of these equally long pre-trainings, "
        f"those whose probe is better than a guess let at least {min(learned[True]):.0f} % of it "
        f"show elsewhere, the others at most {max(learned[False]):.0f} %."
    )


def change_sentence(outcomes: Outcomes, points: list[Pretraining]) -> str:
    """How the fine-tuned top-1 and the loss of these differ from the usual of the same mask."""
    runs: dict[str, list[tuple[str, str]]] = {called(point): [] for point in points}
    for point in [*masks_in(outcomes.plan), *points]:
        run, top1 = outcomes.pretrained.get(point), outcomes.top1(point, point.domain)
        if run and top1 and called(point) in runs:
            runs[called(point)].append((str(top1), f"{run.loss:.3f}"))
    changes = []
    for name, alike in runs.items():
        if len(alike) > 1:
            tops, losses = (" to ".join(each) for each in zip(*alike, strict=True))
            changes.append(f"{name} goes from {tops} %, its loss from {losses}")
    return f" Fine-tuned, {'; '.join(changes)}." if changes else ""


def grid_sentence(plan: Plan, finer: Pretraining) -> str:
    """How much more a mask shows elsewhere the smaller its cells are."""
    sizes = (base_of(plan).image_size, finer.image_size, PAPER_PX)
    grids = [plan.scale.config(size).grid for size in sizes]
    cells = listed([f"{grid.height} x {grid.width}" for grid in grids])
    shares = (
        [seen_elsewhere(dataclasses.replace(mask, image_size=size), plan.scale) for size in sizes]
        for mask in (finer, dataclasses.replace(finer, mask_ratio=PAPER_RATIO))
    )
    usual, paper = (listed([f"{100 * (share or 0):.0f}" for share in each]) for each in shares)
    return (
        "The smaller the cells, the more of what a tube hides passes through a visible cell at "
        f"another time: with {cells} cells, the last as in the paper, it is {usual} % of what "
        f"{called(finer)} hides, and {paper} % at {PAPER_RATIO:g}."
    )


def dual_sentence(plan: Plan) -> str:
    """What the second mask of V2 saves, at the usual ratio and at the paper's."""
    half = dataclasses.replace(base_of(plan), decoder_mask_ratio=0.5)
    high, high_half = (
        clip_gflop(plan, dataclasses.replace(point, mask="tube", mask_ratio=PAPER_RATIO))
        for point in (base_of(plan), half)
    )
    return (
        "A decoder runs on what is visible and on what it is to predict. With dual masking that is "
        "what the second mask leaves, whether the first hides it or not: where half is visible, a "
        f"second mask of 0.5 saves nothing ({clip_gflop(plan, half):.2f} GFLOP a clip in place of "
        f"{clip_gflop(plan, base_of(plan)):.2f}); at {PAPER_RATIO:g}, for which it was made, it "
        f"would save {100 * (1 - high_half / high):.0f} % of a step."
    )


def chance_sentence(outcomes: Outcomes, rows: list[tuple[str, Pretraining]]) -> str:
    """Which settings lead to a probe outside of what seeds of the usual ones lead to."""
    probes = {name: run.probes[-1] for name, p in rows if (run := outcomes.pretrained.get(p))}
    alike = variants(outcomes.plan, base_of(outcomes.plan), "seed")
    usual = [probes[name] for name, point in rows if point in alike and name in probes]
    if len(usual) < 2 or len(probes) == len(usual):
        return ""
    low, high = min(usual), max(usual)
    better = [name for name, probe in probes.items() if probe > high]
    worse = [name for name, probe in probes.items() if probe < low]
    text = (
        f"The usual settings lead to probes of {low:.1f} to {high:.1f} % by their seed alone, and "
        "each of the others was run with one: what lies within says nothing, and what lies "
        "outside not much."
    )
    for names, where in ((better, "above"), (worse, "below")):
        if names:
            text += f" {where.capitalize()} it: {listed(names)}."
    return text


def listed(words: Sequence[str]) -> str:
    """
    >>> listed(["100", "300", "1,000"])
    '100, 300 and 1,000'
    """
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
