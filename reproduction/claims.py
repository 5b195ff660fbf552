"""What is compared with what, and whether the paper's claims hold.

A claim holds where the worst seed of one is above the best of the other, and above its mean by more
than chance does on a few hundred test clips. Where one side rests on a single pre-training, the
means are to be further apart, too, than the seed of a pre-training takes them. Else it is
undecided. Where both are as good as a guess, neither learns, and there is nothing to compare.
"""

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from reproduction.baselines import seen_elsewhere
from reproduction.plan import Finetuning, Plan, Pretraining
from reproduction.results import Outcomes, Tuned, variants
from videomae.data.motion import MOTIONS
from videomae.masking import MASKS, choose_tokens
from videomae.settings import Domain
from videomae.training.pretrain import draw_masks, make_model

PAPER_RATIO = 0.9  # at which masks of different kinds are compared
# Points of top-1: about two standard errors of the difference, on 600 clips of which the same are
# easy for both.
MARGIN = 3.0
LONGER_SCRATCH = "scratch, longer"  # for as many steps as the pre-training takes
CHANCE = 100 / len(MOTIONS)  # top-1 of a guess, %
FINER_PX = 64  # of the points on a finer grid
PAPER_PX = 112  # with as many cells as the paper's 224 px, whose patches are twice as wide


def base_of(plan: Plan) -> Pretraining:
    """What the other points differ from: the plan's first pre-training."""
    return next(point for point in plan.points if isinstance(point, Pretraining))


def masks_in(
    plan: Plan, domain: Domain = "camera", *, image_size: int | None = None
) -> list[Pretraining]:
    """The pre-trainings of one domain and size that differ in their mask, by mask and ratio."""
    image_size = image_size or base_of(plan).image_size
    like = dataclasses.replace(base_of(plan), domain=domain, image_size=image_size)
    found = variants(plan, like, "mask", "mask_ratio")
    return sorted(found, key=lambda point: (list(MASKS).index(point.mask), point.mask_ratio))


def with_seeds(plan: Plan, points: list[Pretraining]) -> list[Pretraining]:
    """Each pre-training, and after it those that differ from it in their seed alone."""
    return [each for point in points for each in variants(plan, point, "seed")]


def longer_than_base(plan: Plan) -> list[Pretraining]:
    """The pre-trainings that go through the same clips more often."""
    base = base_of(plan)
    found = variants(plan, base, "mask", "mask_ratio", "epochs")
    return [point for point in found if point.epochs > base.epochs]


def by_length(plan: Plan) -> list[Pretraining]:
    """The pre-trainings that take longer, after the usual ones of the same mask."""
    longer = longer_than_base(plan)
    masks = {(point.mask, point.mask_ratio) for point in longer}
    return [p for p in masks_in(plan) if (p.mask, p.mask_ratio) in masks] + longer


def pictured(outcomes: Outcomes, domain: Domain = "camera") -> list[Pretraining]:
    """Whose reconstructions are shown: tubes at each ratio, and each mask at two of them.

    Of the second domain, tubes and random masks at the ratio of the usual ones.
    """
    usual = base_of(outcomes.plan).mask_ratio
    shown = {"camera": (usual, PAPER_RATIO), "object": (usual,)}[domain]
    return [
        point
        for point in masks_in(outcomes.plan, domain)
        if point in outcomes.pretrained
        and (point.mask_ratio in shown or (point.mask == "tube" and domain == "camera"))
    ]


def seen_and_learned(outcomes: Outcomes) -> list[tuple[Pretraining, float, float]]:
    """Of each mask where the camera moves, how much of what it hides shows elsewhere; its probe.

    By grid, mask, then by that share, which is in [0, 1]; the linear probe at the end, in percent.
    """
    plan = outcomes.plan
    found = []
    for point in with_seeds(plan, [*masks_in(plan), *masks_in(plan, image_size=FINER_PX)]):
        elsewhere = seen_elsewhere(point, plan.scale)
        if elsewhere is not None and point in outcomes.pretrained:
            found.append((point, elsewhere, outcomes.pretrained[point].probes[-1]))
    masks = list(MASKS)
    return sorted(found, key=lambda it: (it[0].image_size, masks.index(it[0].mask), it[1]))


