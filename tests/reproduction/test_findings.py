"""Figures and verdicts, by hand and from made-up results."""

import dataclasses

import pytest

from reproduction.findings import (
    LONGER_SCRATCH,
    Pretrained,
    Results,
    Tuned,
    by_labels,
    claims,
    verdict,
)
from reproduction.plan import Finetuning, Plan, masked, tuned

RUN = Pretrained(
    steps=(10, 20, 30, 40),
    losses=(0.99, 0.92, 0.94, 0.90),
    copy_loss=0.85,
    probe_steps=(20, 40),
    probes=(30.0, 50.0),
    num_steps=40,
    cpu_seconds=240.0,
    clips_per_second=10.0,
)


def figures(*top1: float, start: bool = True) -> Tuned:
    return Tuned(top1, 100.0, 1.0, (sum(top1) / len(top1),) if start else ())


def results(top1: dict[Finetuning, Tuned], plan: Plan | None = None) -> Results:
    starts = tuple(dict.fromkeys(each.start for each in top1 if each.start))
    return Results(plan or Plan((*starts, *top1)), top1, {}, {}, {})


def test_the_plateau_is_passed_where_the_loss_stays_below() -> None:
    assert RUN.passes(0.93) == 40
    assert RUN.passes(0.95) == 20
    assert RUN.passes(1.0) == 10
    assert RUN.passes(0.5) is None
    assert RUN.loss == 0.90


def test_probes_at_equal_time_lie_on_lines_between_the_probed_steps() -> None:
    assert RUN.minutes(20) == 2
    assert [RUN.probe_after(minutes) for minutes in (1, 3, 9)] == [30, 40, 50]


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
        ([figures(80, 84)], [figures(70, 79)], "holds"),
        ([figures(70, 79)], [figures(80, 84)], "does not hold"),
        ([figures(80, 84)], [figures(70, 81)], "undecided"),
        ([figures(10, 11)], [figures(7, 8)], "neither learns"),  # of 12 classes
        ([figures(80, 81)], [figures(78, 79)], "undecided"),  # 2 points: the clips' own chance
        ([figures(10, 11), None, figures(80, 84)], [figures(70, 79)], "holds"),  # the best counts
        ([figures(9, 60)], [figures(7, 8)], "undecided"),  # one that learned, one that did not
        ([None], [figures(1, 2)], "not run yet"),
        ([], [figures(1, 2)], "–"),
    ],
)
def test_a_claim_holds_beyond_the_chance_of_seeds_and_clips(
    ours: list[Tuned | None], theirs: list[Tuned | None], expected: str
) -> None:
    assert verdict(ours, theirs) == expected


def test_a_claim_on_one_pre_training_is_held_against_what_its_seed_changes() -> None:
    low, high, scratch = figures(60, 62), figures(70, 72), figures(60, 62, start=False)
    low_twice, high_twice = (
        dataclasses.replace(each, starts=each.starts * 2) for each in (low, high)
    )
    assert verdict([high], [low], by_seed=9) == "holds"
    assert verdict([high], [low], by_seed=11) == "undecided"
    assert verdict([low], [high], by_seed=11) == "undecided"
    assert verdict([high_twice], [low], by_seed=11) == "undecided"
    assert verdict([high_twice], [low_twice], by_seed=11) == "holds"
    assert verdict([high], [scratch], by_seed=11) == "undecided"
    assert verdict([high_twice], [scratch], by_seed=11) == "holds"


def test_pre_trainings_that_differ_in_their_seed_are_taken_together() -> None:
    one, other, longer = (
        masked("random", 0.75, **values) for values in ({}, {"seed": 1}, {"epochs": 60})
    )
    tops = {one: figures(50, 52), other: figures(10, 12), longer: figures(70, 72)}
    found = results({tuned(start): top1 for start, top1 in tops.items()})
    both = found.top1(one, "camera")
    assert both
    assert (both.top1, both.starts) == ((50, 52, 10, 12), (51, 11))
    assert found.by_seed == 40
    assert verdict([both], [figures(9, 11)]) == "undecided"
    assert [found.top1(start, "camera", own=True) for start in tops] == list(tops.values())
    assert found.top1(longer, "camera") == tops[longer]
    assert found.top1(None, "camera") is None
    first = results({tuned(other): tops[other]}, found.plan)
    assert first.top1(one, "camera") is None  # not before its own fine-tuning


def masks_verdicts(top1: dict[tuple[str, float], float]) -> list[str]:
    points = {tuned(masked(*mask)): figures(top, top + 1) for mask, top in top1.items()}  # type: ignore[arg-type]
    found = claims(results(points))
    return [places["camera moves"] for claim, places in found.items() if claim.startswith("1.")]


def test_the_masks_of_the_paper_win_where_they_do() -> None:
    paper = {
        ("tube", 0.75): 68.0, ("tube", 0.9): 80.0, ("tube", 0.95): 60.0,
        ("random", 0.75): 60.0, ("random", 0.9): 70.0, ("frame", 0.9): 50.0,
    }  # fmt: skip
    assert set(masks_verdicts(paper)) == {"holds"}


def test_each_claim_is_judged_by_the_masks_that_it_is_about() -> None:
    low = {("tube", 0.5): 9.0, ("tube", 0.9): 9.0, ("random", 0.5): 66.0, ("random", 0.9): 9.0}
    expected = ["neither learns", "does not hold", "neither learns", "does not hold", "–"]
    assert masks_verdicts(low) == expected
    assert set(masks_verdicts({("tube", 0.75): 30.0, ("random", 0.5): 66.0})) == {"–"}


def test_few_labels_are_compared_in_as_much_fine_tuning_and_in_as_much_time() -> None:
    base = masked("random", 0.5)
    points = {
        tuned(base): figures(66),
        tuned(None): figures(8, start=False),
        tuned(base, labels=1000, epochs=15): figures(78),
        tuned(None, labels=1000, epochs=15): figures(9, start=False),
        tuned(None, labels=1000, epochs=60): figures(90, start=False),
        tuned(base, domain="object"): figures(40),  # another finding
    }
    found = results(points)
    assert {labels: sorted(each) for labels, each in by_labels(found.plan).items()} == {
        300: ["pre-trained", "scratch"],
        1000: ["pre-trained", "scratch", LONGER_SCRATCH],
    }

    def verdicts(some: Results) -> dict[str, str]:
        return {
            claim.removeprefix("2. pre-training pays on "): places["camera moves"]
            for claim, places in claims(some).items()
            if claim.startswith("2.")
        }

    assert verdicts(found) == {
        "300 labels, in as much fine-tuning": "holds",
        "1,000 labels, in as much fine-tuning": "holds",
        "1,000 labels, in as much time": "does not hold",
    }
    assert set(verdicts(results({}, found.plan)).values()) == {"not run yet"}
    assert verdicts(results({}, Plan((base,)))) == {}
