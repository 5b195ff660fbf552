"""What is said of masks, from made-up figures."""

import pytest

from reproduction.claims import (
    LONGER_SCRATCH,
    both_starts,
    by_labels,
    clip_gflop,
    labels_verdict,
    masks_verdicts,
)
from reproduction.plan import FULL, Plan, masked, tuned
from reproduction.results import Outcomes, Tuned


def outcomes(top1: dict[tuple[str, float], float]) -> Outcomes:
    starts = {mask: masked(*mask) for mask in top1}  # type: ignore[arg-type]
    points = {start: tuned(start) for start in starts.values()}
    found = {
        points[start]: Tuned((top1[mask], top1[mask] + 1), 60.0, 40.0, 1.0)
        for mask, start in starts.items()
    }
    return Outcomes(Plan((*starts.values(), *points.values())), found, {}, {}, {})


def said(top1: dict[tuple[str, float], float]) -> dict[str, str]:
    found = outcomes(top1)
    return masks_verdicts(found, [point.start for point in found.tuned if point.start])


def test_what_the_paper_found_holds() -> None:
    paper = said(
        {
            ("tube", 0.75): 68.0, ("tube", 0.9): 80.0, ("tube", 0.95): 60.0,
            ("random", 0.75): 60.0, ("random", 0.9): 70.0, ("frame", 0.9): 50.0,
        }
    )  # fmt: skip
    assert set(paper.values()) == {"holds"}


def test_each_claim_is_judged_by_the_masks_that_it_is_about() -> None:
    low = said(
        {("tube", 0.5): 9.0, ("tube", 0.9): 9.0, ("random", 0.5): 66.0, ("random", 0.9): 9.0}
    )
    assert list(low.values()) == [
        "neither learns",
        "does not hold",
        "neither learns",
        "does not hold",
        "–",
    ]


def test_masks_of_different_ratios_are_not_compared() -> None:
    apart = said({("tube", 0.75): 30.0, ("random", 0.5): 66.0})
    assert set(apart.values()) == {"–"}


def test_few_labels_are_compared_in_as_much_fine_tuning_and_in_as_much_time() -> None:
    base = masked("random", 0.5)
    points = {
        tuned(base): 66.0,
        tuned(None): 8.0,
        tuned(base, labels=1000, epochs=15): 78.0,
        tuned(None, labels=1000, epochs=15): 9.0,
        tuned(None, labels=1000, epochs=60): 90.0,
        tuned(base, domain="object"): 40.0,  # another finding
    }
    found = {
        point: Tuned((top1,), 60.0, 40.0, 1.0, (top1,) if point.start else ())
        for point, top1 in points.items()
    }
    all_there = Outcomes(Plan((base, *points)), found, {}, {}, {})
    assert {labels: sorted(each) for labels, each in by_labels(all_there).items()} == {
        300: ["pre-trained", "scratch"],
        1000: ["pre-trained", "scratch", LONGER_SCRATCH],
    }
    ours, scratch = both_starts(all_there, LONGER_SCRATCH)[1000]
    assert (ours.mean, scratch.mean) == (78, 90)
    assert labels_verdict(all_there) == ("holds", ["300: holds", "1,000: holds"])
    assert labels_verdict(all_there, LONGER_SCRATCH) == ("does not hold", ["1,000: does not hold"])
    none_yet = Outcomes(all_there.plan, {}, {}, {}, {})
    assert labels_verdict(none_yet, LONGER_SCRATCH) == ("not run yet", [])
    assert labels_verdict(Outcomes(Plan((base,)), {}, {}, {}, {}), LONGER_SCRATCH) == ("–", [])


def test_a_step_costs_what_its_visible_tokens_cost() -> None:
    cost = {ratio: clip_gflop(FULL, masked("tube", ratio)) for ratio in (0.5, 0.75, 0.9)}
    assert cost[0.5] > cost[0.75] > cost[0.9]
    assert clip_gflop(FULL, masked("random", 0.75)) == cost[0.75]  # as many are visible
    assert clip_gflop(FULL, masked("tube", 0.75, decoder_depth=1)) < cost[0.75]
    # A second mask leaves 144 tokens to predict, in place of the 256 that tubes of 0.9 hide.
    assert clip_gflop(FULL, masked("tube", 0.9, decoder_mask_ratio=0.5)) < cost[0.9]
    # By hand, forward: 72 tokens of 3 x 2 x 8 x 8 values -> 96, 4 layers of 96; 96 -> 64, then all
    # 288 tokens through 2 layers of 64, and the 216 hidden ones back to 384 values.
    config = FULL.scale.config(48)
    encoder, decoder = (
        2 * layers * (tokens * (4 * width**2 + 2 * width * inner) + 2 * tokens**2 * width)
        for layers, tokens, width, inner in (
            (config.num_hidden_layers, 72, config.hidden_size, config.intermediate_size),
            (
                config.decoder_num_hidden_layers,
                288,
                config.decoder_hidden_size,
                config.decoder_intermediate_size,
            ),
        )
    )
    rest = 2 * (72 * 384 * 96 + 72 * 96 * 64 + 216 * 64 * 384)
    assert cost[0.75] == pytest.approx(3 * (encoder + decoder + rest) / 1e9, rel=0.05)
