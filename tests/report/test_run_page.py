"""The page of a run: what stands on it, at every stage of the run."""

import json
import re
import tomllib
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from videomae.errors import ConfigError
from videomae.recipe import write_recipe
from videomae.report.pictures import save_picture
from videomae.report.run_page import write_page
from videomae.settings import FinetuneSettings, PretrainSettings, TrainSettings

PRETRAIN = PretrainSettings(
    data=Path("/videos/many clips"), preset="small", epochs=4, mask="tube", mask_ratio=0.9
)
FINETUNE = FinetuneSettings(init="MCG-NJU/videomae-base", epochs=4)


def make_run(folder: Path, settings: TrainSettings, *, num_epochs: int = 4) -> Path:
    """A run of 10 steps an epoch, a line of its log for each."""
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(replace(settings, output=folder), folder / "settings.toml")
    rows = [
        {
            "step": step,
            "epoch": step / 10,
            "lr": 1e-4 / step,
            "loss": None if step == 5 else 1 + 1 / step,
            "grad_norm": 0.5,
            "clips_per_second": 40.0,
            "data_ms": 5.0,
            "forward_ms": 60.0,
            "backward_ms": 120.0,
            "optimizer_ms": 15.0,
            "num_bad_videos": 0,
            "num_skipped_steps": 1,
            "seconds": 3.0 * step,
        }
        for step in range(1, 10 * num_epochs + 1)
    ]
    add_rows(folder, rows)
    environment = {"torch": "2.14", "command": ["videomae", "pretrain", "--data", "many clips"]}
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def add_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def draw_epochs(folder: Path, epochs: list[int]) -> None:
    for epoch in epochs:
        picture = np.full((30, 90, 3), epoch, np.uint8)
        save_picture(folder / f"reconstructions/epoch_{epoch:04d}.png", picture)


def words_of(page: Path) -> str:
    """What a reader reads, in one line."""
    body = page.read_text(encoding="utf-8").split("<main>")[1]
    body = re.sub(r"</?(code|b|small)>", "", body)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_a_finished_pretraining(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", PRETRAIN)
    draw_epochs(folder, [1, 2, 3, 4])
    page = write_page(folder)
    assert page == folder / "index.html"
    words = words_of(page)
    for expected in (
        "Pre-training on many clips VideoMAE small from scratch, 90 % hidden (tube mask).",
        "Finished: 40 steps, 4 epochs.",
        "time 2 min loss 1.02 clips per second 40.0",
        "steps left out 1",
        "Learning rate over steps",
        "A step: 200 ms waiting for data 5.00 ms forward 60.0 ms backward 120 ms optimiser 15.0 ms",
        "preset small base",  # here, and by default
        "command videomae pretrain --data 'many clips'",
        f"videomae finetune --init {folder}/model --data LABELLED",
        f"videomae pretrain --recipe {folder}/settings.toml --output {folder}-again",
    ):
        assert expected in words
    assert re.findall(r"<h3>(.*?)</h3>", page.read_text()) == ["Epoch 1", "Epoch 3", "Epoch 4"]
    assert "--resume" not in words


def test_a_page_holds_everything_itself_and_nothing_runs_in_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path, PRETRAIN)
    draw_epochs(folder, [1])
    text = write_page(folder).read_text()
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in text
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert all(source.startswith("data:image/") for source in re.findall(r'src="(.*?)"', text))


