import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_models import SIZES
from videomae import hub
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, VideoError, WeightsError
from videomae.inference import predict
from videomae.inference.predict import Classification, Embedding
from videomae.inference.reconstruct import Reconstruction, reconstruct
from videomae.masking import random_mask, tube_mask
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.sampling import clip_indices
from videomae.rendering.actions import CLASSES, render_clip
from videomae.video.decoder import Frames
from videomae.video.reader import BadVideo, probe, read_frames
from videomae.video.writer import write_video

TINY: dict[str, Any] = {**SIZES, "patch_size": 4, "num_frames": 8, "frame_stride": 2}
LABELS = ["run", "jump", "fall"]


@pytest.fixture
def classifier() -> VideoMAEForVideoClassification:
    config = VideoMAEConfig(**TINY, id2label=dict(enumerate(LABELS)))
    model = VideoMAEForVideoClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    assert model.fc_norm is not None
    torch.nn.init.normal_(model.fc_norm.weight)
    return model


@pytest.fixture
def pretrained() -> VideoMAEForPreTraining:
    model = VideoMAEForPreTraining(VideoMAEConfig(**TINY, use_mean_pooling=False)).eval()
    assert model.videomae.layernorm is not None
    torch.nn.init.normal_(model.videomae.layernorm.weight)
    return model


@pytest.fixture
def folder(classifier: VideoMAEForVideoClassification, tmp_path: Path) -> Path:
    classifier.save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("films")
    return [
        write_video(place / f"{motion}.mp4", render_clip(motion, seed=1, size=24), fps=16)
        for motion in ("walk", "throw", "take_off_hat")
    ]


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video at all")
    return path


def pixels_of(path: Path, **options: Any) -> torch.Tensor:
    """The centred clip of a video as the models above are to see it: (1, T, C, H, W)."""
    frames = read_frames(path, clip_indices(32, num_frames=8, frame_stride=2))
    processor = VideoMAEImageProcessor(size=16, crop_size=16, **options)
    pixels: torch.Tensor = processor(list(frames), return_tensors="pt").pixel_values
    return pixels


