import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Video, Videos, load_videos, write_manifest
from videomae.errors import ConfigError, WeightsError
from videomae.evaluation.evaluate import Evaluation, by_class_number, evaluate, evaluate_model
from videomae.inference.predict import classify
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.processing.views import ViewMaker, find_processor, normalize
from videomae.settings import EvaluateSettings, PretrainSettings
from videomae.training.checkpoint import run_processor
from videomae.training.data import ClipSource
from videomae.video.writer import write_video

CLASSES = ("throw", "walk")
NAN = float("nan")


def make_model(**values: Any) -> VideoMAEForVideoClassification:
    settings = {"id2label": dict(enumerate(CLASSES)), "image_size": 16, **values}
    config = VideoMAEConfig.preset(
        "tiny", num_frames=4, frame_stride=2, num_hidden_layers=1, **settings
    )
    model = VideoMAEForVideoClassification(config)
    assert isinstance(model.classifier, torch.nn.Linear)
    torch.nn.init.normal_(model.classifier.weight)
    return model.eval()


def maker_of(model: VideoMAEForVideoClassification, **options: int) -> ViewMaker:
    return ViewMaker(model.config, find_processor(None, model.config), **options)


@pytest.fixture
def machine() -> Machine:
    return Machine.start("cpu", "float32")


def run(model: VideoMAEForVideoClassification, data: Path, **values: Any) -> Evaluation:
    """Save the model beside the data, and evaluate it as the command does."""
    folder = data.parent / "model"
    model.save_pretrained(folder)
    return evaluate(
        EvaluateSettings(data=data, model=str(folder), device="cpu", dtype="float32", **values)
    )


def by_hand(scores: list[list[float]], labels: list[str], classes: tuple[str, ...]) -> Evaluation:
    items = tuple(Video("x.mp4", label) for label in labels)
    bad = {row: "broken" for row, values in enumerate(scores) if values[0] != values[0]}
    return Evaluation("single_label", Videos(items, classes), 1, 1, torch.tensor(scores), bad)


def test_scores_are_the_mean_softmax_over_views(videos_dir: Path, machine: Machine) -> None:
    videos, model = load_videos(videos_dir), make_model()
    maker = maker_of(model, num_clips=2, num_crops=3)
    evaluation = evaluate_model(model, videos, maker, machine=machine)
    assert (evaluation.num_videos, evaluation.num_views) == (10, 6)
    with torch.no_grad():
        shares = model(maker(videos.items[7].path)).logits.softmax(-1).mean(0)
    torch.testing.assert_close(evaluation.scores[7], shares, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ({}, {"image_mean": 0.5, "image_std": 0.5}),
        ({}, {"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": 1.0}),
        ({"num_channels": 1}, {}),
        ({"num_channels": 4}, {}),
        ({"image_size": (96, 160)}, {}),
    ],
)
def test_classify_evaluate_and_the_loader_see_the_same_pixels(
    values: dict[str, Any], stored: dict[str, Any], tmp_path: Path
) -> None:
    model = make_model(**values)
    config, folder = model.config, tmp_path / "model"
    height, width = config.image_hw
    # The loader of training has nothing to draw where a video is one clip, and to crop of its size.
    sizes = {"throw": (height, width), "walk": (height + 24, width + 20)}
    for name, (high, wide) in sizes.items():
        frames = np.random.default_rng(0).integers(0, 255, (7, high, wide, 3), dtype=np.uint8)
        (tmp_path / "v" / name).mkdir(parents=True)
        write_video(tmp_path / "v" / name / "x.mp4", frames)
    dataclasses.replace(find_processor(None, config), **stored).save_pretrained(folder)

    seen: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, given: Any) -> None:
        if isinstance(module, VideoMAEForVideoClassification):
            seen.append(given[0])  # (B, T, C, H, W)

    with torch.nn.modules.module.register_module_forward_pre_hook(keep):
        evaluation = run(model, tmp_path / "v", num_crops=3, batch_size=3)
        answers = classify(
            [video.path for video in evaluation.videos.items],
            model=folder, num_crops=3, batch_size=3, engine="torch", dtype="float32", top_k=2,
        )  # fmt: skip
    assert len(seen) == 4
    assert all(torch.equal(seen[k], seen[k + 2]) for k in range(2))
    for scores, answer in zip(evaluation.scores, answers, strict=True):
        expected = scores.sort(descending=True).values.tolist()
        assert answer.scores == pytest.approx(expected, rel=1e-5)

    videos = Videos(evaluation.videos.items[:1])
    settings = PretrainSettings(init=str(folder), crop_scales=(1.0,))
    source = ClipSource(videos, config, settings)
    processor = run_processor(settings, config)
    clips = normalize(source.train_clips(0, 0), processor, torch.device("cpu"))
    assert torch.equal(clips, seen[0][:1])


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_batch_size_changes_nothing(
    videos_dir: Path, machine: Machine, batch_size: int
) -> None:
    videos, model = load_videos(videos_dir), make_model()
    maker = maker_of(model)
    one = evaluate_model(model, videos, maker, machine=machine, batch_size=batch_size)
    other = evaluate_model(model, videos, maker, machine=machine, batch_size=4, num_workers=1)
    torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
    again = evaluate_model(model, videos, maker, machine=machine, batch_size=batch_size)
    assert torch.equal(one.scores, again.scores)


