import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tiny_models import SIZES
from videomae.config import Grid, VideoMAEConfig
from videomae.errors import ConfigError, VideoError, WeightsError
from videomae.inference.engines import Engine, load
from videomae.inference.explain import (
    Explanation,
    attention_heat,
    blocks,
    blurred,
    explain,
    occlusion_heat,
    spread,
)
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.video.reader import BadVideo

# 4 x 4 x 4 tubelets.
TINY: dict[str, Any] = {**SIZES, "patch_size": 4, "num_frames": 8, "frame_stride": 1}
CLIP = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), np.uint8)


def make_classifier(**options: Any) -> VideoMAEForVideoClassification:
    config = VideoMAEConfig(**TINY, id2label={0: "run", 1: "jump", 2: "fall"}, **options)
    model = VideoMAEForVideoClassification(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def classifier() -> VideoMAEForVideoClassification:
    return make_classifier()


def linear(weights: Tensor) -> Engine:
    """An engine whose logits are 0 and the sum of all pixels times weights (T, C, H, W)."""

    def answer(pixels: Tensor) -> Tensor:
        evidence = (pixels * weights).sum((1, 2, 3, 4))
        return torch.stack([torch.zeros_like(evidence), evidence], dim=1)

    model = VideoMAEForVideoClassification(VideoMAEConfig(**TINY, num_labels=2)).eval()
    return Engine("torch", model, torch.device("cpu"), torch.float32, answer)


def test_blocks_overlap_by_half_and_cover_the_grid() -> None:
    sides = [(part.start, part.stop) for _, _, part in blocks(Grid(1, 1, 14), 4)]
    assert sides == [(0, 4), (2, 6), (4, 8), (6, 10), (8, 12), (10, 14)]
    assert len(blocks(Grid(8, 14, 14), 4)) == 7 * 6 * 6
    assert blocks(Grid(2, 3, 4), 1) == [(slice(0, 2), slice(0, 3), slice(0, 4))]
    assert len(blocks(Grid(2, 3, 4), 9)) == 2 * 3 * 4  # single tubelets
    sides = [(part.start, part.stop) for _, _, part in blocks(Grid(1, 1, 5), 2)]
    assert sides == [(0, 3), (1, 4), (2, 5)]


def test_a_tubelet_gets_the_mean_of_the_blocks_that_hold_it() -> None:
    grid = Grid(1, 1, 4)
    heat = spread(torch.tensor([1.0, 3.0, 5.0]), blocks(grid, 2), grid)
    assert heat.tolist() == [[[1, 2, 4, 5]]]


def test_what_hides_a_block_has_no_motion_and_no_detail() -> None:
    pixels = torch.randn(1, 8, 3, 16, 16)
    hidden = blurred(pixels)
    assert hidden.shape == pixels.shape
    assert (hidden == hidden[:, :1]).all()
    torch.testing.assert_close(hidden.mean((1, 3, 4)), pixels.mean((1, 3, 4)), atol=0.03, rtol=0)
    torch.testing.assert_close(blurred(torch.full_like(pixels, 0.5)), torch.full_like(pixels, 0.5))


def test_occlusion_finds_the_evidence_of_a_linear_model_exactly() -> None:
    weights = torch.zeros(8, 3, 16, 16)
    weights[2:4, :, 8:12, 12:16] = 1.0  # slice 1, row 2, column 3
    pixels = torch.randn(1, 8, 3, 16, 16)
    lost = ((pixels[0] - blurred(pixels)[0]) * weights).sum()
    heat = occlusion_heat(pixels, linear(weights), 1, parts=4, batch_size=7)
    assert heat.shape == (4, 4, 4)
    assert heat[1, 2, 3].item() == pytest.approx(lost.item(), abs=1e-4)
    heat[1, 2, 3] = 0
    assert heat.abs().max() < 1e-4
    assert occlusion_heat(pixels, linear(weights), 0).abs().max() == 0  # the other label


def test_larger_blocks_are_hot_around_the_evidence() -> None:
    weights = torch.zeros(8, 3, 16, 16)
    weights[2:4, :, 4:8, 8:12] = 1.0  # slice 1, row 1, column 2
    pixels = torch.zeros(1, 8, 3, 16, 16)
    pixels[0, 2:4] = 1.0
    heat = occlusion_heat(pixels, linear(weights), 1, parts=2)
    assert heat[1, 1, 2] == heat.max()
    assert (heat[3] == 0).all()


@pytest.mark.parametrize("pooled", [True, False])
def test_attention_follows_the_published_rule(pooled: bool) -> None:
    model = make_classifier(use_mean_pooling=pooled)
    pixels = torch.randn(1, 8, 3, 16, 16)
    heat = attention_heat(pixels, load(model), 2)
    # As it is written in the paper, with whole matrices.
    output = model(pixels, output_attentions=True)
    assert output.attentions is not None
    gradients = torch.autograd.grad(output.logits[0, 2], output.attentions)
    relevance = torch.eye(64)
    for weight, gradient in zip(output.attentions, gradients, strict=True):
        relevance = relevance + (gradient * weight)[0].clamp_min(0).mean(0) @ relevance
    seen = relevance.mean(0) - 1 / 64 if pooled else relevance[0] - torch.eye(64)[0]
    torch.testing.assert_close(heat.flatten(), seen.detach(), atol=1e-6, rtol=1e-4)
    assert heat.max() > 0


def test_attention_needs_no_weights_that_learn(classifier: VideoMAEForVideoClassification) -> None:
    expected = explain(CLIP, model=classifier, method="attention").heat
    classifier.requires_grad_(False)
    assert (explain(CLIP, model=classifier, method="attention").heat == expected).all()
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_the_likeliest_label_is_explained_or_another(
    classifier: VideoMAEForVideoClassification,
) -> None:
    from videomae.inference.predict import classify

    best = classify(CLIP, model=classifier)
    found = explain(CLIP, model=classifier)
    assert (found.label, found.method) == (best.labels[0], "occlusion")
    assert found.score == pytest.approx(best.scores[0], abs=1e-6)
    assert found.heat.shape == (4, 4, 4)
    assert found.frames.shape == (8, 16, 16, 3)
    assert np.abs(found.frames.astype(int) - CLIP).max() <= 1
    other = explain(CLIP, model=classifier, label=best.labels[2])
    assert other.score == pytest.approx(best.scores[2], abs=1e-6)
    assert not np.allclose(other.heat, found.heat)


def test_batches_do_not_change_the_heat(classifier: VideoMAEForVideoClassification) -> None:
    one, many = (explain(CLIP, model=classifier, batch_size=size).heat for size in (1, 50))
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_lists_and_bad_videos_keep_their_places(
    classifier: VideoMAEForVideoClassification, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad, good = explain([tmp_path / "bad.mp4", CLIP], model=classifier, on_error="skip")
    assert isinstance(bad, BadVideo)
    assert isinstance(good, Explanation)
    with pytest.raises(VideoError):
        explain(tmp_path / "bad.mp4", model=classifier)


def test_a_regression_has_values_for_scores() -> None:
    config = VideoMAEConfig(**TINY, num_labels=1, problem_type="regression")
    found = explain(CLIP, model=VideoMAEForVideoClassification(config))
    assert (found.label, found.shown_score) == ("LABEL_0", f"{found.score:.4g}")


def test_pictures_and_numbers(tmp_path: Path) -> None:
    heat = np.zeros((4, 4, 4), np.float32)
    heat[1, 2, 3], heat[0, 0, 0] = 0.5, -9
    found = Explanation(None, "run", 0.75, "occlusion", heat, CLIP)
    assert found.hottest == (1, 2, 3)
    record = json.loads(json.dumps(found.record()))
    assert {**record, "heat": 0} == {
        "label": "run",
        "score": 0.75,
        "method": "occlusion",
        "grid": [4, 4, 4],
        "hottest": [1, 2, 3],
        "heat": 0,
    }
    assert record["heat"][1][2] == [0, 0, 0, 0.5]
    with Image.open(found.save(tmp_path / "a.gif")) as image:
        assert getattr(image, "n_frames", 0) == 8
    assert found.save(tmp_path / "a.mp4").stat().st_size > 1000
    with Image.open(found.save(tmp_path / "a.png")) as image:
        assert image.width == 8 * 96 + 7 * 4 + 2 * 12
    with pytest.raises(ConfigError, match=r"ends in '.jpg'; name a file that ends in .png or"):
        found.save(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "jumps"}, r"label='jumps' is none of the 3 labels \(run, jump, fall\); did you "
                             r"mean 'jump'\?"),
        ({"method": "gradient"}, r"method='gradient'"),
        ({"parts": 0}, r"parts=0"),
        ({"method": "attention", "engine": "onnxruntime"},
         r"method='attention' needs gradients, which engine='onnxruntime' does not compute; use "
         r"engine='torch', or method='occlusion'"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(
    classifier: VideoMAEForVideoClassification, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        explain(CLIP, model=classifier, **options)


def test_a_model_without_labels_is_refused() -> None:
    with pytest.raises(WeightsError, match="actions-tiny-pretrain holds no trained classifier"):
        explain(CLIP, model="actions-tiny-pretrain")
    model = VideoMAEForPreTraining(VideoMAEConfig(**TINY, num_labels=2))
    with pytest.raises(ConfigError, match="expected a VideoMAEForVideoClassification"):
        explain(CLIP, model=model)


def test_too_little_memory_for_attention_is_said(
    classifier: VideoMAEForVideoClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grad(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.autograd, "grad", grad)
    with pytest.raises(
        ConfigError, match=r"attention of 64 tokens in 2 layers.*method='occlusion'"
    ):
        explain(CLIP, model=classifier, method="attention")
