"""The results of a plan, read back, and how they are compared."""

import dataclasses
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from reproduction.plan import Experiment, Finetuning, Plan, Pretraining
from reproduction.run import Study, seconds_of
from videomae.hub import read_json

NOT_RUN = "not run yet"
# What is measured of frozen features, and how it is written.
PROBES = {"linear": "{:.1f}", "hand": "{:.2f}", "limbs": "{:.2f}"}


@dataclass(frozen=True)
class Tuned:
    """Fine-tunings that differ in their seed: top-1 in percent, CPU seconds of one."""

    top1: tuple[float, ...]
    cpu_seconds: float

    def __str__(self) -> str:
        """The mean, and half the distance from the worst to the best seed.

        >>> str(Tuned((70.0, 74.0, 72.0), 100.0))
        '72.0 ± 2.0'
        """
        return f"{mean(self.top1):.1f} ± {(max(self.top1) - min(self.top1)) / 2:.1f}"


@dataclass(frozen=True)
class Pretrained:
    """One pre-training: loss against clips seen, and probes at some of them.

    copy_loss: the loss of a mere copy (see `baselines`). probes: by the names of `PROBES`, one of
    random weights first.
    """

    clips: tuple[int, ...]
    losses: tuple[float, ...]
    copy_loss: float
    probe_clips: tuple[int, ...]
    probes: dict[str, tuple[float, ...]]
    clips_seen: int
    cpu_seconds: float

    @property
    def loss(self) -> float:
        """At the end: the mean over the last tenth."""
        return mean(self.losses[-max(len(self.losses) // 10, 1) :])

    def after(self, probe: str, clips: float) -> float:
        """A probe after so many clips, on straight lines between those that were made."""
        return float(np.interp(clips, self.probe_clips, self.probes[probe]))


@dataclass(frozen=True)
class Results:
    """The results of a plan, as far as it has been run, by the names of experiments."""

    plan: Plan
    tuned: dict[str, Tuned]
    pretrained: dict[str, Pretrained]
    machine: dict[str, Any]

    def seconds(self, experiment: Experiment) -> float | None:
        """CPU seconds that an experiment took, None before it has."""
        if run := self.pretrained.get(experiment.name):
            return run.cpu_seconds
        tuned = self.tuned.get(experiment.name)
        return tuned.cpu_seconds * len(tuned.top1) if tuned else None

    def seconds_left(self, experiment: Experiment) -> float:
        return seconds_of(experiment) if self.seconds(experiment) is None else 0.0

    def seeds(self, group: list[Pretraining]) -> list[Pretrained]:
        """The results of pre-trainings, of those that have been run."""
        return [self.pretrained[each.name] for each in group if each.name in self.pretrained]

    def top1(self, experiment: Finetuning | None) -> Tuned | None:
        """A fine-tuning, with those whose pre-training differs in its seed alone."""
        if experiment is None or experiment.name not in self.tuned:
            return None
        alike = [
            self.tuned[each.name]
            for each in self.plan.finetunings
            if _seedless(each) == _seedless(experiment) and each.name in self.tuned
        ]
        values = tuple(value for each in alike for value in each.top1)
        return Tuned(values, min(each.cpu_seconds for each in alike))

    def find(self, start: Pretraining | None, **values: Any) -> Finetuning | None:
        """The first fine-tuning from a start of any seed, or from random weights, so set."""
        wanted = {"kind": "actions", **values}
        for each in self.plan.finetunings:
            alike = _seedless_start(each.start) == _seedless_start(start)
            if alike and wanted.items() <= vars(each).items():
                return each
        return None

    def figure(self, words: str) -> str:
        """A figure for the text: a name of a figure and one of an experiment.

        `top1 tube-0.90-labels300`, or linear, hand, limbs (at the end), `untrained-linear` (before
        any training), each with all of its seeds; loss, copy, seen (clips) of a pre-training. "not
        run yet" where there is no result; an experiment that is not in the plan is an error.
        """
        key, name = words.split()
        experiment = next(each for each in self.plan.experiments if each.name == name)
        if isinstance(experiment, Finetuning):
            assert key == "top1", words
            top1 = self.top1(experiment)
            return f"{top1} %" if top1 else f"({NOT_RUN})"
        run = self.pretrained.get(name)
        if run is None:
            return f"({NOT_RUN})"
        if key == "seen":
            return f"{run.clips[-1]:,}"
        probe = key.removeprefix("untrained-")
        if probe in PROBES:
            alike = [
                each
                for each in self.plan.pretrainings
                if _seedless_start(each) == _seedless_start(experiment)
            ]
            values = [each.probes[probe][-1 if key == probe else 0] for each in self.seeds(alike)]
            return ", ".join(map(PROBES[probe].format, values)) + " %" * (probe == "linear")
        return f"{ {'loss': run.loss, 'copy': run.copy_loss}[key]:.3f}"


def _seedless(experiment: Finetuning) -> Finetuning:
    return dataclasses.replace(experiment, name="", start=_seedless_start(experiment.start))


def _seedless_start(start: Pretraining | None) -> Pretraining | None:
    return start and dataclasses.replace(start, name="", seed=0)


def read_results(study: Study) -> Results:
    """The results that there are; experiments with other settings than now are left out."""
    found = Results(study.plan, {}, {}, {})
    for experiment in filter(study.is_done, study.plan.experiments):
        record = read_json(study.result_path(experiment))
        found.machine.update(record["machine"])
        if isinstance(experiment, Finetuning):
            runs = record["runs"]
            found.tuned[experiment.name] = Tuned(
                tuple(run["top1"] for run in runs), mean(run["cpu_seconds"] for run in runs)
            )
            continue
        steps, probes = record["curve"]["step"], record["probes"]
        found.pretrained[experiment.name] = Pretrained(
            tuple(step * experiment.clips_seen // record["steps"] for step in steps),
            tuple(record["curve"]["loss"]),
            record["copy_loss"],
            tuple(each["clips"] for each in probes),
            {name: tuple(each[name] for each in probes) for name in PROBES},
            experiment.clips_seen,
            record["cpu_seconds"],
        )
    return found


def arms(plan: Plan) -> dict[str, list[Pretraining]]:
    """The masks that finding 1 compares, each with the pre-trainings that differ in their seed."""
    first, found = plan.pretrainings[0], dict[str, list[Pretraining]]()
    free = ("name", "mask", "mask_ratio", "seed")
    same = {key: value for key, value in vars(first).items() if key not in free}
    for each in plan.pretrainings:
        if same.items() <= vars(each).items():
            found.setdefault(called(each), []).append(each)
    return found


def names_of_starts(plan: Plan) -> dict[Pretraining | None, str]:
    """What fine-tunings of finding 1 and 2 start from: a mask, whichever the seed, or nothing."""
    return {each: name for name, group in arms(plan).items() for each in group} | {None: "scratch"}


def called(experiment: Pretraining) -> str:
    """A mask and its ratio in words, `tube 0.9`."""
    return f"{experiment.mask} {experiment.mask_ratio:g}"


def clip_sets(plan: Plan) -> list[Pretraining]:
    """The pre-trainings of finding 3, which differ in what clips they see, and in how many."""
    first = plan.pretrainings[0]
    free = ("name", "kind", "clips", "epochs")
    same = {key: value for key, value in vars(first).items() if key not in free}
    found = [each for each in plan.pretrainings if same.items() <= vars(each).items()]
    return sorted(found, key=lambda each: (each.kind, each.clips))
