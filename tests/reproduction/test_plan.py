"""The plan of the findings: what it holds, and that each experiment of it could be run."""

from pathlib import Path

import pytest

from reproduction.findings import arms, clip_sets, names_of_starts
from reproduction.motion import MotionSettings
from reproduction.plan import (
    FULL,
    LONG,
    QUICK,
    RANDOM,
    TUBE,
    Finetuning,
    Plan,
    Pretraining,
    Scale,
    masked,
    tuned,
    twice,
)
from reproduction.run import seconds_of
from videomae.masking import MASKS
from videomae.settings import ActionsSettings

PLANS = pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])


@PLANS
def test_names_are_unique_and_starts_come_first(plan: Plan) -> None:
    seen: set[str] = set()
    for experiment in plan.experiments:
        assert experiment.name not in seen
        assert "/" not in experiment.name
        if isinstance(experiment, Finetuning) and experiment.start:
            assert experiment.start.name in seen
            assert experiment.start in plan.experiments
        seen.add(experiment.name)


@PLANS
def test_every_experiment_has_settings_and_masks_that_exist(plan: Plan, tmp_path: Path) -> None:
    for experiment in plan.experiments:
        own, test = experiment.sets(plan.scale, tmp_path)
        if isinstance(experiment, Pretraining):
            pretrain = experiment.settings(plan.scale, tmp_path)
            assert pretrain.data == own.output
            grid = plan.scale.config(experiment.preset).grid
            assert MASKS[experiment.mask](grid, experiment.mask_ratio).any()
        else:
            finetune = experiment.settings(plan.scale, tmp_path, init=None)
            assert len(set(experiment.seeds)) >= 2
            assert (finetune.data, finetune.eval_data) == (own.output, test.output)


def test_what_is_compared_takes_as_many_steps() -> None:
    for experiment in set(FULL.pretrainings) - {LONG}:
        settings = experiment.settings(FULL.scale, Path())
        steps = experiment.clips // settings.batch_size * experiment.epochs
        assert abs(steps - 3120) < 125, experiment.name
        assert settings.warmup_epochs is not None
        assert settings.warmup_epochs * experiment.clips == pytest.approx(10_000), experiment.name


def test_the_plan_holds_what_the_findings_need() -> None:
    masks = arms(FULL)
    assert set(masks) == {
        "tube 0.5", "tube 0.75", "tube 0.9", "random 0.75", "random 0.9", "frame 0.75"
    }  # fmt: skip
    assert {name for name, group in masks.items() if len(group) == 2} == {"tube 0.9", "random 0.75"}
    names = names_of_starts(FULL)
    tuned_on = {(names.get(p.start), p.labels) for p in FULL.finetunings}
    assert tuned_on >= {(name, 300) for name in masks}
    for name in ("tube 0.9", "random 0.75", "scratch"):
        assert tuned_on >= {(name, labels) for labels in (100, 300, 1000)}
    sets = {(start.kind, start.clips): start for start in clip_sets(FULL)}
    assert set(sets) == {(kind, n) for kind in ("actions", "motion") for n in (1000, 3000, 10_000)}
    for start in sets.values():
        assert any(p.start == start and p.kind == "actions" for p in FULL.finetunings)


def test_the_plan_takes_a_night_and_what_decides_the_first_hours() -> None:
    hours = [sum(map(seconds_of, step)) / 3600 for step in FULL.steps.values()]
    assert hours[0] < 2.5
    assert sum(hours) < 14
    assert sum(map(seconds_of, QUICK.experiments)) / 2 < 25 * 60  # on two cores


def test_names_say_what_is_not_as_usual() -> None:
    assert masked("tube", 0.9, kind="motion", epochs=60).name == "tube-0.90-motion-epochs60"
    assert tuned(None, 100).name == "scratch-labels100"
    assert tuned(RANDOM, kind="motion").name == "random-0.75-labels300-motion"
    assert (twice(TUBE).name, twice(TUBE).seed) == ("tube-0.90-seed1", 1)


def test_an_experiment_names_the_clips_that_it_reads() -> None:
    scale, start = Scale(labelled=10, held_out=5), masked("tube", 0.9, clips=20)
    own, labelled = start.sets(scale, Path("runs"))
    assert own == ActionsSettings(Path("runs/data/actions-64px-1-20"), 20, 1, test_clips=0)
    assert labelled == ActionsSettings(
        Path("runs/data/actions-64px-labelled-10"), 10, 2, test_clips=5
    )
    assert tuned(start, 10, epochs=1).sets(scale, Path("runs")) == [labelled, labelled]
    few, test = tuned(start, 6, epochs=1, kind="motion").sets(scale, Path("runs"))
    assert (few, test) == (
        MotionSettings(Path("runs/data/motion-64px-2-6"), 6, 2),
        MotionSettings(Path("runs/data/motion-64px-3-5"), 5, 3),
    )