def test_the_model_is_left_in_its_mode(videos_dir: Path, machine: Machine) -> None:
    model = make_model().train()
    evaluate_model(model, load_videos(videos_dir), maker_of(model), machine=machine)
    assert model.training


def test_accuracies_counted_by_hand() -> None:
    right = [0.1, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0]  # throw first
    sixth = [0.3, 0.0, 0.2, 0.2, 0.2, 0.1, 0.0]  # throw (1) after 0, 2, 3, 4, 5: not in the top 5
    tie = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]  # goes to the smaller number, walk
    evaluation = by_hand(
        [right, right, sixth, tie, [NAN] * 7] + [tie] * 5,
        ["throw"] * 5 + ["walk"] * 5,
        ("walk", "throw", "a", "b", "c", "d", "e"),
    )
    assert evaluation.top1 == evaluation.score == 70  # 2 + 5 of 10
    assert evaluation.per_class == {"walk": 100, "throw": 40}
    assert evaluation.figures() == {"top1": 70, "top5": 80, "mean_class": 70}  # top5: and the tie
    assert evaluation.confusion[1].tolist() == [2, 2, 0, 0, 0, 0, 0]
    assert str(evaluation) == (
        "top-1 70.00 %, top-5 80.00 %, mean class accuracy 70.00 % on 10 videos, 1 view each; "
        "1 unreadable"
    )


def test_the_most_frequent_confusions_come_first(tmp_path: Path) -> None:
    taken = [0, 1, 1, 1, 0, 0, 0]
    scores = [[float(k == each) for k in range(4)] for each in taken]
    evaluation = by_hand(scores, list("aaabbcc"), tuple("abcd"))
    assert evaluation.confusion.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [2, 0, 0, 0], [0] * 4]
    evaluation.write(tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())["most_confused"]
    assert [tuple(each.values()) for each in found] == [("a", "b", 2), ("c", "a", 2), ("b", "a", 1)]


def test_mean_class_accuracy_weighs_classes_alike() -> None:
    evaluation = by_hand([[1.0, 0.0]] * 4, ["a", "a", "a", "b"], ("a", "b"))
    assert evaluation.figures() == {"top1": 75, "top5": 100, "mean_class": 50}


