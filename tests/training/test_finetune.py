import contextlib
import dataclasses
import json
import math
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Video, Videos, load_videos, write_manifest
from videomae.errors import ConfigError
from videomae.evaluation import evaluate
from videomae.inference.predict import classify
from videomae.inference.reconstruct import reconstruct
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.processing.views import find_processor
from videomae.report.record import read_log
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.training.checkpoint import checkpoint_paths
from videomae.training.finetune import (
    class_weights,
    finetune,
    make_model,
    make_targets,
    problem_loss,
)
from videomae.training.pretrain import pretrain


@pytest.fixture
def settings(videos_dir: Path, tmp_path: Path, small: dict[str, Any]) -> FinetuneSettings:
    return FinetuneSettings(
        data=videos_dir,
        eval_data=videos_dir,
        output=tmp_path / "run",
        epochs=2,
        warmup_epochs=0.0,
        lr=0.1,
        **small,
    )


def test_a_run_leaves_a_model_that_knows_its_classes(settings: FinetuneSettings) -> None:
    evaluation = finetune(settings)
    assert evaluation is not None
    assert evaluation.num_videos == 10
    model = VideoMAEForVideoClassification.from_pretrained(settings.output / "model")
    assert model.config.id2label == {0: "throw", 1: "walk"}
    assert model.config.use_mean_pooling
    results = json.loads((settings.output / "results.json").read_text())
    assert results["top1"] == evaluation.top1
    assert pq.read_table(settings.output / "predictions.parquet").num_rows == 10
    assert (settings.output / "confusion.png").is_file()
    assert (settings.output / "index.html").is_file()
    assert not (settings.output / "best").exists()  # nothing to choose from