def by_seed(outcomes: Outcomes) -> float:
    """Points of top-1 that pre-trainings are apart at most which differ in their seed alone."""
    known = [outcomes.top1(p, p.domain) for p in outcomes.plan.points if isinstance(p, Pretraining)]
    means = [top1.starts for top1 in known if top1 and top1.starts]
    return max((max(starts) - min(starts) for starts in means), default=0.0)


def verdict(
    claimed_better: Sequence[Tuned | None],
    than: Sequence[Tuned | None],
    *,
    by_seed: float = 0.0,
) -> str:
    """Whether the best of some is better than the best of others, beyond what seeds do.

    None stands for a point that is still to be run, and an empty list for none that are planned.
    by_seed: points of top-1 that the seed of a pre-training was seen to change.

    >>> verdict([Tuned((80.0, 82.0), 1, 1, 1)], [Tuned((70.0, 81.0), 1, 1, 1)])
    'undecided'
    """
    if not claimed_better or not than:
        return "–"
    ours = [each for each in claimed_better if each]
    theirs = [each for each in than if each]
    if not ours or not theirs:
        return "not run yet"
    best, other = (max(some, key=lambda each: each.mean) for some in (ours, theirs))
    if max(best.mean, other.mean) < CHANCE + MARGIN:
        return "neither learns"
    single = 1 in (len(best.starts), len(other.starts))
    if single and abs(best.mean - other.mean) <= by_seed:
        return "undecided"
    if best.beats(other, by=MARGIN):
        return "holds"
    return "does not hold" if other.beats(best, by=MARGIN) else "undecided"


def masks_verdicts(outcomes: Outcomes, points: list[Pretraining]) -> dict[str, str]:
    """What the paper claims of masks -> whether it holds in these points.

    The best ratio is that of those which tubes and random masks both have.
    """
    at = {(p.mask, p.mask_ratio): outcomes.top1(p, p.domain) for p in points}
    ratios = {ratio for _, ratio in at}
    high = {ratio for ratio in ratios if ratio >= PAPER_RATIO}
    both = {ratio for ratio in ratios if {("tube", ratio), ("random", ratio)} <= at.keys()}

    chance = by_seed(outcomes)

    def of(mask: str, some: set[float]) -> list[Tuned | None]:
        return [top1 for (kind, ratio), top1 in at.items() if kind == mask and ratio in some]

    def high_is_best(mask: str) -> str:
        return verdict(of(mask, high), of(mask, ratios - high), by_seed=chance)

    def tubes_beat(mask: str, some: set[float]) -> str:
        return verdict(of("tube", some), of(mask, some), by_seed=chance)

    return {
        f"hiding {PAPER_RATIO:g} or more is best, of tubes": high_is_best("tube"),
        f"hiding {PAPER_RATIO:g} or more is best, of random masks": high_is_best("random"),
        f"tubes beat random masks, at {PAPER_RATIO:g}": tubes_beat("random", {PAPER_RATIO}),
        "tubes beat random masks, at the best ratio of each": tubes_beat("random", both),
        f"tubes beat frame masks, at {PAPER_RATIO:g}": tubes_beat("frame", {PAPER_RATIO}),
    }


def called(point: Pretraining) -> str:
    """A mask and its ratio in words, `tube 0.9`."""
    return f"{point.mask} {point.mask_ratio:g}"


def by_labels(outcomes: Outcomes) -> dict[int, dict[str, Tuned]]:
    """Labels -> what was fine-tuned on so many: "pre-trained", "scratch" or "scratch, longer"."""
    found = {
        labels: {who: top1 for who, point in each.items() if (top1 := outcomes.over_seeds(point))}
        for labels, each in _label_points(outcomes.plan).items()
    }
    return {labels: each for labels, each in sorted(found.items()) if each}


