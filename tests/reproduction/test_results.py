"""Figures of the findings, by hand."""

import dataclasses

import pytest

from reproduction.claims import by_seed, verdict, with_seeds
from reproduction.plan import FULL, Plan, masked
from reproduction.plan import tuned as arms_tuned
from reproduction.results import Outcomes, Pretrained, Tuned, variants

RUN = Pretrained(
    steps=(10, 20, 30, 40),
    losses=(0.99, 0.92, 0.94, 0.90),
    copy_loss=0.85,
    probe_steps=(20, 40),
    probes=(30.0, 50.0),
    neighbours=20.0,
    num_steps=40,
    epochs=4,
    cpu_seconds=240.0,
    clips_per_second=10.0,
)


def tuned(*top1: float) -> Tuned:
    return Tuned(top1, 100.0, 40.0, 1.0, (sum(top1) / len(top1),))


def test_the_plateau_is_passed_where_the_loss_stays_below() -> None:
    assert RUN.passes(0.93) == 40
    assert RUN.passes(0.95) == 20
    assert RUN.passes(1.0) == 10
    assert RUN.passes(0.5) is None
    assert RUN.loss == 0.90


def test_probes_at_equal_time_lie_on_lines_between_the_milestones() -> None:
    assert RUN.minutes(20) == 2
    assert RUN.probe_after(1) == 30
    assert RUN.probe_after(3) == 40
    assert RUN.probe_after(9) == 50
    assert RUN.epoch_seconds == 60


def test_probes_of_the_quarters_are_those_nearest_to_them() -> None:
    run = dataclasses.replace(
        RUN,
        num_steps=150,
        probe_steps=(37, 74, 111, 148, 150),
        probes=(10.0, 20.0, 30.0, 40.0, 41.0),
    )
    assert run.quarters == [10, 20, 30, 41]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([tuned(80, 84)], [tuned(70, 79)], "holds"),
        ([tuned(70, 79)], [tuned(80, 84)], "does not hold"),
        ([tuned(80, 84)], [tuned(70, 81)], "undecided"),
        ([tuned(10, 11)], [tuned(7, 8)], "neither learns"),  # of 12 classes
        ([tuned(80, 81)], [tuned(78, 79)], "undecided"),  # 2 points: the clips' own chance
        ([tuned(10, 11), None, tuned(80, 84)], [tuned(70, 79)], "holds"),  # the best counts
        ([tuned(9, 60)], [tuned(7, 8)], "undecided"),  # one that learned, one that did not
        ([None], [tuned(1, 2)], "not run yet"),
        ([], [tuned(1, 2)], "–"),
    ],
)
def test_a_claim_holds_beyond_what_seeds_and_clips_do(
    ours: list[Tuned | None], theirs: list[Tuned | None], expected: str
) -> None:
    assert verdict(ours, theirs) == expected


def test_a_claim_on_one_pre_training_is_held_against_what_its_seed_does() -> None:
    low, high = tuned(60, 62), tuned(70, 72)
    twice = [dataclasses.replace(each, starts=each.starts * 2) for each in (low, high)]
    scratch = dataclasses.replace(low, starts=())
    assert verdict([high], [low], by_seed=9) == "holds"
    assert verdict([high], [low], by_seed=11) == "undecided"
    assert verdict([low], [high], by_seed=11) == "undecided"
    assert verdict([twice[1]], [low], by_seed=11) == "undecided"
    assert verdict([twice[1]], [twice[0]], by_seed=11) == "holds"
    assert verdict([high], [scratch], by_seed=11) == "undecided"
    assert verdict([twice[1]], [scratch], by_seed=11) == "holds"


def test_pre_trainings_that_differ_in_their_seed_are_taken_together() -> None:
    starts = [masked("random", 0.75, **values) for values in ({}, {"seed": 1}, {"epochs": 60})]
    points = [arms_tuned(start) for start in starts]
    tops = (tuned(50, 52), tuned(10, 12), tuned(70, 72))
    plan = Plan((*starts, *points))
    outcomes = Outcomes(plan, dict(zip(points, tops, strict=True)), {}, {}, {})
    both = outcomes.top1(starts[0], "camera")
    assert both is not None
    assert both.top1 == (50, 52, 10, 12)
    assert both.starts == (51, 11)
    assert by_seed(outcomes) == 40
    assert verdict([both], [tuned(9, 11)]) == "undecided"
    assert outcomes.own_top1(starts[0]) == tops[0]
    assert outcomes.own_top1(starts[1]) == tops[1]
    assert outcomes.top1(starts[2], "camera") == tops[2]
    assert with_seeds(plan, [starts[0], starts[2]]) == starts
    assert outcomes.top1(None, "camera") is None
    first = Outcomes(plan, {points[1]: tops[1]}, {}, {}, {})
    assert first.top1(starts[0], "camera") is None  # not before its own fine-tuning


def test_variants_differ_in_the_named_settings_alone() -> None:
    base = masked("tube", 0.9)
    other = masked("random", 0.5)
    longer = masked("tube", 0.9, epochs=60)
    plan = Plan((base, other, longer))
    assert variants(plan, base, "mask", "mask_ratio") == [base, other]
    assert variants(plan, base, "epochs") == [base, longer]
    assert variants(plan, dataclasses.replace(base, domain="object"), "mask") == []
    assert len(variants(FULL, base, "mask", "mask_ratio")) == 11