def test_a_run_ends_well_whatever_its_files_are_called_and_its_reports_do(
    settings: FinetuneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(settings.data, data)
    video = next(data.glob("throw/*.mp4"))
    video.rename(video.with_name(os.fsdecode(b"caf\xe9.mp4")))
    (data / "walk").rename(data / os.fsdecode(b"caf\xe9"))
    settings = dataclasses.replace(settings, data=data, eval_data=data, epochs=1)
    monkeypatch.setattr(evaluate, "plot_confusion", lambda *_, **__: 1 / 0)
    with pytest.warns(UserWarning, match=r"confusion\.png could not be written \(ZeroDivision"):
        assert finetune(settings) is not None
    model = VideoMAEForVideoClassification.from_pretrained(settings.output / "model")
    assert sorted(model.config.id2label.values()) == [r"caf\xe9", "throw"]
    paths = pq.read_table(settings.output / "predictions.parquet")["path"].to_pylist()
    assert [path for path in paths if path.endswith(r"caf\xe9.mp4")]
    assert r"caf\xe9" in (settings.output / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("num_channels", [1, 4])
def test_models_of_other_channels_go_all_the_way(
    settings: FinetuneSettings, small: dict[str, Any], num_channels: int, tmp_path: Path
) -> None:
    config = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_channels=num_channels)
    start = str(tmp_path / "start")
    VideoMAEForPreTraining(config).save_pretrained(start)
    first = PretrainSettings(
        data=settings.data, init=start, output=tmp_path / "first", epochs=1, mask_ratio=0.5, **small
    )
    pretrained = pretrain(first)
    assert len(list(first.output.glob("reconstructions/*.png"))) == 1
    video = next(settings.data.glob("*/*.mp4"))
    made = reconstruct(video, model=pretrained, mask_ratio=0.5, engine="torch", dtype="float32")
    assert made.original.shape == (4, 16, 16, 3)
    evaluation = finetune(dataclasses.replace(settings, init=str(pretrained), epochs=1))
    assert evaluation is not None
    folder = settings.output / "model"
    assert find_processor(folder, config) == find_processor(pretrained, config)
    assert find_processor(folder, config).size == {"shortest_edge": 16}
    path = evaluation.videos.items[3].path
    answer = classify(path, model=folder, engine="torch", dtype="float32")
    expected = evaluation.scores[3].sort(descending=True).values.tolist()
    assert answer.scores == pytest.approx(expected, rel=1e-5)


def test_ten_videos_can_be_learned_by_heart(settings: FinetuneSettings) -> None:
    evaluation = finetune(
        dataclasses.replace(
            settings, epochs=60, crop_scales=(1.0,), drop_path_rate=0.0, label_smoothing=0.0
        )
    )
    assert evaluation is not None
    assert evaluation.top1 == 100


def test_evaluation_in_between_is_logged(settings: FinetuneSettings) -> None:
    finetune(dataclasses.replace(settings, eval_every_epochs=1))
    rows = [row for row in read_log(settings.output) if "top1" in row]
    assert [row["epoch"] for row in rows] == [1, 2]
    best = VideoMAEForVideoClassification.from_pretrained(settings.output / "best")
    assert best.num_labels == 2


def test_a_resumed_run_ends_the_same(settings: FinetuneSettings, tmp_path: Path) -> None:
    finetune(dataclasses.replace(settings, drop_path_rate=0.5))
    broken = dataclasses.replace(
        settings, drop_path_rate=0.5, output=tmp_path / "broken", save_every_steps=3
    )
    finetune(broken)
    # As if killed after step 4: the checkpoint of step 3 is what is left.
    one = dataclasses.replace(broken, output=tmp_path / "again", save_every_steps=1)
    shutil.copytree(broken.output, one.output)
    # How a head begins says nothing to a run that has begun.
    finetune(dataclasses.replace(one, resume=True, head_scale=0.5))
    first = VideoMAEForVideoClassification.from_pretrained(settings.output / "model").state_dict()
    last = VideoMAEForVideoClassification.from_pretrained(one.output / "model").state_dict()
    assert all(torch.equal(first[name], last[name]) for name in first)


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_in", ["evaluate_model", "save_model", "write_predictions"])
def test_what_an_epochs_end_was_killed_in_is_made_when_the_run_goes_on(
    killed_in: str, settings: FinetuneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(settings, eval_every_epochs=1, save_every_steps=1, tracker="none")
    finetune(whole)
    broken = dataclasses.replace(whole, output=tmp_path / "broken")

    def killing(*_: Any, **__: Any) -> Any:
        raise _KilledError

    place = "evaluation.metrics" if killed_in == "write_predictions" else "training.finetune"
    with monkeypatch.context() as patch:
        patch.setattr(f"videomae.{place}.{killed_in}", killing)
        patch.setattr("videomae.evaluation.evaluate.going_on", lambda _: contextlib.nullcontext())
        with pytest.raises(_KilledError):
            finetune(broken)
    finetune(dataclasses.replace(broken, resume=True))
    names = {p.relative_to(whole.output) for p in whole.output.rglob("*")}
    assert {p.relative_to(broken.output) for p in broken.output.rglob("*")} == names
    for name in ("best", "model"):
        file = Path(name, "model.safetensors")
        assert (broken.output / file).read_bytes() == (whole.output / file).read_bytes()
    scores = [
        [(row["step"], row["score"]) for row in read_log(each.output) if "score" in row]
        for each in (whole, broken)
    ]
    assert scores[0] == scores[1]


def test_the_encoder_comes_from_pre_training(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path, small: dict[str, Any]
) -> None:
    folder = pretrain(
        PretrainSettings(
            data=videos_dir, output=tmp_path / "pre", epochs=1, mask_ratio=0.5, fps=4, **small
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fresh head is no news
        model, _ = make_model(
            dataclasses.replace(settings, init=str(folder)), load_videos(videos_dir)
        )
    assert model.config.drop_path_rate == 0.1
    assert model.config.fps == 4
    assert model.fc_norm is not None
    assert model.num_labels == 2
    kept, _ = make_model(
        dataclasses.replace(settings, init=str(folder), keep_final_norm=True),
        load_videos(videos_dir),
    )
    norm = VideoMAEForPreTraining.from_pretrained(folder).videomae.layernorm
    assert kept.fc_norm is not None
    assert norm is not None
    assert torch.equal(kept.fc_norm.bias, norm.bias)


def test_a_new_head_begins_at_its_scale_and_a_trained_one_as_it_is(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path
) -> None:
    videos = load_videos(videos_dir)

    def head(**changes: Any) -> torch.Tensor:
        model, _ = make_model(dataclasses.replace(settings, **changes), videos)
        assert isinstance(model.classifier, torch.nn.Linear)
        return model.classifier.weight

    torch.manual_seed(0)
    whole = head()
    torch.manual_seed(0)
    assert torch.equal(head(head_scale=0.25), whole / 4)

    save, is_new = make_model(settings, videos)
    assert is_new
    save.save_pretrained(tmp_path / "trained")
    again = head(init=str(tmp_path / "trained"), head_scale=0.25)
    assert isinstance(save.classifier, torch.nn.Linear)
    assert torch.equal(again, save.classifier.weight)
    other = dataclasses.replace(videos, classes=("one", "two", "three"))
    made, is_new = make_model(
        dataclasses.replace(settings, init=str(tmp_path / "trained"), head_scale=0.001), other
    )
    assert is_new
    assert isinstance(made.classifier, torch.nn.Linear)
    assert 0 < made.classifier.weight.abs().max() < 1e-4


def test_without_videos_to_evaluate_on_it_says_so_at_both_ends(
    settings: FinetuneSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(dataclasses.replace(settings, eval_data=None)) is None
    said = capsys.readouterr().err
    assert said.count(f"not evaluated: {settings.data} has no val or test split; ") == 2
    page = (settings.output / "index.html").read_text()
    assert "Not evaluated: " in page


def test_one_class_is_not_enough(settings: FinetuneSettings, videos_dir: Path) -> None:
    with pytest.raises(ConfigError, match="has 0 classes, and fine-tuning needs at least 2"):
        finetune(dataclasses.replace(settings, data=videos_dir / "throw"))


def test_the_mean_of_the_weights_is_what_is_saved(
    settings: FinetuneSettings, tmp_path: Path
) -> None:
    finetune(settings)
    averaged = dataclasses.replace(settings, output=tmp_path / "ema", ema_decay=0.5)
    finetune(averaged)
    (*_, last) = checkpoint_paths(averaged.output)
    state = torch.load(last, weights_only=True)
    model = VideoMAEForVideoClassification.from_pretrained(averaged.output / "model").state_dict()
    plain = VideoMAEForVideoClassification.from_pretrained(settings.output / "model").state_dict()
    name = "classifier.weight"
    assert torch.equal(model[name], state["ema"][name])
    assert torch.equal(plain[name], state["model"][name])
    assert not torch.equal(model[name], plain[name])

    # A finished run that is resumed evaluates and saves the same again.
    log = [row for row in read_log(averaged.output) if "score" in row]
    shutil.rmtree(averaged.output / "model")
    finetune(dataclasses.replace(averaged, resume=True))
    again = VideoMAEForVideoClassification.from_pretrained(averaged.output / "model").state_dict()
    assert all(torch.equal(again[name], model[name]) for name in model)
    scores = [row for row in read_log(averaged.output) if "score" in row]
    assert [row["score"] for row in scores] == [row["score"] for row in log]
    # With nothing left to do, it stays as it is.
    files = {path: path.read_bytes() for path in averaged.output.rglob("*") if path.is_file()}
    assert finetune(dataclasses.replace(averaged, resume=True)) is None
    assert all(path.read_bytes() == data for path, data in files.items())


def test_all_augmentations_together_run_and_repeat(
    settings: FinetuneSettings, tmp_path: Path
) -> None:
    strong = dataclasses.replace(
        settings, crop="random_resized", flip=True, rand_augment_ops=4, erase_prob=0.5,
        mixup_alpha=0.8, cutmix_alpha=1.0, num_repeats=2, class_weights="balanced", ema_decay=0.9,
        drop_path_rate=0.2, classifier_dropout=0.3, accumulate=2,
    )  # fmt: skip
    finetune(strong)
    again = dataclasses.replace(strong, output=tmp_path / "again")
    finetune(again)
    losses = [[row["loss"] for row in read_log(s.output) if "loss" in row] for s in (strong, again)]
    assert losses[0] == losses[1]


def manifest(folder: Path, videos_dir: Path, labels: list[str]) -> Path:
    """A data set of the rendered videos with labels of our choice, the last four for testing."""
    paths = sorted(videos_dir.rglob("*.mp4"))
    rows = tuple(
        Video(str(path), label, "train" if number < 6 else "test")
        for number, (path, label) in enumerate(zip(paths, labels, strict=True))
    )
    names = sorted({name for label in labels for name in label.split("|")} - {""})
    folder.mkdir()
    write_manifest(folder, Videos(rows, tuple(names)))
    return folder


def test_several_labels_are_learned_and_measured_by_map(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path
) -> None:
    data = manifest(tmp_path / "m", videos_dir, ["a|b", "a", "b", "c", "a|c", "b|c"] + ["a|b"] * 4)
    evaluation = finetune(
        dataclasses.replace(settings, data=data, eval_data=None, problem="multi_label")
    )
    assert evaluation is not None
    assert set(evaluation.figures()) == {"mean_ap"}
    model = VideoMAEForVideoClassification.from_pretrained(settings.output / "model")
    assert model.config.problem_type == "multi_label_classification"
    assert model.num_labels == 3


def test_numbers_are_learned_from_their_mean_on(
    settings: FinetuneSettings, videos_dir: Path, tmp_path: Path
) -> None:
    data = manifest(tmp_path / "m", videos_dir, [str(60 + k / 2) for k in range(10)])
    regression = dataclasses.replace(settings, data=data, eval_data=None, problem="regression")
    model, _ = make_model(regression, load_videos(data))
    assert model.classifier.bias.tolist() == [pytest.approx(61.25)]
    model.classifier.bias.data.fill_(11.5)
    model.save_pretrained(tmp_path / "trained")
    trained, _ = make_model(
        dataclasses.replace(regression, init=str(tmp_path / "trained")), load_videos(data)
    )
    assert trained.classifier.bias.tolist() == [11.5]  # as it was learned
    evaluation = finetune(regression)
    assert evaluation is not None
    assert evaluation.figures()["mae"] < 5


def test_targets_weights_and_losses_by_hand() -> None:
    settings = FinetuneSettings(label_smoothing=0.2, class_weights="balanced")
    videos = Videos(tuple(Video("x", label) for label in "aaab"), ("a", "b"))
    targets = make_targets(settings, videos)
    torch.testing.assert_close(targets[[0, 3]], torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
    plain = make_targets(dataclasses.replace(settings, label_smoothing=0.0), videos)
    weights = class_weights(settings, plain)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0])
    # even logits: each clip costs ln 2 times the weight of its class; the mean weight is 1
    loss = problem_loss(settings, torch.zeros(4, 2), plain, weights)
    assert loss.item() == pytest.approx(math.log(2))