def test_unreadable_videos_count_as_wrong_and_equal_names_stay_apart(
    videos_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")
    for name in CLASSES:
        (tmp_path / "v" / name / "bad.mp4").write_bytes(b"junk")
        good = next((videos_dir / name).iterdir())
        shutil.copy(good, tmp_path / "v" / name / "good.mp4")
    evaluation = run(make_model(), tmp_path / "v", output=tmp_path / "out")
    assert evaluation.num_videos == 14
    assert sorted(evaluation.bad) == [5, 12]
    assert [evaluation.videos.items[row].label for row in evaluation.bad] == list(CLASSES)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "confusion.png",
        "index.html",
        "mistakes",
        "mistakes.json",
        "predictions.parquet",
        "results.json",
    ]
    figures = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (figures["num_videos"], figures["num_unreadable"]) == (14, 2)
    assert [entry["row"] for entry in figures["unreadable"]] == [5, 12]
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [row["path"] for row in rows] == [v.path for v in evaluation.videos.items]
    assert [k for k, row in enumerate(rows) if row["error"]] == [5, 12]
    assert sum(row["correct"] for row in rows) == round(0.14 * evaluation.top1)
    with Image.open(tmp_path / "out" / "confusion.png") as picture:
        assert picture.width > 300


def test_wrong_answers_are_shown_the_surest_first(videos_dir: Path, tmp_path: Path) -> None:
    model = make_model()
    evaluation = run(model, videos_dir, output=tmp_path)
    found = json.loads((tmp_path / "mistakes.json").read_text())
    wrong = {
        str(video): float(evaluation.scores[row].max())
        for row, video in enumerate(evaluation.videos.items)
        if evaluation.ranks[row] > 0
    }
    assert 0 < found["num_wrong"] == len(wrong)
    shown = found["shown"]
    assert {each["path"]: each["score"] for each in shown} == pytest.approx(wrong, abs=1e-4)
    scores = [each["score"] for each in shown]
    assert scores == sorted(scores, reverse=True)
    with Image.open(tmp_path / shown[0]["picture"]) as picture:
        assert picture.size == (4 * 98 - 2, 96)  # four frames side by side
    page = (tmp_path / "index.html").read_text()
    assert f"<b>{shown[0]['label']}</b>, taken for <b>{shown[0]['predicted']}</b>" in page

    # The next evaluation leaves none of it behind.
    by_hand([[1.0, 0.0]], ["a"], ("a", "b")).write(tmp_path, maker=maker_of(model))
    assert json.loads((tmp_path / "mistakes.json").read_text()) == {"num_wrong": 0, "shown": []}
    assert not (tmp_path / "mistakes").exists()


def test_all_unreadable_is_an_evaluation_too(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "v" / name).mkdir(parents=True)
        (tmp_path / "v" / name / "x.mp4").write_bytes(b"junk")
    evaluation = run(make_model(), tmp_path / "v", output=tmp_path / "out")
    assert evaluation.figures() == {"top1": 0, "top5": 0, "mean_class": 0}
    assert len(evaluation.bad) == 2


def test_several_labels_and_values(videos_dir: Path, tmp_path: Path) -> None:
    items = load_videos(videos_dir).items
    both = tuple(
        Video(v.path, "|".join(CLASSES) if k < 3 else v.label) for k, v in enumerate(items)
    )
    model = make_model(problem_type="multi_label_classification")
    write_manifest(tmp_path / "both", Videos(both, CLASSES))
    evaluation = run(model, tmp_path / "both", output=tmp_path / "out")
    assert evaluation.problem == "multi_label"
    assert evaluation.score == evaluation.figures()["mean_ap"]
    assert 0 < evaluation.score <= 100
    logits = model(maker_of(model)(evaluation.videos.items[0].path)).logits
    torch.testing.assert_close(evaluation.scores[:1], logits.sigmoid(), atol=1e-5, rtol=0)
    assert not (tmp_path / "out" / "confusion.png").exists()

    values = tuple(Video(v.path, str(k / 4)) for k, v in enumerate(items))
    write_manifest(tmp_path / "values", Videos(values))
    model = make_model(problem_type="regression", id2label={0: "value"})
    evaluation = run(model, tmp_path / "values", output=tmp_path / "out2")
    expected = (evaluation.scores[:, 0] - torch.arange(10) / 4).abs().mean()
    assert evaluation.figures()["mae"] == pytest.approx(float(expected), rel=1e-5)
    assert evaluation.score == -evaluation.figures()["mae"]
    assert evaluation.per_class == {}
    assert json.loads((tmp_path / "out2" / "results.json").read_text())["problem"] == "regression"


