"""A plan of miniature points is really run, in processes of its own, and not run again."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reproduction.claims import base_of
from reproduction.plan import Plan, Scale, masked, tuned
from reproduction.report import write_page
from reproduction.results import read_outcomes
from reproduction.run import Progress, described, is_done, missing, run_plan

pytestmark = pytest.mark.slow  # starts interpreters, which import torch

START = masked("tube", 0.5, image_size=16, clips=24, epochs=4)
TUNED = tuned(START, image_size=16, labels=24, epochs=1, seeds=(0, 1))
PLAN = Plan(
    (START, TUNED), Scale(batch_size=8, num_frames=4, video_frames=8, held_out=12, probe_clips=24)
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("findings")
    environment, seen = dict(os.environ), list[Progress]()
    failed = run_plan(
        PLAN, folder=folder, results_dir=folder / "results", workers=1, on_progress=seen.append
    )
    assert failed == {}, [path.read_text() for path in folder.glob("runs/*/output.txt")]
    assert dict(os.environ) == environment
    assert (seen[0].points_done, seen[-1].points_done) == (0, 2)
    assert seen[-1].work_done == seen[-1].work
    assert any(each.running == (START.name,) for each in seen)
    return folder


def test_each_point_leaves_its_figures(place: Path) -> None:
    found = read_outcomes(PLAN, place / "results")
    run = found.pretrained[START]
    assert (run.num_steps, run.probe_steps, len(run.probes)) == (12, (3, 6, 9, 12), 4)
    assert run.steps[-1] == 12
    assert run.cpu_seconds > 0
    assert run.copy_loss == pytest.approx(1, abs=0.05)  # of tubes there is nothing to copy
    assert len(found.tuned[TUNED].top1) == 2
    assert (place / "results" / f"{START.name}.png").exists()
    assert not list((place / "runs").glob(f"{TUNED.name}-*/seed-*"))
    assert 'mask = "tube"' in found.settings[START]


def test_what_is_done_is_not_run_again_and_what_changed_is(place: Path) -> None:
    results = place / "results"
    before = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    assert run_plan(PLAN, folder=place, results_dir=results, workers=1) == {}
    assert before == {path: path.stat().st_mtime_ns for path in results.iterdir()}
    changed = dataclasses.replace(START, epochs=5)
    assert is_done(PLAN, START, results)
    assert not is_done(Plan((changed,), PLAN.scale), changed, results)
    other = Plan(PLAN.points, dataclasses.replace(PLAN.scale, held_out=24))
    assert not is_done(other, START, results)


def test_a_model_that_is_gone_is_trained_again_where_something_needs_it(
    place: Path, tmp_path: Path
) -> None:
    results, longer = place / "results", dataclasses.replace(TUNED, epochs=2)
    plan = Plan((START, longer), PLAN.scale)
    assert missing(PLAN, place, results) == []
    assert missing(plan, place, results) == [longer]
    assert missing(PLAN, tmp_path, results) == []  # figures in a clone without its models
    assert missing(plan, tmp_path, results) == [START, longer]


def test_a_point_is_described_by_all_that_decides_it() -> None:
    found = described(PLAN, TUNED)
    assert found == json.loads(json.dumps(found))
    assert (found["kind"], found["start"]["mask"]) == ("finetuning", "tube")
    assert found["scale"]["batch_size"] == 8


def test_a_failed_point_is_told_and_what_starts_from_it_is_left(tmp_path: Path) -> None:
    wrong = dataclasses.replace(START, mask_ratio=0.1)  # hides none of 4 cells
    plan = Plan((wrong, dataclasses.replace(TUNED, start=wrong)), PLAN.scale)
    failed = run_plan(plan, folder=tmp_path, results_dir=tmp_path / "results", workers=2)
    assert set(failed) == {wrong.name, TUNED.name}
    assert "exit code 1, see" in failed[wrong.name]
    assert failed[TUNED.name] == "what it starts from failed"
    log = Path(failed[wrong.name].split("see ")[1])
    assert "hides none" in log.read_text()


ENDLESS = """
import sys
from pathlib import Path
from reproduction.plan import Plan, Scale, masked
from reproduction.run import run_plan
if __name__ == "__main__":
    point = masked("tube", 0.5, image_size=16, clips=24, epochs=100_000)
    scale = Scale(batch_size=8, num_frames=4, video_frames=8, held_out=12, probe_clips=24)
    run_plan(Plan((point,), scale), folder=Path(sys.argv[1]), results_dir=Path(sys.argv[1]))
"""


def test_to_terminate_it_stops_its_processes_at_a_checkpoint(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    place = tmp_path / "place"
    process = subprocess.Popen([sys.executable, script, place], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(place.glob("runs/*/log.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    (log,) = place.glob("runs/*/output.txt")
    assert "go on with --resume" in log.read_text()
    assert list(place.glob("runs/*/checkpoints/*"))


def test_the_page_is_written_from_what_there_is(place: Path, tmp_path: Path) -> None:
    page = write_page(PLAN, place / "results", tmp_path / "page.md")
    text = page.read_text()
    assert base_of(PLAN) == START
    assert "from 2 of 2 points" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line.split("(")[1].rstrip(")")).is_file(), line
