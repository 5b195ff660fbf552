"""What the result files of a plan say: figures of each point, and which of them differ."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from reproduction.plan import Finetuning, Plan, Point, Pretraining
from reproduction.run import is_done
from videomae.hub import read_json
from videomae.settings import Domain


@dataclass(frozen=True)
class Tuned:
    """Fine-tunings that differ in their seed: top-1 in percent, CPU seconds of one.

    starts: the mean top-1 from each pre-training, of those that differ in their seed too; none from
    scratch.
    """

    top1: tuple[float, ...]
    cpu_seconds: float
    clips_per_second: float
    loss: float
    starts: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        return mean(self.top1)

    @property
    def spread(self) -> float:
        """The best seed minus the worst."""
        return max(self.top1) - min(self.top1)

    def beats(self, other: "Tuned", *, by: float) -> bool:
        """Whether the worst seed of this is above the other's best, and its mean by so much.

        >>> Tuned((70.0, 74.0), 1, 1, 1).beats(Tuned((64.0, 69.0), 1, 1, 1), by=3)
        True
        """
        return min(self.top1) > max(max(other.top1), other.mean + by)

    def __str__(self) -> str:
        """
        >>> str(Tuned((70.0, 74.0, 72.0), 100.0, 40.0, 1.0))
        '72.0 ± 2.0'
        """
        return f"{self.mean:.1f} ± {self.spread / 2:.1f}"


@dataclass(frozen=True)
class Pretrained:
    """One pre-training: its loss over the steps, probes in percent at some of them, its cost.

    copy_loss: what a mere copy would reach, None where there is none (see `copying`).
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    copy_loss: float | None
    probe_steps: tuple[int, ...]
    probes: tuple[float, ...]
    neighbours: float
    num_steps: int
    epochs: int
    cpu_seconds: float
    clips_per_second: float

    @property
    def loss(self) -> float:
        """At the end: the mean over the last tenth."""
        return mean(self.losses[-max(len(self.losses) // 10, 1) :])

    @property
    def epoch_seconds(self) -> float:
        """CPU seconds of an epoch."""
        return self.cpu_seconds / self.epochs

    def passes(self, loss: float) -> int | None:
        """The first step from which on the loss stays below a value; None where it never does."""
        above = [step for step, value in zip(self.steps, self.losses, strict=True) if value >= loss]
        after = [step for step in self.steps if not above or step > above[-1]]
        return after[0] if after else None

    def minutes(self, step: int) -> float:
        """CPU minutes up to a step."""
        return self.cpu_seconds * step / self.num_steps / 60

    @property
    def quarters(self) -> list[float]:
        """The probe after each quarter of the steps, or as near to it as there is one."""
        probes = list(zip(self.probe_steps, self.probes, strict=True))
        marks = [self.num_steps * quarter / 4 for quarter in (1, 2, 3, 4)]
        return [min(probes, key=lambda it: abs(it[0] - mark))[1] for mark in marks]

    def probe_after(self, minutes: float) -> float:
        """The probe after so many CPU minutes, on straight lines between the milestones.

        What stands before the first milestone is taken to be as good as that one.
        """
        times = [self.minutes(step) for step in self.probe_steps]
        for index, time in enumerate(times):
            if time >= minutes:
                if index == 0:
                    return self.probes[0]
                before, part = times[index - 1], minutes - times[index - 1]
                gain = self.probes[index] - self.probes[index - 1]
                return self.probes[index - 1] + gain * part / (time - before)
        return self.probes[-1]


@dataclass(frozen=True)
class Outcomes:
    """All that is there of a plan."""

    plan: Plan
    tuned: dict[Finetuning, Tuned]
    pretrained: dict[Pretraining, Pretrained]
    settings: dict[Point, str]
    machine: dict[str, Any]

    @property
    def num_done(self) -> int:
        return len(self.tuned) + len(self.pretrained)

    @property
    def cpu_hours(self) -> float:
        seconds = sum(each.cpu_seconds for each in self.pretrained.values())
        seconds += sum(each.cpu_seconds * len(each.top1) for each in self.tuned.values())
        return seconds / 3600

    def top1(self, start: Pretraining | None, domain: Domain) -> Tuned | None:
        """The fine-tuning from a start in a domain, over all seeds of the pre-training.

        Of several the one that the plan has first.
        """
        point = self._tuned_from(start, domain)
        return self.over_seeds(point) if point else None

    def own_top1(self, start: Pretraining) -> Tuned | None:
        """The fine-tuning at home from this pre-training and no other seed of it."""
        point = self._tuned_from(start, start.domain)
        return self.tuned.get(point) if point else None

    def _tuned_from(self, start: Pretraining | None, domain: Domain) -> Finetuning | None:
        for point in self.plan.points:
            if isinstance(point, Finetuning) and (point.start, point.domain) == (start, domain):
                return point
        return None

    def over_seeds(self, point: Finetuning) -> Tuned | None:
        """A fine-tuning, with those whose pre-training differs in its seed alone."""
        if point not in self.tuned:
            return None
        alike = [
            tuned for other, tuned in self.tuned.items() if _seedless(other) == _seedless(point)
        ]
        return Tuned(
            tuple(value for each in alike for value in each.top1),
            mean(each.cpu_seconds for each in alike),
            mean(each.clips_per_second for each in alike),
            mean(each.loss for each in alike),
            tuple(start for each in alike for start in each.starts),
        )


def _seedless(point: Finetuning) -> Finetuning:
    start = dataclasses.replace(point.start, name="", seed=0) if point.start else None
    return dataclasses.replace(point, name="", start=start)


def read_outcomes(plan: Plan, results_dir: Path) -> Outcomes:
    """What there is of a plan's results; points with other settings than now are left out."""
    found = Outcomes(plan, {}, {}, {}, {})
    for point in plan.points:
        if not is_done(plan, point, results_dir):
            continue
        record = read_json(results_dir / f"{point.name}.json")
        found.settings[point] = record["settings"]
        found.machine.update(record["machine"])
        if isinstance(point, Finetuning):
            runs = record["runs"]
            top1 = tuple(run["top1"] for run in runs)
            found.tuned[point] = Tuned(
                top1,
                mean(run["cpu_seconds"] for run in runs),
                mean(run["clips_per_second"] for run in runs),
                mean(run["curve"]["loss"][-1] for run in runs),
                (mean(top1),) if point.start else (),
            )
        else:
            probes = record["probes"]
            found.pretrained[point] = Pretrained(
                tuple(record["curve"]["step"]),
                tuple(record["curve"]["loss"]),
                record["copy_loss"],
                tuple(probe["step"] for probe in probes),
                tuple(probe["linear"] for probe in probes),
                probes[-1]["knn"],
                record["steps"],
                point.epochs,
                record["cpu_seconds"],
                record["clips_per_second"],
            )
    return found


def variants(plan: Plan, like: Pretraining, *names: str) -> list[Pretraining]:
    """The pre-trainings of a plan that differ from one in no more than these settings."""
    return [
        point
        for point in plan.points
        if isinstance(point, Pretraining)
        and dataclasses.replace(
            point, name=like.name, **{name: getattr(like, name) for name in names}
        )
        == like
    ]