def _label_points(plan: Plan) -> dict[int, dict[str, Finetuning]]:
    """The points of finding 2; from scratch the first of the plan, then the one for longer."""
    base = base_of(plan)
    found: dict[int, dict[str, Finetuning]] = {}
    for point in plan.points:
        if isinstance(point, Finetuning) and point.domain == base.domain:
            each = found.setdefault(point.labels, {})
            if point.start == base:
                each["pre-trained"] = point
            elif point.start is None:
                each[LONGER_SCRATCH if "scratch" in each else "scratch"] = point
    return found


def both_starts(outcomes: Outcomes, scratch: str = "scratch") -> dict[int, tuple[Tuned, Tuned]]:
    """Labels -> pre-trained and scratch, where there are both."""
    return {
        labels: (each["pre-trained"], each[scratch])
        for labels, each in by_labels(outcomes).items()
        if {"pre-trained", scratch} <= each.keys()
    }


def labels_verdict(outcomes: Outcomes, scratch: str = "scratch") -> tuple[str, list[str]]:
    """Whether pre-training pays over all numbers of labels, and for each of them."""
    chance = by_seed(outcomes)
    found = {
        labels: verdict([ours], [theirs], by_seed=chance)
        for labels, (ours, theirs) in both_starts(outcomes, scratch).items()
    }
    if not found:
        planned = any(scratch in each for each in _label_points(outcomes.plan).values())
        return "not run yet" if planned else "–", []
    each = [f"{labels:,}: {outcome}" for labels, outcome in found.items()]
    if len(set(found.values())) == 1:
        return next(iter(found.values())), each
    return "holds in part" if "holds" in found.values() else "undecided", each


def matching(outcomes: Outcomes) -> list[tuple[Pretraining | None, Tuned]]:
    """What was fine-tuned on the second domain, from scratch and from each set of clips."""
    starts = [None, *_sets(outcomes.plan)]
    return [(start, top1) for start in starts if (top1 := outcomes.top1(start, "object"))]


def _sets(plan: Plan) -> list[Pretraining]:
    """The pre-trainings that differ in their clips, by domain and number."""
    found = variants(plan, base_of(plan), "domain", "clips", "epochs")
    short = [point for point in found if point not in longer_than_base(plan)]
    return sorted(short, key=lambda point: (point.domain, point.clips))


def domains_verdicts(outcomes: Outcomes) -> dict[tuple[int, int], str]:
    """Whether so many matching clips beat so many of the other domain."""
    at = {(p.domain, p.clips): [outcomes.top1(p, "object")] for p in _sets(outcomes.plan)}
    chance = by_seed(outcomes)
    return {
        (own, others): verdict(
            at.get(("object", own), []), at.get(("camera", others), []), by_seed=chance
        )
        for own, others in ((3000, 3000), (1000, 3000), (1000, 10_000))
    }


def source(start: Pretraining | None) -> str:
    """What was pre-trained on, in words."""
    return "scratch" if start is None else f"{start.clips:,} {start.domain} clips"


def num_visible(plan: Plan, point: Pretraining) -> int:
    """Tokens that the encoder sees of a clip."""
    mask, _ = _masks(plan, point)
    return int((~mask).sum())


@cache
def clip_gflop(plan: Plan, point: Pretraining) -> float:
    """What a step computes for one clip, forward and backward, in 10^9 products and sums.

    It says what a mask or a decoder saves on any machine, however busy.
    """
    mask, decoder_mask = _masks(plan, point)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = make_model(point.settings(plan.scale, Path()))
        model.set_attn_implementation("eager")  # of which the counter sees every product
        clip = torch.zeros(1, model.config.num_frames, 3, point.image_size, point.image_size)
        chosen = choose_tokens(mask, model.config.grid.num_tokens, decoder_mask)
        model(clip, chosen).loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops() / 1e9)


def _masks(plan: Plan, point: Pretraining) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The masks of one clip, of which only the numbers matter here."""
    settings = point.settings(plan.scale, Path())
    return draw_masks(settings, plan.scale.config(point.image_size), num_clips=1, step=0)
