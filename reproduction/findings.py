"""The results of a plan: figures of each experiment, and whether the paper's claims hold in them.

A claim holds where the worst seed of one side is above the best of the other, and above its mean by
more than chance makes on a few hundred test clips. Where one side rests on a single pre-training,
the means must also be further apart than the seed of a pre-training takes them. Else the claim is
undecided. Where both sides are as good as a guess, neither learns, and nothing can be compared.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from reproduction.baselines import seen_elsewhere
from reproduction.plan import Experiment, Finetuning, Plan, Pretraining
from reproduction.run import Study
from videomae.hub import read_json
from videomae.rendering.motion import MOTIONS
from videomae.settings import Domain

PAPER_RATIO = 0.9  # at which masks of different kinds are compared
# Points of top-1: about two standard errors of the difference, on 600 clips of which the same are
# easy for both.
MARGIN = 3.0
CHANCE = 100 / len(MOTIONS)  # top-1 of a guess, %
FINER_PX = 64  # image size of the experiments on a finer grid
PLACES: dict[str, dict[str, Any]] = {
    "camera moves": {},
    "one object moves": {"domain": "object"},
    "finer grid": {"image_size": FINER_PX},
}
LONGER_SCRATCH = "scratch, longer"  # for as many steps as the pre-training takes
NOT_PLANNED = "–"


@dataclass(frozen=True)
class Tuned:
    """Fine-tunings that differ in their seed: top-1 in percent, the last loss, CPU seconds of one.

    starts: the mean top-1 from each pre-training, of those that differ in their seed too; empty
    from scratch.
    """

    top1: tuple[float, ...]
    cpu_seconds: float
    loss: float
    starts: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        return mean(self.top1)

    def __str__(self) -> str:
        """The mean, and half the distance from the worst to the best seed.

        >>> str(Tuned((70.0, 74.0, 72.0), 100.0, 1.0))
        '72.0 ± 2.0'
        """
        return f"{self.mean:.1f} ± {(max(self.top1) - min(self.top1)) / 2:.1f}"


@dataclass(frozen=True)
class Pretrained:
    """One pre-training: its loss over the steps, probes in percent at some of them, its cost.

    copy_loss: the loss of a mere copy, None where there is none (see `baselines`).
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    copy_loss: float | None
    probe_steps: tuple[int, ...]
    probes: tuple[float, ...]
    num_steps: int
    cpu_seconds: float
    clips_per_second: float

    @property
    def loss(self) -> float:
        """At the end: the mean over the last tenth."""
        return mean(self.losses[-max(len(self.losses) // 10, 1) :])

    def passes(self, loss: float) -> int | None:
        """The first step from which on the loss stays below a value; None where it never does."""
        above = [step for step, value in zip(self.steps, self.losses, strict=True) if value >= loss]
        return next((step for step in self.steps if not above or step > above[-1]), None)

    def minutes(self, step: int) -> float:
        """CPU minutes up to a step."""
        return self.cpu_seconds * step / self.num_steps / 60

    @property
    def quarters(self) -> list[float]:
        """The probe after each quarter of the steps, or as near to it as there is one."""
        marks = [self.num_steps * quarter / 4 for quarter in (1, 2, 3, 4)]
        distances = np.abs(np.subtract.outer(marks, self.probe_steps))
        return [self.probes[index] for index in distances.argmin(1)]

    def probe_after(self, minutes: float) -> float:
        """The probe after so many CPU minutes, on straight lines between the probed steps."""
        times = [self.minutes(step) for step in self.probe_steps]
        return float(np.interp(minutes, times, self.probes))


@dataclass(frozen=True)
class Results:
    """The results of a plan, as far as it has been run."""

    plan: Plan
    tuned: dict[Finetuning, Tuned]
    pretrained: dict[Pretraining, Pretrained]
    settings: dict[Experiment, str]
    machine: dict[str, Any]

    @property
    def cpu_hours(self) -> float:
        seconds = sum(each.cpu_seconds for each in self.pretrained.values())
        seconds += sum(each.cpu_seconds * len(each.top1) for each in self.tuned.values())
        return seconds / 3600

    def top1(self, start: Pretraining | None, domain: Domain, *, own: bool = False) -> Tuned | None:
        """The fine-tuning from a start in a domain, over all seeds of the pre-training or its own.

        Of several the one that the plan has first.
        """
        for each in self.plan.finetunings:
            if (each.start, each.domain) == (start, domain):
                return self.tuned.get(each) if own else self.over_seeds(each)
        return None

    def over_seeds(self, experiment: Finetuning) -> Tuned | None:
        """A fine-tuning, with those whose pre-training differs in its seed alone."""
        if experiment not in self.tuned:
            return None
        alike = [
            found
            for other, found in self.tuned.items()
            if _seedless(other) == _seedless(experiment)
        ]
        return Tuned(
            tuple(value for each in alike for value in each.top1),
            mean(each.cpu_seconds for each in alike),
            mean(each.loss for each in alike),
            tuple(start for each in alike for start in each.starts),
        )

    @property
    def by_seed(self) -> float:
        """Points of top-1 that pre-trainings are apart at most that differ in their seed alone."""
        known = [self.top1(each, each.domain) for each in self.plan.pretrainings]
        starts = [top1.starts for top1 in known if top1 and top1.starts]
        return max((max(each) - min(each) for each in starts), default=0.0)


def _seedless(experiment: Finetuning) -> Finetuning:
    start = experiment.start and dataclasses.replace(experiment.start, name="", seed=0)
    return dataclasses.replace(experiment, name="", start=start)


def read_results(study: Study) -> Results:
    """The results that there are; experiments with other settings than now are left out."""
    found = Results(study.plan, {}, {}, {}, {})
    for experiment in filter(study.is_done, study.plan.experiments):
        record = read_json(study.result_path(experiment))
        found.settings[experiment] = record["settings"]
        found.machine.update(record["machine"])
        if isinstance(experiment, Finetuning):
            runs = record["runs"]
            top1 = tuple(run["top1"] for run in runs)
            found.tuned[experiment] = Tuned(
                top1,
                mean(run["cpu_seconds"] for run in runs),
                mean(run["curve"]["loss"][-1] for run in runs),
                (mean(top1),) if experiment.start else (),
            )
        else:
            found.pretrained[experiment] = Pretrained(
                tuple(record["curve"]["step"]),
                tuple(record["curve"]["loss"]),
                record["copy_loss"],
                tuple(probe["step"] for probe in record["probes"]),
                tuple(probe["linear"] for probe in record["probes"]),
                record["steps"],
                record["cpu_seconds"],
                record["clips_per_second"],
            )
    return found


# A claim, the results that it says are better, and those that they are better than.
Comparison = tuple[str, Sequence[Tuned | None], Sequence[Tuned | None]]


def verdict(
    claimed_better: Sequence[Tuned | None],
    than: Sequence[Tuned | None],
    *,
    by_seed: float = 0.0,
) -> str:
    """Whether the best of some is better than the best of others, beyond what seeds change.

    None stands for an experiment that is still to be run, and an empty list for none planned.
    by_seed: points of top-1 that the seed of a pre-training was seen to change.

    >>> verdict([Tuned((80.0, 82.0), 1, 1)], [Tuned((70.0, 81.0), 1, 1)])
    'undecided'
    """
    if not claimed_better or not than:
        return NOT_PLANNED
    ours = [each for each in claimed_better if each]
    theirs = [each for each in than if each]
    if not ours or not theirs:
        return "not run yet"
    best, other = (max(some, key=lambda each: each.mean) for some in (ours, theirs))

    def beats(one: Tuned, other: Tuned) -> bool:
        return min(one.top1) > max(*other.top1, other.mean + MARGIN)

    if max(best.mean, other.mean) < CHANCE + MARGIN:
        return "neither learns"
    single = 1 in (len(best.starts), len(other.starts))
    if single and abs(best.mean - other.mean) <= by_seed:
        return "undecided"
    if beats(best, other):
        return "holds"
    return "does not hold" if beats(other, best) else "undecided"


def claims(results: Results) -> dict[str, dict[str, str]]:
    """The paper's claims -> where they were tried -> whether they hold there."""
    found: dict[str, dict[str, str]] = {}

    def judge(place: str, comparisons: Iterator[Comparison]) -> None:
        for claim, better, than in comparisons:
            outcome = verdict(better, than, by_seed=results.by_seed)
            found.setdefault(claim, {})[place] = outcome

    for place, values in PLACES.items():
        judge(place, _of_masks(results, masks_in(results.plan, **values)))
    judge("camera moves", _of_labels(results))
    judge("one object moves", _of_domains(results))
    return found


def _of_masks(results: Results, experiments: list[Pretraining]) -> Iterator[Comparison]:
    at = {(p.mask, p.mask_ratio): results.top1(p, p.domain) for p in experiments}
    ratios, same = {ratio for _, ratio in at}, {PAPER_RATIO}
    high = {ratio for ratio in ratios if ratio >= PAPER_RATIO}
    both = {ratio for ratio in ratios if {("tube", ratio), ("random", ratio)} <= at.keys()}

    def of(mask: str, chosen: set[float]) -> list[Tuned | None]:
        return [top1 for (kind, ratio), top1 in at.items() if kind == mask and ratio in chosen]

    for mask, words in (("tube", "tubes"), ("random", "random masks")):
        claim = f"1. hiding {PAPER_RATIO} or more is best, of {words}"
        yield claim, of(mask, high), of(mask, ratios - high)
    claim = f"1. tubes beat random masks, at {PAPER_RATIO}"
    yield claim, of("tube", same), of("random", same)
    claim = "1. tubes beat random masks, at the best ratio of each"  # of those that both have
    yield claim, of("tube", both), of("random", both)
    claim = f"1. tubes beat frame masks, at {PAPER_RATIO}"
    yield claim, of("tube", same), of("frame", same)


def _of_labels(results: Results) -> Iterator[Comparison]:
    for scratch, measure in (("scratch", "fine-tuning"), (LONGER_SCRATCH, "time")):
        for labels, group in by_labels(results.plan).items():
            if {"pre-trained", scratch} <= group.keys():
                ours, theirs = (results.over_seeds(group[who]) for who in ("pre-trained", scratch))
                claim = f"2. pre-training pays on {labels:,} labels, in as much {measure}"
                yield claim, [ours], [theirs]


def _of_domains(results: Results) -> Iterator[Comparison]:
    at = {(p.domain, p.clips): [results.top1(p, "object")] for p in clip_sets(results.plan)}
    for own, others in ((3000, 3000), (1000, 3000), (1000, 10_000)):
        claim = f"3. {own:,} matching clips beat {others:,} others"
        yield claim, at.get(("object", own), []), at.get(("camera", others), [])


def masks_in(plan: Plan, *also: str, **values: Any) -> list[Pretraining]:
    """The pre-trainings that differ from the base in these values, their mask, and what else."""
    return plan.variants(dataclasses.replace(plan.base, **values), "mask", "mask_ratio", *also)


def longer(plan: Plan) -> list[Pretraining]:
    """The pre-trainings with one mask that differ in their length."""
    found = plan.variants(dataclasses.replace(plan.base, mask="tube", mask_ratio=0.75), "epochs")
    return found if len(found) > 1 else []


def by_labels(plan: Plan) -> dict[int, dict[str, Finetuning]]:
    """Labels -> the fine-tunings on so many: "pre-trained", "scratch" and "scratch, longer"."""
    found: dict[int, dict[str, Finetuning]] = {}
    for each in sorted(plan.finetunings, key=lambda each: (each.labels, each.epochs)):
        if each.domain == plan.base.domain and each.start in (plan.base, None):
            group = found.setdefault(each.labels, {})
            scratch = LONGER_SCRATCH if "scratch" in group else "scratch"
            group["pre-trained" if each.start else scratch] = each
    return found


def clip_sets(plan: Plan) -> list[Pretraining]:
    """The pre-trainings that differ from the base in their clips, by domain and number."""
    return plan.variants(plan.base, "domain", "clips", "epochs")


def seen_and_learned(results: Results) -> list[tuple[Pretraining, float, float]]:
    """Each mask where the camera moves, the share of what it hides that shows elsewhere, its probe.

    Both in percent; the linear probe is that at the end.
    """
    return [
        (each, 100 * share, results.pretrained[each].probes[-1])
        for size in (results.plan.base.image_size, FINER_PX)
        for each in masks_in(results.plan, "seed", image_size=size)
        if each in results.pretrained
        and (share := seen_elsewhere(each, results.plan.scale)) is not None
    ]
