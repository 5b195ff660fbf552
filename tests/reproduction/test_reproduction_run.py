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
from reproduction.plan import Experiment, Plan, Scale, masked, tuned
from reproduction.report import write_page
from reproduction.run import Study

pytestmark = pytest.mark.slow  # starts interpreters, which import torch

START = masked("tube", 0.5, clips=40, epochs=4, warmup_clips=40, num_probes=2)
TUNED = tuned(START, 20, epochs=1, seeds=(0, 1))
SCALE = Scale(
    image_size=16, num_frames=4, video_frames=8, batch_size=8, tuned_batch_size=8, labelled=40,
    held_out=20, dtype="float32",
)  # fmt: skip
PLAN = Plan({"all": (START, TUNED)}, SCALE)


def study_in(folder: Path, *experiments: Experiment) -> Study:
    plan = Plan({"some": experiments}, SCALE) if experiments else PLAN
    return Study(plan, folder, folder / "results")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = study_in(tmp_path_factory.mktemp("findings"))
    environment, seen = dict(os.environ), list[str]()
    failed = study.run(workers=1, say=seen.append)
    assert failed == {}, [path.read_text() for path in study.folder.glob("runs/*/output.txt")]
    assert dict(os.environ) == environment
    assert [line.split("; ")[0] for line in seen] == [START.name, TUNED.name]
    assert seen[1].endswith("; left are 1 and 0.0 core hours")
    return study


def test_each_experiment_leaves_its_figures(study: Study) -> None:
    found = read_results(study)
    run = found.pretrained[START.name]
    assert (run.clips_seen, run.probe_clips, run.clips[-1]) == (160, (0, 80, 160), 160)
    assert {len(values) for values in run.probes.values()} == {3}
    assert all(0 <= top1 <= 100 for top1 in run.probes["linear"])
    assert run.cpu_seconds > 0
    assert run.copy_loss == pytest.approx(1, abs=0.05)  # of tubes there is nothing to copy
    assert len(found.tuned[TUNED.name].top1) == 2
    assert study.result_path(START).with_suffix(".png").exists()
    assert not study.work_dir(TUNED).exists()
    settings = {each: json.loads(study.result_path(each).read_text()) for each in (START, TUNED)}
    assert 'mask = "tube"' in settings[START]["settings"]
    assert 'init = "runs/findings/runs/tube-0.50-' in settings[TUNED]["settings"]
    assert str(study.folder) not in json.dumps(settings[START]) + json.dumps(settings[TUNED])


def test_what_is_done_is_not_run_again_and_what_changed_is(study: Study) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.results_dir.iterdir()}
    assert study.run(workers=1) == {}
    assert before == {path: path.stat().st_mtime_ns for path in study.results_dir.iterdir()}
    assert study.is_done(START)
    assert not study.is_done(dataclasses.replace(START, epochs=5))
    other = Plan(PLAN.steps, dataclasses.replace(SCALE, held_out=24))
    assert not dataclasses.replace(study, plan=other).is_done(START)


def test_a_model_that_is_gone_is_trained_again_where_something_needs_it(
    study: Study, tmp_path: Path
) -> None:
    longer = dataclasses.replace(TUNED, epochs=2)
    more = dataclasses.replace(study, plan=Plan({"some": (START, longer)}, SCALE))
    assert study.missing() == []
    assert more.missing() == [longer]
    in_a_clone = dataclasses.replace(study, folder=tmp_path)
    assert in_a_clone.missing() == []  # results without models
    assert dataclasses.replace(more, folder=tmp_path).missing() == [START, longer]


def test_an_experiment_is_described_by_all_that_decides_it(study: Study) -> None:
    found = study.described(TUNED)
    assert found == json.loads(json.dumps(found))
    assert (found["run"], found["kind"]) == ("finetuning", "actions")
    assert found["start"]["mask"] == "tube"
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
experiment = masked("tube", 0.5, clips=40, epochs=100_000)
scale = Scale(image_size=16, num_frames=4, video_frames=8, batch_size=8, labelled=40, held_out=20)
command.QUICK = Plan({"all": (experiment,)}, scale)
command.main(["--quick"])
"""


def test_to_terminate_it_stops_its_processes_at_a_checkpoint(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    place = tmp_path / "runs" / "findings"
    while not list(place.glob("runs/*/log.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.terminate()
    _, err = process.communicate()
    assert "KeyboardInterrupt" in err
    (log,) = place.glob("runs/*/output.txt")
    assert re.search(r"stopped after step \d+; go on with videomae .* --resume", log.read_text())
    assert list(place.glob("runs/*/checkpoints/*"))


def test_a_page_is_written_from_what_there_is(study: Study, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_page(study, page)
    text = page.read_text()
    assert "| all | 2 of 2 |" in text
    pictures = [line.split("(")[1].rstrip(")") for line in text.splitlines() if "![" in line]
    assert "images/reproduction/masks.svg" in pictures
    assert all((tmp_path / path).is_file() for path in pictures)
    picture = f"images/reproduction/{START.name}.png"
    assert not (tmp_path / picture).exists()  # no place for it on this page
    page.write_text(f"{text}<!-- plot: {START.name} --><!-- end -->")
    write_page(study, page)
    assert f"![{START.name}]({picture})" in page.read_text()
    assert (tmp_path / picture).is_file()
