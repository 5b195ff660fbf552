"""The committed page and the committed results agree; and a page can be written from nothing."""

import json
import math
import re
from pathlib import Path

import pytest

from reproduction.plan import FULL, QUICK, Plan, Pretraining
from reproduction.report import page_text, write_page
from reproduction.results import read_outcomes
from reproduction.run import described
from videomae.hub import write_json

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "findings"
PAGE = ROOT / "docs" / "reproduction.md"


def test_the_page_says_what_the_result_files_say() -> None:
    text = page_text(read_outcomes(FULL, RESULTS))
    assert PAGE.read_text() == text, "write it again: videomae findings --only-page"


def test_the_page_shows_pictures_that_are_there() -> None:
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("![")]
    for line in shown:
        assert (PAGE.parent / line.split("(")[1].rstrip(")")).is_file(), line


def test_the_results_are_small_and_all_of_this_plan() -> None:
    files = list(RESULTS.glob("*.json"))
    assert sum(path.stat().st_size for path in files) < 1_000_000
    names = {point.name for point in FULL.points}
    assert {path.stem for path in files} <= names
    assert read_outcomes(FULL, RESULTS).num_done == len(files), "some have older settings"


def made_up(plan: Plan, folder: Path, count: int) -> Path:
    """Results of the first points of a plan, from formulas."""
    for index, point in enumerate(plan.points[:count]):
        values: dict[str, object] = {"settings": "seed = 0\n", "machine": {"cores": 2}}
        if isinstance(point, Pretraining):
            steps = list(range(100, 1001, 100))
            values |= {
                "steps": 1000,
                "cpu_seconds": 100.0,
                "clips_per_second": 50.0,
                "curve": {"step": steps, "loss": [0.7 + 0.3 * math.exp(-s / 300) for s in steps]},
                "copy_loss": 0.8,
                "probes": [
                    {"step": s, "linear": s / 20, "knn": 9.0} for s in (250, 500, 750, 1000)
                ],
            }
        else:
            values["runs"] = [
                {
                    "top1": 20.0 + index + seed,
                    "cpu_seconds": 60.0,
                    "clips_per_second": 40.0,
                    "curve": {"step": [10], "loss": [1.0]},
                }
                for seed in point.seeds
            ]
        write_json(folder / f"{point.name}.json", {"point": described(plan, point), **values})
    return folder


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_page_tells_how_much_of_the_plan_there_is(
    plan: Plan, share: float, tmp_path: Path
) -> None:
    count = round(share * len(plan.points))
    text = page_text(read_outcomes(plan, made_up(plan, tmp_path, count)))
    assert f"from {count} of {len(plan.points)} points" in text
    if share in (0.0, 0.1, 1.0):  # half of a plan may have something for every sentence
        assert ("Not run yet." in text) == (share < 1)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables
    assert "nan" not in text
    assert "None" not in text


def test_a_page_and_its_pictures_are_the_same_each_time(tmp_path: Path) -> None:
    results = made_up(FULL, tmp_path / "results", len(FULL.points))
    for name in ("a", "b"):
        write_page(FULL, results, tmp_path / name / "page.md")
    first = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(first) > 8
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_the_quick_page_links_to_what_is_there(tmp_path: Path) -> None:
    results = made_up(QUICK, tmp_path / "results", len(QUICK.points))
    for point in QUICK.points:
        (results / f"{point.name}.png").touch()
    page = write_page(QUICK, results, tmp_path / "page.md")
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert "results" in links
    assert [link for link in links if not (tmp_path / link).exists()] == []


def test_results_of_other_settings_are_left_out(tmp_path: Path) -> None:
    made_up(FULL, tmp_path, 1)
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    record["point"]["epochs"] += 1
    path.write_text(json.dumps(record))
    assert read_outcomes(FULL, tmp_path).num_done == 0


def test_an_ablation_is_held_against_what_a_seed_changes(tmp_path: Path) -> None:
    made_up(FULL, tmp_path, len(FULL.points))
    usual = "random-0.50"
    probes = {"": 74.0, "-seed1": 64.0, "-decoder_depth4": 80.0, "-decoder_depth1": 50.0}
    for path in tmp_path.glob(f"{usual}*.json"):
        record = json.loads(path.read_text())
        if "probes" in record:
            record["probes"][-1]["linear"] = probes.get(path.stem.removeprefix(usual), 70.0)
            path.write_text(json.dumps(record))
    text = page_text(read_outcomes(FULL, tmp_path))
    assert "probes of 64.0 to 74.0 % by their seed alone" in text
    assert "Above it: decoder depth 4. Below it: decoder depth 1." in text


def test_longer_pretrainings_stand_beside_the_usual_one(tmp_path: Path) -> None:
    text = page_text(read_outcomes(FULL, made_up(FULL, tmp_path, len(FULL.points))))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| tube | 0.75 |")]
    assert [row[2] for row in rows if row[2] in ("20", "60", "150")] == ["20", "60", "150"]
    names = [point.name for point in FULL.points]
    means = [
        21 + names.index(f"tube-0.75{length}-tuned") for length in ("", "-epochs60", "-epochs150")
    ]
    longest = f"Given 150 epochs in place of 20, tube 0.75 reaches {means[-1]}.0 ± 1.0 %."
    assert longest in text.split("## What was run")[0]
    assert f"tube 0.75 goes from {' to '.join(f'{mean}.0 ± 1.0' for mean in means)} %" in text
