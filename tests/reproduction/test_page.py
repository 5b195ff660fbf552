"""The page of the findings says what the results say: its tables, and each number in its words."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from reproduction.baselines import clip_cost, seen_elsewhere
from reproduction.findings import (
    CHANCE,
    FINER_PX,
    LONGER_SCRATCH,
    MARGIN,
    PAPER_RATIO,
    Results,
    Tuned,
    by_labels,
    claims,
    longer,
    masks_in,
    read_results,
    seen_and_learned,
    verdict,
)
from reproduction.plan import BASE, FULL, KINDS, MORE_CLIPS, OBJECT, Pretraining, masked
from reproduction.plots import called
from reproduction.report import IMAGES, PLATEAU, ablations, fill
from reproduction.run import Study
from videomae.rendering.motion import MOTIONS
from videomae.settings import Domain

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproduction.md"
STUDY = Study(FULL, ROOT / "runs" / "findings", ROOT / "reproduction" / "results")

# A number in digits or as a word; "one" is none.
NUMBER = re.compile(
    r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand|tenths?"
    r"|thirds?|quarters?|half|twice)\b",
    re.IGNORECASE,
)
# Phrases whose numbers are no results: of the paper, of the log, of the way it was run.
FACTS = [
    "The paper's three findings, tried with small models on two CPU cores",
    "two experiments at a time with one thread each",
    "processors of two generations",
    "half the distance from the worst to the best",
    "The paper finds a decoder of 4 layers best among 1 to 8",
    "From random masks of 0.75, one pre-training each, [it came out the other way]: 1,000 object "
    "clips 35 %, 10,000 camera clips 28 %",
    "Tubes of 0.9 [stayed on the plateau of the loss] in trials, and with random masks of 0.75",
    "differ from these two recipes",
]


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(STUDY)


def words_of(text: str) -> str:
    """The text without tables, code, pictures, targets of links, and the numbers of headings."""
    text = re.sub(r"<!-- table.*?<!-- end of table -->|^```.*?^```$", "", text, flags=re.S | re.M)
    text = re.sub(r"!\[[^]]*\]\([^)]*\)|(?<=\])\([^)]*\)", "", text)
    text = re.sub(r"^## Finding \d|^\*\*\d\.", "", text, flags=re.M)
    return " ".join(text.split())


def hold(text: str, phrases: Iterable[str]) -> None:
    """Assert that a text says all of these, and that no number is left without them."""
    words = words_of(text)
    for phrase in phrases:
        assert phrase in words, f"the results say {phrase!r}"
        words = words.replace(phrase, "")
    left = [words[max(it.start() - 40, 0) : it.end() + 40] for it in NUMBER.finditer(words)]
    assert not left, "nothing holds these numbers"


def listed(values: Iterable[object]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}"


def top1(results: Results, start: Pretraining | None, domain: Domain | None = None) -> Tuned:
    found = results.top1(start, domain or (start or BASE).domain)
    assert found
    return found


def best_of(results: Results, masks: list[Pretraining]) -> Pretraining:
    return max(masks, key=lambda each: top1(results, each).mean)


def gflop(experiment: Pretraining) -> float:
    return clip_cost(experiment, FULL.scale)[1]


def quoted_settings(results: Results) -> list[str]:
    scale, machine, tuned = FULL.scale, results.machine, FULL.finetunings[0]
    config = scale.config(BASE.image_size)
    grid, size = config.grid, config.image_size
    return [
        f"{BASE.image_size} x {size} px, {scale.video_frames} frames, {len(MOTIONS)} motions.",
        f"The test clips are {scale.held_out} of other scenes",
        f"preset `{scale.preset}`, {config.num_hidden_layers} layers of {config.hidden_size}",
        f"decoder of {config.decoder_num_hidden_layers} layers of {config.decoder_hidden_size}",
        f"{scale.num_frames} frames, every second one, patch {config.patch_size}",
        f"{grid.frames} slices of {grid.height} x {grid.width} cells, {grid.num_tokens} tokens",
        f"{called(BASE)}, {BASE.clips:,} clips, {BASE.epochs} epochs, batches of "
        f"{scale.batch_size}",
        f"learns from {scale.probe_clips:,} labelled clips",
        f"unless said otherwise: {tuned.labels} labels",
        f"and from a pre-trained encoder; {len(tuned.seeds)} seeds",
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, "
        f"{scale.settings()['dtype']}",
        f"has seen {BASE.clips:,} clips without labels",
        f"frame masks of 0.9 leave one slice of {grid.frames} and hide {1 - 1 / grid.frames:g}",
        f"the loss stays below {PLATEAU:g}",
        "after each quarter of the steps",
        f"and above its mean by more than {MARGIN:g} points",
        f"Chance is {CHANCE:.1f} %",
    ]


def quoted_in_short(results: Results) -> list[str]:
    masks, long = masks_in(FULL), longer(FULL)[-1]
    tubes = [each for each in masks if each.mask == "tube"]
    best, tube = best_of(results, masks), best_of(results, tubes)
    costs = [
        (f"{1000 * run.cpu_seconds / run.num_steps:.0f}", f"{gflop(each):.2f}")
        for each in (tubes[0], tubes[-1])
        if (run := results.pretrained[each])
    ]
    same = ", ".join(f"{mask} {top1(results, masked(mask, PAPER_RATIO))} %" for mask in KINDS)
    one, other, objects = (
        " and ".join(f"{mean:.0f} %" for mean in top1(results, each).starts)
        for each in (BASE, masked("random", 0.75), OBJECT)
    )
    fewer_objects = masked("random", 0.5, domain="object", clips=1000, epochs=60)
    ours, scratch, more = (
        {n: results.over_seeds(each[who]) for n, each in by_labels(FULL).items() if who in each}
        for who in ("pre-trained", "scratch", LONGER_SCRATCH)
    )
    return [
        f"A figure such as {top1(results, best)} is the mean",
        f"to {one} after fine-tuning (random 0.5), to {other} (random 0.75), and to {objects} "
        "(random 0.5, clips of an object)",
        f"decided only by more than {results.by_seed:.0f} points",
        f"Of {len(masks)} masks, {called(best)} comes out best, with {top1(results, best)} %",
        f"the best tubes, of {tube.mask_ratio:g}, reach {top1(results, tube)} %",
        f"At {PAPER_RATIO:g}: {same}.",
        f"A step of tubes takes {costs[0][0]} CPU ms at {tubes[0].mask_ratio:g} ({costs[0][1]} "
        f"GFLOP a clip) and {costs[1][0]} at {tubes[-1].mask_ratio:g} ({costs[1][1]})",
        f"Given {long.epochs} epochs in place of {BASE.epochs}, {called(long)} reaches "
        f"{top1(results, long)} %",
        f"With {listed(f'{n:,}' for n in ours)} labels a pre-trained encoder reaches "
        f"{listed(f'{each.mean:.0f}' for each in ours.values() if each)} %",
        f"settings, {listed(f'{each.mean:.0f}' for each in scratch.values() if each)} %",
        f"reach {more[100]} % with 100 labels, {more[300]} % with 300 and {more[1000]} % with "
        "1,000",
        f"{top1(results, None, 'object')} % from scratch",
        f"after 3,000 clips of a moving camera {top1(results, BASE, 'object')} %, after 10,000 of "
        f"them {top1(results, MORE_CLIPS, 'object')} %",
        f"after 1,000 clips of a moving object {top1(results, fewer_objects)} %, after 3,000 of "
        f"them {top1(results, OBJECT)} %",
    ]


def quoted_of_masks(results: Results) -> list[str]:
    shares: dict[bool, list[float]] = {True: [], False: []}
    for _, share, probe in seen_and_learned(results):
        shares[probe > CHANCE + MARGIN].append(share)
    tube, random = masks_in(FULL, image_size=FINER_PX)
    assert top1(results, tube).mean < CHANCE + MARGIN
    assert verdict([results.top1(random, "camera")], [results.top1(BASE, "camera")]) == "undecided"
    # The paper's grid: 224 px in patches of 16 px are as many cells as 112 px in patches of 8 px.
    sizes = [BASE.image_size, FINER_PX, 112]
    grids = [FULL.scale.config(size).grid for size in sizes]
    at_half, at_most = (
        listed(
            f"{100 * (seen_elsewhere(masked('tube', ratio, image_size=size), FULL.scale) or 0):.0f}"
            for size in sizes
        )
        for ratio in (0.5, PAPER_RATIO)
    )
    still, (usual, *_, long) = masks_in(FULL, domain="object"), longer(FULL)
    assert top1(results, still[0]).mean < CHANCE + MARGIN < top1(results, long).mean
    return [
        f"let at least {min(shares[True]):.0f} % of it show elsewhere, the others at most "
        f"{max(shares[False]):.0f} %",
        f"Still {called(best_of(results, still))} comes out best",
        f"the plateau alone decides, {called(usual)} for longer",
        f"with {listed(f'{grid.height} x {grid.width}' for grid in grids)} cells, the last as in "
        f"the paper, it is {at_half} % of what tube 0.5 hides, and {at_most} % at {PAPER_RATIO:g}",
        "With 8 x 8 cells tube 0.5 still learns nothing, and random 0.5 as much as with 6 x 6",
    ]


def quoted_of_ablations(results: Results) -> list[str]:
    probes = {each: results.pretrained[each].probes[-1] for each in ablations(FULL)}
    usual = [probes[each] for each in FULL.variants(BASE, "seed")]
    above, below = (
        masked("random", 0.5, decoder_mask_ratio=0.5),
        {
            masked("random", 0.5, norm_pix_loss=False),
            masked("random", 0.5, frame_stride=1),
            masked("random", 0.5, num_repeats=2, epochs=10),
            masked("random", 0.5, decoder_mask_ratio=0.75),
        },
    )
    assert {each for each, probe in probes.items() if probe > max(usual)} == {above}
    assert {each for each, probe in probes.items() if probe < min(usual)} == below
    tubes, tubes_dual = (
        gflop(masked("tube", PAPER_RATIO, decoder_mask_ratio=ratio)) for ratio in (None, 0.5)
    )
    return [
        f"At about {results.pretrained[BASE].num_steps:,} steps each",
        f"the usual settings end at probes of {min(usual):.1f} to {max(usual):.1f} %",
        "Above it: a decoder mask of 0.5. Below it: raw pixels as targets (`norm_pix_loss False`), "
        "`frame_stride 1`, 2 crops of each clip (`num_repeats`) and a decoder mask of 0.75.",
        f"at a mask ratio of 0.5 a second mask of 0.5 saves nothing, {gflop(above):.2f} GFLOP a "
        f"clip in place of {gflop(BASE):.2f}",
        f"with tubes of {PAPER_RATIO:g}, for which it was made, it would save "
        f"{100 * (1 - tubes_dual / tubes):.0f} % of a step",
        "With 2 crops of each clip a step reads half as many clips; with `frame_stride 1` a model "
        "sees half of the motion",
    ]


def quoted_verdicts(results: Results) -> list[str]:
    found = {claim: set(verdicts.values()) - {"–"} for claim, verdicts in claims(results).items()}
    for claim, verdicts in found.items():
        if claim.startswith("1."):
            assert not verdicts & {"holds", "not run yet"}, claim
        elif claim.startswith("2."):
            holds = claim.endswith("fine-tuning") or "100 labels" in claim
            assert verdicts == {"holds" if holds else "undecided"}, claim
        else:
            assert verdicts == {"undecided"}, claim
    return ["In as much time it pays with 100 labels; with 300 and 1,000 it is undecided"]


def test_the_tables_of_the_page_are_those_of_the_results(results: Results) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert fill(text, results) == text, "fill it in again: python -m reproduction --only-page"


def test_every_number_in_the_words_of_the_page_is_that_of_the_results(results: Results) -> None:
    phrases = [
        *quoted_settings(results),
        *quoted_in_short(results),
        *quoted_of_masks(results),
        *quoted_of_ablations(results),
        *quoted_verdicts(results),
    ]
    hold(PAGE.read_text(encoding="utf-8"), [*phrases, *FACTS])


def test_a_number_that_nothing_holds_is_found() -> None:
    hold("## Finding 1\n\nTubes reach\n9.8 %.\n\n```bash\nmake 3\n```\n", ["Tubes reach 9.8 %"])
    for text in ("Tubes reach 9.8 %, with 12 seeds.", "Tubes reach 9.8 %, half of it."):
        with pytest.raises(AssertionError, match="nothing holds these numbers"):
            hold(text, ["Tubes reach 9.8 %"])
    with pytest.raises(AssertionError, match="the results say 'Tubes reach 9\\.9"):
        hold("Tubes reach 9.8 %", ["Tubes reach 9.9 %"])


def test_the_page_shows_every_picture() -> None:
    shown = re.findall(r"^!\[.*\]\((.*)\)$", PAGE.read_text(encoding="utf-8"), re.M)
    there = [path.relative_to(PAGE.parent) for path in (PAGE.parent / IMAGES).iterdir()]
    assert sorted(shown) == sorted(map(str, there))


def test_the_results_are_small_and_all_of_this_plan(results: Results) -> None:
    files = list(STUDY.results_dir.glob("*.json"))
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert {path.stem for path in files} == {each.name for each in FULL.experiments}
    assert len(results.settings) == len(files), "some have older settings"
