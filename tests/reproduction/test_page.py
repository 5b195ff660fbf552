"""The page of the findings says what the results say, and nothing of what has not been run."""

import json
import re
from pathlib import Path

import pytest

from reproduction.findings import Results, read_results
from reproduction.plan import FULL, OTHERS, PEOPLE, RANDOM, TUBE
from reproduction.report import IMAGES, fill
from reproduction.run import Study

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproduction.md"
STUDY = Study(FULL, ROOT / "runs" / "findings", ROOT / "reproduction" / "results")

NUMBER = re.compile(r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|half|twice)\b", re.I)
# Phrases whose numbers are no results: of the plan, of the paper, of how figures are written.
FACTS = [
    "The paper says three things",
    "twenty actions in pairs",
    *(f"{each.mask}s of {each.mask_ratio:g}" for each in (TUBE, *OTHERS)),
    "Tubes of 0.9",
    f"random masks of {RANDOM.mask_ratio:g}",
    "With 100 labels",
    "on 300 labels",
    "with 300 labels",
    "With 300 labels",
    f"on {PEOPLE[0].clips:,} clips of people",
    "on 10,000 clips without people",
    "on 10,000 clips of people",
    "on one core",
    "A figure such as 70.0 ± 2.0 is the mean over all seeds, and half the distance",
    "R2",
    "R2 is 1 where all is known, and 0 for one who always answers the mean",
    "Two figures with a comma are of two pre-trainings",
    "the set of motions at 48 px",
    "the second domain of finding 3",
]


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(STUDY)


def words_of(text: str) -> str:
    """The text without what is filled in, code, targets of links and numbers of headings."""
    text = re.sub(r"<!--.*?<!-- end -->|^```.*?^```$", "", text, flags=re.S | re.M)
    text = re.sub(r"(?<=\])\([^)]*\)", "", text)
    text = re.sub(r"^## Finding \d|^\*\*\d\.", "", text, flags=re.M)
    return " ".join(text.split())


def numbers_left(text: str) -> list[str]:
    words = words_of(text)
    for phrase in sorted(FACTS, key=len, reverse=True):
        words = words.replace(phrase, "")
    return [words[max(it.start() - 40, 0) : it.end() + 40] for it in NUMBER.finditer(words)]


def test_the_page_is_filled_in_from_the_results(results: Results) -> None:
    text = PAGE.read_text(encoding="utf-8")
    images = PAGE.parent / IMAGES
    assert fill(text, results, images) == text, (
        "fill it in again: python -m reproduction --only-page"
    )


def test_no_number_in_the_words_of_the_page_is_written_by_hand() -> None:
    assert numbers_left(PAGE.read_text(encoding="utf-8")) == []
    assert numbers_left("Tubes of 0.9 reach 7 %.") == [" reach 7 %."]
    assert numbers_left("<!-- figure: linear x -->12 %<!-- end --> in half of it") == [
        "in half of it"
    ]


def test_no_line_begins_with_a_figure_which_would_hide_the_rest_of_it() -> None:
    assert not re.search(r"^<!-- figure", PAGE.read_text(encoding="utf-8"), re.M)


def test_the_page_shows_every_picture() -> None:
    shown = re.findall(r"^!\[.*\]\((.*)\)$", PAGE.read_text(encoding="utf-8"), re.M)
    there = {path.relative_to(PAGE.parent) for path in (PAGE.parent / IMAGES).glob("*")}
    assert set(map(Path, shown)) <= there
    pictures = {each.name for each in FULL.pretrainings}  # of which the page shows some
    assert {path.stem for path in there} - {Path(path).stem for path in shown} <= pictures


def test_the_results_are_small_and_all_of_this_plan(results: Results) -> None:
    files = list(STUDY.results_dir.glob("*.json"))
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert {path.stem for path in files} <= {each.name for each in FULL.experiments}
    assert len(results.pretrained) + len(results.tuned) == len(files), "some have older settings"
    for path in files:
        assert not re.search(r'= "[/~]', json.loads(path.read_text())["settings"]), path
