"""A page is filled with tables and plots, from all, some or no results."""

import json
import math
import re
from pathlib import Path

import pytest

from reproduction.findings import read_results
from reproduction.plan import FULL, QUICK, Plan, Pretraining
from reproduction.report import fill, tables, write_page
from reproduction.run import Study
from videomae.hub import write_json


def made_up(plan: Plan, folder: Path, share: float = 1.0) -> Study:
    """A study with results of its first experiments, from formulas."""
    study = Study(plan, folder, folder / "results")
    for index, experiment in enumerate(plan.experiments[: round(share * len(plan.experiments))]):
        values: dict[str, object] = {"settings": "seed = 0\n", "machine": {"cores": 2}}
        if isinstance(experiment, Pretraining):
            steps = list(range(100, 1001, 100))
            values |= {
                "steps": 1000,
                "cpu_seconds": 100.0,
                "clips_per_second": 50.0,
                "curve": {"step": steps, "loss": [0.7 + 0.3 * math.exp(-s / 300) for s in steps]},
                "copy_loss": 0.8,
                "probes": [{"step": s, "linear": s / 20} for s in (250, 500, 750, 1000)],
            }
        else:
            values["runs"] = [
                {"top1": 20.0 + index + seed, "cpu_seconds": 60.0, "curve": {"loss": [1.0]}}
                for seed in experiment.seeds
            ]
        described = study.described(experiment)
        write_json(study.result_path(experiment), {"experiment": described, **values})
    return study


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_tables_show_how_much_of_the_plan_there_is(
    plan: Plan, share: float, tmp_path: Path
) -> None:
    found = tables(read_results(made_up(plan, tmp_path, share)))
    count = len(plan.experiments)
    assert found["status"].startswith(f"{round(share * count)} of {count} experiments")
    assert ("Not run yet." in found.values()) == (share < 1 or plan is QUICK)
    assert ("not run yet" in found["claims"]) == (share < 1)
    assert not re.search("nan|None", "\n".join(found.values()))


def test_longer_pre_trainings_stand_below_the_usual_one(tmp_path: Path) -> None:
    table = tables(read_results(made_up(FULL, tmp_path)))["masks-longer"]
    first, *rows = (line.split(" | ") for line in table.splitlines() if "tube" in line)
    assert (first[0], [row[0] for row in rows]) == (
        "| tube 0.75", ["| tube 0.75, epochs 60", "| tube 0.75, epochs 150"]
    )  # fmt: skip


def test_what_stands_around_the_tables_stays(tmp_path: Path) -> None:
    results = read_results(made_up(QUICK, tmp_path))
    empty = "Words.\n\n<!-- table: status -->\n<!-- end of table -->\n\nMore words.\n"
    filled = fill(empty, results)
    assert filled == (
        "Words.\n\n<!-- table: status -->\n\n7 of 7 experiments, 0.3 hours of one core.\n\n"
        "<!-- end of table -->\n\nMore words.\n"
    )
    assert fill(filled, results) == filled


def test_a_page_and_its_pictures_are_the_same_each_time(tmp_path: Path) -> None:
    study = made_up(FULL, tmp_path)
    for name in ("a", "b"):
        write_page(study, tmp_path / name / "page.md")
    first = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(first) > 8
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_new_page_shows_every_table_and_picture(tmp_path: Path) -> None:
    study = made_up(QUICK, tmp_path)
    for experiment in QUICK.pretrainings:
        study.result_path(experiment).with_suffix(".png").touch()
    page = tmp_path / "page.md"
    write_page(study, page)
    text = page.read_text()
    shown = re.findall(r"\]\(([^)]+)\)", text)
    pictures = {f"{QUICK.base.name}.png", "masks.svg", "labels.svg", "domains.svg"}
    assert {Path(path).name for path in shown} >= pictures
    assert [path for path in shown if not (tmp_path / path).exists()] == []
    assert re.findall(r"<!-- table: (.*) -->", text) == list(tables(read_results(study)))
    write_page(study, page)
    assert page.read_text() == text


def test_results_of_other_settings_are_left_out(tmp_path: Path) -> None:
    study = made_up(FULL, tmp_path, share=1 / len(FULL.experiments))
    (path,) = study.results_dir.glob("*.json")
    record = json.loads(path.read_text())
    record["experiment"]["epochs"] += 1
    path.write_text(json.dumps(record))
    assert read_results(study).settings == {}