def test_the_split_is_test_else_val_else_all(videos_dir: Path, tmp_path: Path) -> None:
    for split, label in (("train", "throw"), ("val", "walk")):
        shutil.copytree(videos_dir / label, tmp_path / "v" / split / label)
    model = make_model()
    assert set(run(model, tmp_path / "v").per_class) == {"walk"}
    assert set(run(model, tmp_path / "v", split="train").per_class) == {"throw"}
    shutil.copytree(videos_dir / "throw", tmp_path / "v" / "test" / "throw")
    evaluation = run(model, tmp_path / "v", output=tmp_path / "out")
    assert set(evaluation.per_class) == {"throw"}
    assert json.loads((tmp_path / "out" / "results.json").read_text())["split"] == "test"


def test_frame_stride_takes_the_place_of_the_models(videos_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")
    model, strides = make_model(), ("uniform", 1, 2, None)
    scores = [run(model, tmp_path / "v", frame_stride=stride).scores for stride in strides]
    assert torch.equal(scores[2], scores[3])
    assert not torch.equal(scores[0], scores[2])
    assert not torch.equal(scores[1], scores[2])
    run(model, tmp_path / "v", frame_stride="uniform", output=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["frame_stride"] == "uniform"


def test_fps_takes_the_place_of_the_models(videos_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")  # at 8 frames a second
    model = make_model()
    slow = copy.deepcopy(model)
    slow.config.fps = 2
    own = run(model, tmp_path / "v").scores
    assert torch.equal(own, run(model, tmp_path / "v", fps=8).scores)
    assert torch.equal(own, run(slow, tmp_path / "v", fps="own").scores)
    out = tmp_path / "out"
    assert not torch.equal(own, run(slow, tmp_path / "v", output=out).scores)
    assert json.loads((out / "results.json").read_text())["fps"] == 2


def test_classes_the_model_does_not_know_are_errors(videos_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")
    with pytest.raises(ConfigError, match=r"classes \['walk'\], which the model does not know"):
        run(make_model(id2label={0: "throw", 1: "spin"}), tmp_path / "v")


def test_class_numbers_stand_for_the_models_classes(videos_dir: Path, tmp_path: Path) -> None:
    for number, name in enumerate(CLASSES):
        shutil.copytree(videos_dir / name, tmp_path / "v" / str(1 - number))
    evaluation = run(make_model(), tmp_path / "v")
    assert evaluation.labels.tolist() == [0] * 5 + [1] * 5
    assert evaluation.videos.items[0].label == "throw"
    assert "walk" in str(evaluation.per_class)


def test_only_labels_that_are_all_numbers_and_no_names_are_class_numbers() -> None:
    def numbered(labels: str, names: str) -> list[str] | None:
        items = tuple(Video("x.mp4", label) for label in labels.split())
        found = by_class_number(Videos(items), names.split())
        return [video.label for video in found.items] if found else None

    assert numbered("0 2 1", "a b c") == ["a", "c", "b"]
    assert numbered("007 0|1", "a b c d e f g h") == ["h", "a|b"]
    assert numbered("0 3", "a b c") is None
    assert numbered("0 a", "a b c") is None
    assert numbered("0 1", "1 2 3") is None  # 1 is a name
    assert numbered("-1 1", "a b c") is None
    assert numbered("9" * 5000, "a b c") is None
    assert numbered("", "a b c") is None


def test_a_model_without_names_takes_the_datas(videos_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")
    model = make_model(id2label={0: "LABEL_0", 1: "LABEL_1"})
    with pytest.warns(UserWarning, match=r"no names for its 2 classes.* throw, walk"):
        evaluation = run(model, tmp_path / "v")
    assert set(evaluation.per_class) == set(CLASSES)
    with pytest.raises(ConfigError, match="which the model does not know"):
        run(make_model(id2label={k: f"LABEL_{k}" for k in range(3)}), tmp_path / "v")


def test_an_untrained_head_is_not_evaluated(videos_dir: Path, tmp_path: Path) -> None:
    VideoMAEForPreTraining(make_model().config).save_pretrained(tmp_path / "pretrained")
    with pytest.raises(WeightsError, match="no trained classifier"):
        evaluate(EvaluateSettings(data=videos_dir, model=str(tmp_path / "pretrained")))


def test_wrong_labels_and_numbers_of_outputs_raise_before_the_work(
    videos_dir: Path, machine: Machine
) -> None:
    items, model = load_videos(videos_dir).items, make_model()
    for classes, message in (
        (("a", "b", "c"), "2 outputs and single_label on these videos needs 3"),
        (("a", "b"), "not among the 2 classes"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate_model(model, Videos(items, classes), maker_of(model), machine=machine)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(videos_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(videos_dir, tmp_path / "v")  # 11 videos: an odd number, one of them bad
    (tmp_path / "v" / "throw" / "bad.mp4").write_bytes(b"junk")
    one = run(make_model(), tmp_path / "v", output=tmp_path / "one", batch_size=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "videomae", "evaluate", f"data={tmp_path / 'v'}", "batch_size=2"]
    command += [f"model={tmp_path / 'model'}", "device=cpu", "dtype=float32"]
    done = subprocess.run(
        [*command, f"output={tmp_path / 'two'}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1  # for the unreadable one
    assert done.stdout.count("top-1") == 1
    results = [json.loads((tmp_path / k / "results.json").read_text()) for k in ("one", "two")]
    assert results[0] == results[1]
    rows = [pq.read_table(tmp_path / k / "predictions.parquet").to_pylist() for k in ("one", "two")]
    for alone, shared in zip(*rows, strict=True):
        scores = [row.pop("scores") for row in (alone, shared)]
        best = [row.pop("top5_scores") for row in (alone, shared)]
        assert alone == shared
        assert scores[1] == (scores[0] and pytest.approx(scores[0], abs=1e-6))
        assert best[1] == (best[0] and pytest.approx(best[0], abs=1e-6))
    assert one.num_videos == len(rows[1]) == 11


def test_views_that_agree_are_enough_where_that_is_asked_for(
    videos_dir: Path, tmp_path: Path
) -> None:
    model = make_model()
    whole = run(model, videos_dir, num_clips=3, output=tmp_path / "whole")
    same = run(model, videos_dir, num_clips=3, early_exit=3)
    assert torch.equal(same.scores, whole.scores)
    maker = maker_of(model, num_clips=3)
    early = run(model, videos_dir, num_clips=3, early_exit=2, output=tmp_path / "early")
    for video, score in zip(early.videos.items, early.scores, strict=True):
        views = model(maker(video.path)).logits.softmax(-1).detach()
        agree = views[0].argmax() == views[2].argmax()
        expected = views[[0, 2]].mean(0) if agree else views.mean(0)
        torch.testing.assert_close(score, expected, atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "early" / "results.json").read_text())["early_exit"] == 2
    assert "early_exit" not in json.loads((tmp_path / "whole" / "results.json").read_text())
    several = make_model(problem_type="multi_label_classification")
    with pytest.raises(ConfigError, match="early_exit=2 asks whether views name the same class"):
        run(several, videos_dir, early_exit=2)


def test_merged_tokens_are_the_models_own(videos_dir: Path, tmp_path: Path) -> None:
    model = make_model()
    found = run(model, videos_dir, merge_tokens=2, output=tmp_path / "out")
    plain = run(model, videos_dir, output=tmp_path / "out")  # not from the answers of the other
    assert not torch.equal(found.scores, plain.scores)
    model.set_merge_tokens(2)
    (expected,) = model(maker_of(model)(found.videos.items[0].path)).logits.softmax(-1).detach()
    torch.testing.assert_close(found.scores[0], expected, atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "out" / "results.json").read_text()).get("merge_tokens") is None