def test_the_curves_are_files_too_and_the_same_files_give_the_same_page(tmp_path: Path) -> None:
    make_run(tmp_path, PRETRAIN)
    first = write_page(tmp_path).read_bytes()
    assert (tmp_path / "loss.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "lr.png").read_bytes()[1:4] == b"PNG"
    assert write_page(tmp_path).read_bytes() == first
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_goes_on_says_how_far_it_is_and_how_to_resume_it(tmp_path: Path) -> None:
    make_run(tmp_path, PRETRAIN, num_epochs=1)
    words = words_of(write_page(tmp_path))
    assert "At step 10 of 40, epoch 1 of 4; about 1 min 30 s to go." in words
    assert f"videomae pretrain --output {tmp_path} --resume" in words


def test_a_finetuning_with_evaluations(tmp_path: Path) -> None:
    make_run(tmp_path, FINETUNE)
    figures = [{"top1": top1, "top5": 90.0, "mean_class": 20.0} for top1 in (25.0, 75.5, 60.0)]
    add_rows(
        tmp_path,
        [{"step": 10, "epoch": n, "score": f["top1"], **f} for n, f in enumerate(figures, start=1)],
    )
    results = {
        "problem": "single_label",
        **figures[-1],
        "num_videos": 1200,
        "num_clips": 5,
        "num_crops": 3,
        "num_unreadable": 1,
        "per_class": {"run": 80.0, "<jump>": 40.0, "sit": None},
        "unreadable": [{"row": 3, "path": "a.mp4", "reason": "a.mp4: is damaged"}, None],
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    save_picture(tmp_path / "confusion.png", np.zeros((20, 20, 3), np.uint8))
    page = write_page(tmp_path)
    words = words_of(page)
    for expected in (
        "From MCG-NJU/videomae-base.",
        "best top-1 75.5 %",
        "Accuracy in percent over epochs",
        "top-1: 60.0 at the end top-5: 90.0 at the end",
        "epoch top-1 top-5 mean class accuracy 1 25.0 % 90.0 % 20.0 %",
        "1,200 videos, 5 x 3 views of each; 1 unreadable.",
        "2 classes, the worst first <jump> 40% run 80%",
        "Videos of the evaluation that cannot be read: 1 a.mp4 is damaged",
        f"videomae classify VIDEO.mp4 --model {tmp_path}/model",
    ):
        assert expected in words
    assert page.read_text().count("data:image/png") == 1


def test_a_single_evaluation_is_a_table_without_curves(tmp_path: Path) -> None:
    make_run(tmp_path, replace(FINETUNE, problem="regression"))
    add_rows(tmp_path, [{"step": 40, "epoch": 4, "score": -2.5, "mae": 2.5, "r2": None}])
    words = words_of(write_page(tmp_path))
    assert "mean absolute error 2.50" in words
    assert "epoch mean absolute error R2 4 2.50" in words
    assert "over epochs" not in words


def test_the_data_report_and_unreadable_videos_are_shown_in_part(tmp_path: Path) -> None:
    make_run(tmp_path, PRETRAIN)
    report = {"summary": {"usable": "1,000", "fps": "25"}, "warnings": ["3 videos are <short>"]}
    (tmp_path / "data_report.json").write_text(json.dumps(report))
    bad = {f"/v/<{n}>.mp4": f"/v/<{n}>.mp4: is cut off" for n in range(100)}
    (tmp_path / "bad_videos.json").write_text(json.dumps(bad))
    words = words_of(write_page(tmp_path))
    assert "usable 1,000 fps 25" in words
    assert "Look at this 3 videos are <short>" in words
    assert "Videos that cannot be read: 100 /v/<0>.mp4 is cut off /v/<1>.mp4" in words
    assert "/v/<30>.mp4" not in words
    assert "And 70 more, in bad_videos.json." in words


def test_an_empty_folder_has_a_page_and_no_folder_has_none(tmp_path: Path) -> None:
    words = words_of(write_page(tmp_path))
    assert words.startswith("Run There is no readable settings.toml in this folder. Nothing repo")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    with pytest.raises(ConfigError, match="is no folder"):
        write_page(tmp_path / "nowhere")


def test_broken_files_are_left_out_and_a_broken_picture_is_told(tmp_path: Path) -> None:
    make_run(tmp_path, PRETRAIN)
    draw_epochs(tmp_path, [1, 2])
    picture = tmp_path / "reconstructions/epoch_0002.png"
    picture.write_bytes(picture.read_bytes()[:60])
    (tmp_path / "reconstructions/epoch_0001.png.tmp").write_text("")
    (tmp_path / "results.json").write_text('{"per_class": [1], "unreadable": 3, "num_videos": "x"}')
    (tmp_path / "data_report.json").write_text('{"summary": [], "warnings": {}}')
    (tmp_path / "environment.json").write_text('{"command": "x"')
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
    words = words_of(write_page(tmp_path))
    assert "epoch_0002.png cannot be read." in words
    assert "Finished: 40 steps" in words


@pytest.mark.parametrize(
    ("settings", "facts", "expected"),
    [
        ({"epochs": "x"}, {"num_steps": 80}, "At step 40 of 80; about 2 min to go."),
        ({"epochs": "x"}, {}, "At step 40."),
        ({"mask_ratio": "x"}, {}, "VideoMAE small from scratch. Finished: 40 steps, 4 epochs."),
        ({}, {"hidden_share": None, "baseline_loss": "x"}, "from scratch, 90 % hidden (tube mask)"),
        (
            None,
            {"num_steps": 40},
            "There is no readable settings.toml in this folder. Finished: 40",
        ),
        (None, {"num_steps": 80}, "in this folder. At step 40 of 80; about 2 min to go."),
    ],
)
def test_what_is_of_another_kind_is_left_out(
    settings: dict[str, Any] | None, facts: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    path = make_run(tmp_path, PRETRAIN) / "settings.toml"
    known = tomllib.loads(path.read_text())
    path.write_text("" if settings is None else tomli_w.dumps(known | settings))
    add_facts(tmp_path, **facts)
    assert expected in words_of(write_page(tmp_path))


@pytest.mark.parametrize("epoch", [{}, {"epoch": None}])
def test_a_log_without_epochs_has_a_page(epoch: dict[str, None], tmp_path: Path) -> None:
    make_run(tmp_path, FINETUNE, num_epochs=0)
    add_rows(tmp_path, [{"step": 40, "loss": 1.0, "seconds": 120.0, **epoch}])
    add_rows(tmp_path, [{"step": 40, "epoch": 1, "score": 1.0, "top1": 1.0, "seconds": 120.0}])
    add_facts(tmp_path, num_steps=80, num_classes="x", num_held_out=3)
    assert "At step 40 of 80; about 2 min to go." in words_of(write_page(tmp_path))


def test_the_page_of_a_long_run_stays_small(tmp_path: Path) -> None:
    make_run(tmp_path, PRETRAIN, num_epochs=2000)
    noise = np.random.default_rng(0).integers(0, 256, (780, 1840, 3), np.uint8)
    for epoch in (1, 1000, 2000):
        save_picture(tmp_path / f"reconstructions/epoch_{epoch:04d}.png", noise)
    page = write_page(tmp_path)
    assert page.stat().st_size < 3_000_000
    lines = re.findall(r'<path d="(.*?)"', page.read_text(), flags=re.DOTALL)
    assert 20 < max(line.count("L") for line in lines) < 500


def test_names_of_any_bytes_reach_the_page(tmp_path: Path) -> None:
    make_run(tmp_path, PRETRAIN)
    (tmp_path / "bad_videos.json").write_text(json.dumps({"caf\udce9.mp4": "is <damaged>"}))
    assert r"caf\xe9.mp4 is <damaged>" in words_of(write_page(tmp_path))


def add_facts(folder: Path, **facts: Any) -> None:
    (folder / "run.json").write_text(json.dumps(facts))


def test_what_needs_no_learning_is_a_line_in_the_charts(tmp_path: Path) -> None:
    make_run(tmp_path / "p", PRETRAIN)
    add_facts(tmp_path / "p", baseline_loss=0.998, hidden_share=0.897959, num_steps=80)
    words = words_of(write_page(tmp_path / "p"))
    assert "predicting nothing: 0.998" in words
    assert "89.8 % hidden (tube mask)" in words  # 176 of 196 cells
    assert "At step 40 of 80" in words
    make_run(tmp_path / "f", FINETUNE)
    add_facts(tmp_path / "f", baseline_loss=2.485, num_classes=12, num_held_out=50)
    rows = [{"step": 10 * n, "epoch": n, "score": 90.0, "top1": 90.0} for n in (1, 2)]
    add_rows(tmp_path / "f", rows)
    words = words_of(write_page(tmp_path / "f"))
    assert "guessing: 2.48" in words
    assert "guessing: 8.33" in words


def test_a_run_that_was_not_evaluated_says_why(tmp_path: Path) -> None:
    make_run(tmp_path, FINETUNE)
    add_facts(tmp_path, num_classes=2, not_evaluated="not evaluated: data has no val split")
    assert "Evaluation Not evaluated: data has no val split." in words_of(write_page(tmp_path))


def test_one_is_no_plural(tmp_path: Path) -> None:
    make_run(tmp_path, replace(FINETUNE, epochs=1), num_epochs=1)
    results = {"problem": "single_label", "top1": 0.0, "num_videos": 1, "per_class": {"run": 0.0}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    words = words_of(write_page(tmp_path))
    assert "Finished: 10 steps, 1 epoch." in words
    assert "1 video, 1 view of each" in words
    assert "1 class, the worst first" in words


def test_wrong_answers_are_shown_where_they_are_known(tmp_path: Path) -> None:
    make_run(tmp_path, FINETUNE)
    shown = [
        {"path": "<a>.mp4", "label": "run", "predicted": "sit", "score": 0.93},
        {"path": "b.mp4", "label": "sit", "predicted": "run", "score": "x", "picture": "../01.jpg"},
        "broken",
        {},
    ]
    (tmp_path / "mistakes.json").write_text(json.dumps({"num_wrong": 2, "shown": shown}))
    words = words_of(write_page(tmp_path))
    assert "the surest first run, taken for sit 93% <a>.mp4 sit, taken for run b.mp4" in words
    assert words.count("taken for") == 2


def test_an_evaluation_by_itself_has_a_page(tmp_path: Path) -> None:
    results = {"model": "runs/f/model", "data": "data/birds", "split": "test", "top1": 50.0}
    (tmp_path / "results.json").write_text(json.dumps(results | {"num_videos": 4}))
    words = words_of(write_page(tmp_path))
    assert words.startswith("Evaluation of runs/f/model on birds runs/f/model on data/birds, split")
    assert "top-1 50.0 %" in words
    assert "Nothing reported" not in words
