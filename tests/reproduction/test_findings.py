"""Figures by hand, and from made-up results: how they are read back, compared and filled in."""

import json
import math
import re
from pathlib import Path

import pytest

from reproduction.findings import NOT_RUN, Pretrained, Tuned, arms, called, read_results
from reproduction.plan import FULL, LONG, QUICK, RANDOM, TUBE, Plan, Pretraining, tuned, twice
from reproduction.plots import plots
from reproduction.report import TABLES, fill, write_page
from reproduction.run import Study
from videomae.hub import write_json

PLANS = pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])


def made_up(plan: Plan, folder: Path, share: float = 1.0) -> Study:
    """A study with results of its first experiments, from formulas."""
    study = Study(plan, folder, folder / "results")
    count = round(share * len(plan.experiments))
    for index, experiment in enumerate(plan.experiments[:count]):
        values: dict[str, object] = {"machine": {"processor": "X", "cores": 2, "torch": "2"}}
        if isinstance(experiment, Pretraining):
            steps = list(range(100, 1001, 100))
            values |= {
                "steps": 1000,
                "cpu_seconds": 3600.0 + 60 * index,
                "curve": {"step": steps, "loss": [0.7 + 0.5 * math.exp(-s / 300) for s in steps]},
                "copy_loss": 0.8,
                "probes": [
                    {"clips": part * experiment.clips_seen // 4, "linear": 10.0 + part,
                     "hand": part / 10 - 0.01, "limbs": part / 20}
                    for part in range(5)
                ],
            }  # fmt: skip
        else:
            values["runs"] = [
                {"top1": 20.0 + index + seed, "cpu_seconds": 60.0} for seed in experiment.seeds
            ]
        described = study.described(experiment)
        write_json(study.result_path(experiment), {"experiment": described, **values})
    return study


def test_probes_lie_on_lines_between_those_that_were_made() -> None:
    run = Pretrained(
        (10, 20), (0.9, 0.8), 1.0, (0, 100, 200), {"linear": (5.0, 7.0, 15.0)}, 200, 60.0
    )
    assert [run.after("linear", clips) for clips in (0, 50, 150, 300)] == [5, 6, 11, 15]


def test_a_figure_is_a_mean_and_half_of_what_seeds_are_apart() -> None:
    assert str(Tuned((80.0, 84.0, 81.0), 1.0)) == "81.7 ± 2.0"


def test_pre_trainings_that_differ_in_their_seed_are_taken_together(tmp_path: Path) -> None:
    results = read_results(made_up(FULL, tmp_path))
    one, other = (results.tuned[tuned(start).name] for start in (TUBE, twice(TUBE)))
    both = results.top1(tuned(TUBE))
    assert both
    assert both.top1 == (*one.top1, *other.top1)
    alone = results.top1(tuned(TUBE, 100))
    assert alone
    assert len(alone.top1) == 3
    assert results.seeds(arms(FULL)[called(TUBE)]) == [
        results.pretrained[each.name] for each in (TUBE, twice(TUBE))
    ]


def test_a_fine_tuning_is_found_by_its_start_and_settings() -> None:
    results = read_results(Study(FULL, Path("none"), Path("none")))
    assert results.find(TUBE, labels=300) == tuned(TUBE)
    assert results.find(TUBE, labels=1000) == tuned(twice(TUBE), 1000)
    assert results.find(TUBE, labels=300, kind="motion") == tuned(twice(TUBE), kind="motion")
    assert results.find(None, labels=300) == tuned(None)
    assert results.find(LONG, labels=300) is None
    assert results.top1(tuned(TUBE)) is None  # not run


def test_figures_of_the_text_are_those_of_the_results(tmp_path: Path) -> None:
    results = read_results(made_up(FULL, tmp_path, share=9 / len(FULL.experiments)))  # step 1
    figures = {
        f"linear {TUBE.name}": "14.0, 14.0 %",
        f"untrained-linear {TUBE.name}": "10.0, 10.0 %",
        f"hand {RANDOM.name}": "0.39, 0.39",
        f"copy {RANDOM.name}": "0.800",
        f"seen {RANDOM.name}": "200,000",
        f"top1 {tuned(TUBE).name}": "26.0 ± 2.0 %",  # of two pre-trainings
        f"top1 {tuned(TUBE, 100).name}": f"({NOT_RUN})",
        f"linear {LONG.name}": f"({NOT_RUN})",
    }
    assert {words: results.figure(words) for words in figures} == figures
    loss = 0.7 + 0.5 * math.exp(-1000 / 300)
    assert float(results.figure(f"loss {TUBE.name}")) == pytest.approx(loss, abs=6e-4)
    for wrong in ("linear tube-0.91", f"weight {TUBE.name}"):
        with pytest.raises((StopIteration, KeyError)):
            results.figure(wrong)