def test_a_file_is_classified_as_by_hand(
    folder: Path, classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    result = predict.classify(films[0], model=folder, dtype="float32")
    with torch.no_grad():
        logits = classifier(pixels_of(films[0])).logits
    np.testing.assert_allclose(result.logits, logits.numpy(), atol=1e-5)
    order = logits[0].argsort(descending=True).tolist()
    assert isinstance(result, Classification)
    assert result.path == films[0]
    assert result.labels == tuple(LABELS[index] for index in order)
    assert result.scores == pytest.approx(logits.softmax(1)[0, order].tolist(), abs=1e-5)
    assert sum(result.scores) == pytest.approx(1)
    assert repr(result).startswith(f"Classification(path={films[0]!r}, labels=('")


def test_one_gives_one_a_list_a_list_and_an_iterator_an_iterator(
    classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    one = predict.classify(str(films[1]), model=classifier, top_k=1)
    several = predict.classify(films, model=classifier, top_k=1)
    lazily = predict.classify(iter(films), model=classifier, top_k=1, batch_size=2)
    assert isinstance(several, list)
    assert isinstance(lazily, Iterator)
    assert [result.path for result in several] == films
    assert several[1].labels == one.labels
    for first, second in zip(several, lazily, strict=True):
        np.testing.assert_allclose(first.logits, second.logits, atol=1e-5)
    assert predict.classify([], model=classifier) == []


def test_arrays_and_tensors_are_sampled_like_files(
    classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    frames = read_frames(films[0], range(32))
    expected = predict.classify(films[0], model=classifier)
    for video in (frames, torch.from_numpy(frames), frames.transpose(0, 3, 1, 2)):
        result = predict.classify(video, model=classifier)
        assert result.path is None
        np.testing.assert_array_equal(result.logits, expected.logits)


def test_scores_of_several_views_are_averaged_after_the_softmax(
    classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    options: dict[str, Any] = {"model": classifier, "num_clips": 2, "num_crops": 3}
    result = predict.classify(films[0], **options)
    assert result.logits.shape == (6, 3)
    scores = torch.from_numpy(result.logits).softmax(1).mean(0)
    assert result.scores == pytest.approx(scores.sort(descending=True).values.tolist())
    for batch_size in (1, 4, 100):
        again = predict.classify(films, **options, batch_size=batch_size)
        np.testing.assert_allclose(again[0].logits, result.logits, atol=1e-5)


def test_the_stride_of_the_config_can_be_overruled(
    classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    usual = predict.classify(films[0], model=classifier)
    same = predict.classify(films[0], model=classifier, frame_stride=2)
    spread = predict.classify(films[0], model=classifier, frame_stride=None)
    np.testing.assert_array_equal(usual.logits, same.logits)
    assert np.abs(usual.logits - spread.logits).max() > 1e-4


def test_the_processor_beside_the_weights_is_used_and_can_be_overruled(
    folder: Path, classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    other = VideoMAEImageProcessor(size=16, crop_size=16, image_mean=0.1, image_std=0.9)
    expected = predict.classify(films[0], model=classifier, processor=other).logits
    usual = predict.classify(films[0], model=folder, dtype="float32").logits
    assert np.abs(usual - expected).max() > 1e-4
    other.save_pretrained(folder)
    stored = predict.classify(films[0], model=folder, dtype="float32").logits
    np.testing.assert_allclose(stored, expected, atol=1e-6)


def test_bad_videos_raise_or_hold_their_place(
    classifier: VideoMAEForVideoClassification, films: list[Path], bad: Path
) -> None:
    with pytest.raises(VideoError, match=str(bad)):
        predict.classify([films[0], bad], model=classifier)
    mixed = predict.classify(
        [bad, films[0], bad, films[1]], model=classifier, on_error="skip", batch_size=2
    )
    assert [type(result) for result in mixed] == [
        BadVideo, Classification, BadVideo, Classification,
    ]  # fmt: skip
    assert mixed[0].path == bad
    assert str(bad) in mixed[0].reason
    assert predict.classify(bad, model=classifier, on_error="skip") == mixed[0]


def test_bytes_and_open_files_are_single_videos(
    classifier: VideoMAEForVideoClassification,
    pretrained: VideoMAEForPreTraining,
    films: list[Path],
) -> None:
    expected = predict.classify(films[0], model=classifier)
    data = films[0].read_bytes()
    with films[0].open("rb") as file:
        assert predict.classify(file, model=classifier).path == films[0]
        several = predict.classify([file, data, {"bytes": data}], model=classifier)
        for result in (*several, predict.classify(io.BytesIO(data), model=classifier)):
            np.testing.assert_allclose(result.logits, expected.logits, atol=1e-5)
    assert predict.embed(data, model=classifier).features.shape == (16,)
    assert reconstruct(io.BytesIO(data), model=pretrained).path is None
    skipped = predict.classify(b"no video", model=classifier, on_error="skip")
    assert skipped == BadVideo(None, skipped.reason)
    with pytest.raises(VideoError, match="video in memory: cannot be opened"):
        predict.classify(b"no video", model=classifier)


def test_uniform_is_a_stride_and_a_grey_array_a_video(
    classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    spread = predict.classify(films[0], model=classifier, frame_stride=None)
    named = predict.classify(films[0], model=classifier, frame_stride="uniform")
    assert np.array_equal(spread.logits, named.logits)
    with pytest.raises(ConfigError, match="frame_stride='even'; expected a whole number"):
        predict.classify(films[0], model=classifier, frame_stride="even")  # type: ignore[arg-type]
    grey = read_frames(films[0], range(16))[..., 0]
    expected = predict.classify(np.stack([grey] * 3, axis=-1), model=classifier)
    assert np.array_equal(predict.classify(grey, model=classifier).logits, expected.logits)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_scores_mean_what_the_problem_makes_of_them(
    problem: str, classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    classifier.config.problem_type = problem
    result = predict.classify(films[0], model=classifier)
    logits = torch.from_numpy(result.logits)[0].sort(descending=True).values
    expected = logits.sigmoid() if problem.startswith("multi") else logits
    assert result.scores == pytest.approx(expected.tolist())
    assert result.are_shares == problem.startswith("multi")


def test_half_precision_gives_nearly_the_same(folder: Path, films: list[Path]) -> None:
    full = predict.classify(films[0], model=folder, dtype="float32")
    half = predict.classify(films[0], model=folder, dtype="bfloat16")
    np.testing.assert_allclose(half.logits, full.logits, atol=0.1)


def test_pooled_features_are_what_the_head_sees(
    folder: Path, classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    with torch.no_grad():
        tokens = classifier.videomae(pixels_of(films[0])).last_hidden_state
        expected = classifier.pool(tokens)[0].numpy()
    for model in (folder, classifier):
        result = predict.embed(films[0], model=model, dtype="float32")
        assert isinstance(result, Embedding)
        assert result.features.shape == (16,)
        np.testing.assert_allclose(result.features, expected, atol=1e-5)


def test_a_pretrained_encoder_is_normalised_before_the_mean(
    pretrained: VideoMAEForPreTraining, films: list[Path], tmp_path: Path
) -> None:
    with torch.no_grad():
        tokens = pretrained.videomae(pixels_of(films[0])).last_hidden_state[0]
    pretrained.save_pretrained(tmp_path / "whole")
    pretrained.videomae.save_pretrained(tmp_path / "encoder")
    for model in (pretrained, pretrained.videomae, tmp_path / "whole", tmp_path / "encoder"):
        options: dict[str, Any] = {"model": model, "dtype": "float32"}
        pooled = predict.embed(films[0], **options).features
        np.testing.assert_allclose(pooled, tokens.mean(0), atol=1e-5)
        every = predict.embed(films[0], features="tokens", **options).features
        np.testing.assert_allclose(every, tokens, atol=1e-5)
        slices = predict.embed(films[0], features="per_time", **options).features
        assert slices.shape == (4, 16)
        np.testing.assert_allclose(slices[1], tokens[16:32].mean(0), atol=1e-5)


def test_features_of_a_classifier_per_time_and_token(
    folder: Path, classifier: VideoMAEForVideoClassification, films: list[Path]
) -> None:
    assert classifier.fc_norm is not None
    with torch.no_grad():
        tokens = classifier.videomae(pixels_of(films[0])).last_hidden_state[0]
        last = classifier.fc_norm(tokens[48:].mean(0))
    every = predict.embed(films[0], model=folder, features="tokens", dtype="float32").features
    np.testing.assert_allclose(every, tokens, atol=1e-5)
    slices = predict.embed(films[0], model=folder, features="per_time", dtype="float32").features
    np.testing.assert_allclose(slices[3], last, atol=1e-5)


def test_a_fine_tuned_encoder_without_its_head_keeps_its_norm(
    classifier: VideoMAEForVideoClassification, films: list[Path], tmp_path: Path
) -> None:
    headless = VideoMAEForVideoClassification(classifier.config.copy(num_labels=0))
    headless.load_state_dict(classifier.state_dict(), strict=False)
    headless.save_pretrained(tmp_path)
    expected = predict.embed(films[0], model=classifier).features
    found = predict.embed(films[0], model=tmp_path, dtype="float32").features
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_encoder_without_any_norm_gives_plain_means(films: list[Path], tmp_path: Path) -> None:
    encoder = VideoMAEModel(VideoMAEConfig(**TINY)).eval()
    encoder.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = encoder(pixels_of(films[0])).last_hidden_state.mean(1)[0]
    found = predict.embed(films[0], model=tmp_path, dtype="float32").features
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pooled_features_of_several_views_are_averaged(
    classifier: VideoMAEForVideoClassification, films: list[Path], bad: Path
) -> None:
    views = [
        predict.embed(read_frames(films[0], range(*bounds)), model=classifier).features
        for bounds in ((0, 15), (17, 32))  # clips of span 15 at both ends
    ]
    several = predict.embed([films[0], bad], model=classifier, num_clips=2, on_error="skip")
    np.testing.assert_allclose(several[0].features, np.mean(views, axis=0), atol=1e-5)
    assert isinstance(several[1], BadVideo)


def test_a_clip_is_reconstructed_as_by_hand(
    pretrained: VideoMAEForPreTraining, films: list[Path]
) -> None:
    result = reconstruct(films[0], model=pretrained, mask_ratio=0.75, seed=3)
    hidden = tube_mask(
        pretrained.config.grid, 0.75, generator=torch.Generator().manual_seed(3)
    )  # (1, N)
    with torch.no_grad():
        output = pretrained(pixels_of(films[0]), hidden)
    assert isinstance(result, Reconstruction)
    assert result.loss == pytest.approx(output.loss.item(), abs=1e-5)
    assert result.mask.shape == (4, 4, 4)
    assert result.mask.flatten().tolist() == hidden[0].tolist()

    wide = np.repeat(result.mask, 2, axis=0).repeat(4, axis=1).repeat(4, axis=2)  # (T, H, W)
    assert (result.masked[wide] == 128).all()
    for clip in (result.masked, result.reconstructed):
        assert clip.shape == (8, 16, 16, 3)
        np.testing.assert_array_equal(clip[~wide], result.original[~wide])
    plain = VideoMAEImageProcessor(size=16, crop_size=16, do_normalize=False)
    frames = read_frames(films[0], clip_indices(32, num_frames=8, frame_stride=2))
    shown = plain(list(frames), return_tensors="np").pixel_values[0].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(result.original / 255, shown, atol=0.003)


def test_masks_and_seeds_can_be_chosen(
    pretrained: VideoMAEForPreTraining, films: list[Path]
) -> None:
    first, second = reconstruct(films[:2], model=pretrained)
    other = reconstruct(films[0], model=pretrained, seed=1)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert (first.mask != other.mask).any()
    assert first.mask.mean() == pytest.approx(14 / 16)
    mixed = reconstruct(films[0], model=pretrained, mask="random", mask_ratio=0.5)
    expected = random_mask(pretrained.config.grid, 0.5, generator=torch.Generator().manual_seed(0))
    assert mixed.mask.flatten().tolist() == expected[0].tolist()


def test_paper_rendering_borrows_from_hidden_pixels(
    pretrained: VideoMAEForPreTraining, films: list[Path]
) -> None:
    plain = reconstruct(films[0], model=pretrained)
    paper = reconstruct(films[0], model=pretrained, rendering="paper")
    assert plain.loss == paper.loss

    def distance(result: Reconstruction) -> float:
        return float(np.abs(result.reconstructed.astype(int) - result.original).mean())

    assert distance(paper) < distance(plain)


def test_a_model_of_pixels_is_shown_as_it_predicts(
    pretrained: VideoMAEForPreTraining, films: list[Path]
) -> None:
    pretrained.config.norm_pix_loss = False
    plain = reconstruct(films[0], model=pretrained)
    paper = reconstruct(films[0], model=pretrained, rendering="paper")
    np.testing.assert_array_equal(plain.reconstructed, paper.reconstructed)


def test_the_original_is_shown_right_whatever_the_normalisation(
    pretrained: VideoMAEForPreTraining, films: list[Path]
) -> None:
    usual = reconstruct(films[0], model=pretrained)
    for options in ({"image_mean": 0.5, "image_std": 0.5}, {"do_normalize": False}):
        processor = VideoMAEImageProcessor(size=16, crop_size=16, **options)
        other = reconstruct(films[0], model=pretrained, processor=processor)
        np.testing.assert_allclose(other.original, usual.original, atol=1)


def test_a_reconstruction_is_saved_as_strip_or_animation(
    pretrained: VideoMAEForPreTraining, films: list[Path], tmp_path: Path
) -> None:
    result = reconstruct(films[0], model=pretrained)
    with Image.open(result.save(tmp_path / "a.png")) as strip:
        # 8 frames of 16 pixels, enlarged to 96, and three rows with captions.
        assert strip.size == (12 + 8 * 96 + 7 * 4 + 12, 8 + 3 * (96 + 30) + 12)
    for name in ("a.gif", "a.mp4"):
        assert probe(result.save(tmp_path / name, fps=4)).num_frames == 8


def test_models_of_the_wrong_kind_are_refused(
    folder: Path,
    classifier: VideoMAEForVideoClassification,
    pretrained: VideoMAEForPreTraining,
    films: list[Path],
    tmp_path: Path,
) -> None:
    pretrained.save_pretrained(tmp_path / "pretrained")
    with pytest.raises(ConfigError, match="is a VideoMAEForPreTraining, expected a VideoMAEForV"):
        predict.classify(films[0], model=pretrained)
    with pytest.raises(WeightsError, match="holds no trained classifier"):
        predict.classify(films[0], model=tmp_path / "pretrained")
    with pytest.raises(ConfigError, match="Classification, expected a VideoMAEForPreT"):
        reconstruct(films[0], model=classifier)
    with pytest.raises(WeightsError, match="has no decoder"):
        reconstruct(films[0], model=folder)


def test_wrong_arguments_are_explained(
    classifier: VideoMAEForVideoClassification,
    pretrained: VideoMAEForPreTraining,
    films: list[Path],
) -> None:
    for name in ("top_k", "num_clips", "num_crops", "batch_size"):
        with pytest.raises(ConfigError, match=f"{name}=0 is too small; expected at least 1"):
            predict.classify(films[0], model=classifier, **{name: 0})
    with pytest.raises(ConfigError, match="features='token' is not one of pooled, per_time, to"):
        predict.embed(films[0], model=classifier, features="token")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="of 2 clips x 3 crops cannot be averaged; use features="):
        predict.embed(films[0], model=classifier, features="tokens", num_clips=2, num_crops=3)
    with pytest.raises(ConfigError, match=r"mask='tubes' is not one of tube, .*you mean 'tube'"):
        reconstruct(films[0], model=pretrained, mask="tubes")
    with pytest.raises(ConfigError, match="rendering='nice' is not one of plain, paper"):
        reconstruct(films[0], model=pretrained, rendering="nice")  # type: ignore[arg-type]


def test_tuples_may_come_out_of_the_model(
    classifier: VideoMAEForVideoClassification,
    pretrained: VideoMAEForPreTraining,
    films: list[Path],
) -> None:
    classifier.config.return_dict = pretrained.config.return_dict = False
    assert predict.classify(films[0], model=classifier).labels
    assert predict.embed(films[0], model=classifier).features.shape == (16,)
    assert reconstruct(films[0], model=pretrained).loss > 0


def shipped(name: str) -> Path:
    place = hub.resolve_shipped(name)
    assert place is not None, f"src/videomae/assets/{name} is missing: the package must ship it"
    return place


@pytest.fixture(scope="module")
def people() -> dict[str, Frames]:
    """A clip of each class, of people whom the shipped models have not seen."""
    return {name: render_clip(name, seed=[2024, k], split="test") for k, name in enumerate(CLASSES)}


def num_right(clips: list[Frames]) -> int:
    """Clips, one of each class, that the shipped classifier names right."""
    results = predict.classify(clips, model=shipped("actions-tiny"))
    return sum(each.labels[0] == name for each, name in zip(results, CLASSES, strict=True))


def test_the_shipped_model_knows_the_actions(people: dict[str, Frames]) -> None:
    assert num_right(list(people.values())) >= 4  # guessing: 1
    config = json.loads((shipped("actions-tiny") / "config.json").read_text())
    assert sorted(config["label2id"]) == sorted(CLASSES)


def test_the_shipped_model_needs_time(people: dict[str, Frames]) -> None:
    still = [np.repeat(clip[16:17], 32, axis=0) for clip in people.values()]
    assert num_right(still) <= 12  # who knows all pairs: 10


def test_the_shipped_pretrained_model_reconstructs_what_it_cannot_see(
    people: dict[str, Frames],
) -> None:
    results = reconstruct(list(people.values()), model=shipped("actions-tiny-pretrain"))
    assert np.mean([result.loss for result in results]) < 0.9  # to predict nothing costs 0.99
