"""A plan of miniature experiments is really run, in processes of its own, and not run again."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reproduction.findings import read_results
from reproduction.plan import Plan, Scale, masked, tuned
from reproduction.report import write_page
from reproduction.run import Study, work_of

pytestmark = pytest.mark.slow  # starts interpreters, which import torch

START = masked("tube", 0.5, image_size=16, clips=24, epochs=4)
TUNED = tuned(START, image_size=16, labels=24, epochs=1, seeds=(0, 1))
PLAN = Plan(
    (START, TUNED), Scale(batch_size=8, num_frames=4, video_frames=8, held_out=12, probe_clips=24)
)


def study_in(folder: Path, *experiments: object) -> Study:
    plan = dataclasses.replace(PLAN, experiments=experiments or PLAN.experiments)
    return Study(plan, folder, folder / "results")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = study_in(tmp_path_factory.mktemp("findings"))
    environment, seen = dict(os.environ), list[tuple[int, str]]()
    failed = study.run(workers=1, on_progress=lambda *each: seen.append(each))
    assert failed == {}, [path.read_text() for path in study.folder.glob("runs/*/output.txt")]
    assert dict(os.environ) == environment
    assert seen[0] == (0, f"0 of 2 experiments: clips for {START.name}")
    assert (work_of(START) // 2, f"0 of 2 experiments: {START.name}") in seen
    assert seen[-1] == (work_of(START) + work_of(TUNED), "2 of 2 experiments: ")
    return study


def test_each_experiment_leaves_its_figures(study: Study) -> None:
    found = read_results(study)
    run = found.pretrained[START]
    assert (run.num_steps, run.probe_steps, len(run.probes)) == (12, (3, 6, 9, 12), 4)
    assert run.steps[-1] == 12
    assert run.cpu_seconds > 0
    assert run.copy_loss == pytest.approx(1, abs=0.05)  # of tubes there is nothing to copy
    assert len(found.tuned[TUNED].top1) == 2
    assert study.result_path(START).with_suffix(".png").exists()
    assert not study.work_dir(TUNED).exists()
    assert 'mask = "tube"' in found.settings[START]


def test_what_is_done_is_not_run_again_and_what_changed_is(study: Study) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.results_dir.iterdir()}
    assert study.run(workers=1) == {}
    assert before == {path: path.stat().st_mtime_ns for path in study.results_dir.iterdir()}
    assert study.is_done(START)
    assert not study.is_done(dataclasses.replace(START, epochs=5))
    other = Plan(PLAN.experiments, dataclasses.replace(PLAN.scale, held_out=24))
    assert not dataclasses.replace(study, plan=other).is_done(START)


def test_a_model_that_is_gone_is_trained_again_where_something_needs_it(
    study: Study, tmp_path: Path
) -> None:
    longer = dataclasses.replace(TUNED, epochs=2)
    more = dataclasses.replace(study, plan=dataclasses.replace(PLAN, experiments=(START, longer)))
    assert study.missing() == []
    assert more.missing() == [longer]
    in_a_clone = dataclasses.replace(study, folder=tmp_path)
    assert in_a_clone.missing() == []  # results without models
    assert dataclasses.replace(more, folder=tmp_path).missing() == [START, longer]


def test_an_experiment_is_described_by_all_that_decides_it(study: Study) -> None:
    found = study.described(TUNED)
    assert found == json.loads(json.dumps(found))
    assert (found["kind"], found["start"]["mask"]) == ("finetuning", "tube")
    assert found["scale"]["batch_size"] == 8


def test_a_failed_experiment_is_named_and_what_starts_from_it_is_left(tmp_path: Path) -> None:
    wrong = dataclasses.replace(START, mask_ratio=0.1)  # hides none of 4 cells
    failed = study_in(tmp_path, wrong, dataclasses.replace(TUNED, start=wrong)).run()
    assert set(failed) == {wrong.name, TUNED.name}
    assert "exit code 1, see" in failed[wrong.name]
    assert failed[TUNED.name] == "the one it starts from failed"
    log = Path(failed[wrong.name].split("see ")[1])
    assert "hides none" in log.read_text()


ENDLESS = """
from reproduction import __main__ as command
from reproduction.plan import Plan, Scale, masked
experiment = masked("tube", 0.5, image_size=16, clips=24, epochs=100_000)
scale = Scale(batch_size=8, num_frames=4, video_frames=8, held_out=12, probe_clips=24)
command.QUICK = Plan((experiment,), scale)
command.main(["--quick"])
"""


def test_to_terminate_it_stops_its_processes_at_a_checkpoint(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    place = tmp_path / "runs" / "findings"
    deadline = time.monotonic() + 120
    while not list(place.glob("runs/*/log.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    (log,) = place.glob("runs/*/output.txt")
    assert re.search(r"stopped after step \d+; go on with videomae .* --resume", log.read_text())
    assert list(place.glob("runs/*/checkpoints/*"))


def test_a_page_is_written_from_what_there_is(study: Study, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_page(study, page)
    text = page.read_text()
    assert "2 of 2 experiments" in text
    pictures = [line.split("(")[1].rstrip(")") for line in text.splitlines() if "![" in line]
    assert f"images/reproduction/{START.name}.png" in pictures
    assert all((tmp_path / path).is_file() for path in pictures)