@PLANS
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_tables_show_how_much_of_the_plan_there_is(
    plan: Plan, share: float, tmp_path: Path
) -> None:
    results = read_results(made_up(plan, tmp_path, share))
    found = {name: table(results) for name, table in TABLES.items()}
    count = len(plan.experiments)
    assert f"| all | {round(share * count)} of {count} |" in found["status"]
    assert (NOT_RUN in found["labels"]) == (not results.tuned)
    assert (NOT_RUN in found["long"]) == (share < 1 or plan is QUICK)
    assert not re.search("nan|None", "\n".join(found.values()))


def test_masks_stand_beside_each_other_with_what_they_know_and_cost(tmp_path: Path) -> None:
    results = read_results(made_up(FULL, tmp_path))
    rows = [line.strip("| ").split(" | ") for line in TABLES["masks"](results).splitlines()[2:]]
    assert rows[0] == ["random weights", *"–––", "10.0", "-0.01", "0.00", *"––"]
    assert rows[1][:2] == ["tube 0.9", "51"]
    assert rows[1][4:7] == ["14.0, 14.0", "0.39, 0.39", "0.20, 0.20"]
    assert len(rows) == 7
    time = TABLES["time"](results)
    assert "after 60 CPU min" in time
    assert "| tube 0.9 | " in time


def test_what_stands_around_the_figures_stays(tmp_path: Path) -> None:
    results = read_results(made_up(FULL, tmp_path))
    empty = (
        f"It is\nright in <!-- figure: linear {TUBE.name} --><!-- end -->. More.\n\n"
        "<!-- plot: masks -->\n<!-- end -->\n\n<!-- table: long -->\n<!-- end -->\n\nWords.\n"
    )
    filled = fill(empty, results, tmp_path)
    assert f"right in <!-- figure: linear {TUBE.name} -->14.0, 14.0 %<!-- end -->. More." in filled
    assert "<!-- plot: masks -->\n\n*Plot: not run yet.*\n\n<!-- end -->" in filled
    assert filled.endswith("|\n\n<!-- end -->\n\nWords.\n")
    (tmp_path / "masks.svg").touch()
    again = fill(filled, results, tmp_path)
    assert "![masks](images/reproduction/masks.svg)" in again
    assert fill(again, results, tmp_path) == again


def test_a_page_and_its_pictures_are_the_same_each_time(tmp_path: Path) -> None:
    study = made_up(QUICK, tmp_path)
    for name in ("a", "b"):
        write_page(study, tmp_path / name / "page.md")
    first = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {path.stem for path in first} == {"page", "masks", "hand", "loss", "labels", "domains"}
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    shown = re.findall(r"\]\(([^)]+)\)", (tmp_path / "a" / "page.md").read_text())
    assert {f"{path.stem}{path.suffix}" for path in first if path.suffix == ".svg"} == {
        Path(path).name for path in shown
    }


def test_all_plots_have_something_to_show(tmp_path: Path) -> None:
    names = {"masks", "hand", "loss", "long", "long-loss", "labels", "domains", "domains-motion"}
    drawn = plots(read_results(made_up(FULL, tmp_path)))
    assert set(drawn) == names
    titles = {"loss": "pre-training loss", "long-loss": "pre-training loss, tiny, tube 0.9"}
    for name, title in titles.items():
        drawn[name](tmp_path / "plot.svg")
        assert f"<!-- {title} -->" in (tmp_path / "plot.svg").read_text()
    assert plots(read_results(made_up(FULL, tmp_path / "none", share=0))) == {}


def test_results_of_other_settings_are_left_out(tmp_path: Path) -> None:
    study = made_up(FULL, tmp_path, share=1 / len(FULL.experiments))
    (path,) = study.results_dir.glob("*.json")
    record = json.loads(path.read_text())
    record["experiment"]["epochs"] += 1
    path.write_text(json.dumps(record))
    assert read_results(study).pretrained == {}
