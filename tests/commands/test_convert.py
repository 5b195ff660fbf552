"""Conversion: what comes out is what went in, for transformers and for the original code."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from videomae.commands import convert as command
from videomae.commands.convert import Conversion
from videomae.commands.flags import Convert
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.video.reader import read_frames
from videomae.video.writer import write_video
from videomae.weights.checkpoint import save_pth, save_safetensors

HEADS = {"num_attention_heads": 3, "decoder_num_attention_heads": 3}
NAMES = ["v1_pretrain_tiny", "v1_finetune_tiny", "v2_pretrain_tiny", "v2_finetune_tiny"]


def convert(source: Path, destination: Path, **options: Any) -> Conversion:
    return command.convert(Convert(str(source), destination, **options))


def config_path(folder: Path, **fields: Any) -> Path:
    """A config.json for the stored cases, which were made for 32 pixels."""
    path = folder / "described.json"
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=192,
        layer_norm_eps=1e-6,
        pooled_norm_eps=1e-6,
        **fields,
    )
    path.write_text(config.to_json_string())
    return path


@pytest.mark.parametrize("name", NAMES)
def test_to_transformers_and_back_is_bit_equal(
    name: str, reference_dir: Path, tmp_path: Path
) -> None:
    source = reference_dir / f"{name}.pth"
    there = convert(source, tmp_path / "hf", **HEADS)
    assert there.path == tmp_path / "hf"
    assert sorted(path.name for path in there.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    back = convert(there.path, tmp_path / "back.pth", to="v1")
    assert there.model_class == back.model_class
    assert there.report.newly_initialised == back.report.unused == ()
    content = torch.load(source, weights_only=True)
    before = content.get("model", content.get("module"))
    after = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(after) == ["model"]
    assert after["model"].keys() == before.keys()
    for key in before:
        assert torch.equal(after["model"][key], before[key]), key


def test_transformers_gives_the_stored_outputs(reference_dir: Path, tmp_path: Path) -> None:
    config = config_path(tmp_path, num_labels=7)
    convert(reference_dir / "v1_finetune_tiny.pth", tmp_path / "hf", config=config)
    model = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path / "hf")
    case = np.load(reference_dir / "v1_finetune_tiny.npz")
    with torch.no_grad():
        logits = model(torch.from_numpy(case["pixel_values"])).logits
    torch.testing.assert_close(logits, torch.from_numpy(case["logits"]), atol=1e-4, rtol=0)


def test_the_pipeline_of_transformers_opens_it(reference_dir: Path, tmp_path: Path) -> None:
    """It reads the first 16 frames of a file, with the processor written beside the weights."""
    config = config_path(tmp_path, num_labels=7)
    source = reference_dir / "v1_finetune_tiny.pth"
    folder = convert(source, tmp_path / "hf", config=config).path
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (16, 8, 8, 3), dtype=np.uint8)
    write_video(tmp_path / "x.mp4", coarse.repeat(8, 1).repeat(8, 2), fps=16)
    classify = transformers.pipeline("video-classification", model=str(folder), device="cpu")
    classify.video_processor = None  # decodes by torchcodec, which this does without
    answer = classify(str(tmp_path / "x.mp4"), top_k=7)

    model = VideoMAEForVideoClassification.from_pretrained(folder)
    frames = list(read_frames(tmp_path / "x.mp4", range(16)))
    clip = VideoMAEImageProcessor.from_pretrained(folder)(frames, return_tensors="pt")
    with torch.no_grad():
        scores = model(clip.pixel_values).logits[0].softmax(-1)
    expected = {model.config.id2label[i]: score.item() for i, score in enumerate(scores)}
    got = {entry["label"]: entry["score"] for entry in answer}
    assert got == pytest.approx(expected, abs=1e-3)  # a grey level of a pixel moves 1e-4


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("v1_pretrain_tiny", VideoMAEForPreTraining),
        ("v1_finetune_tiny", VideoMAEForVideoClassification),
    ],
)
def test_the_kind_of_model_follows_from_the_tensors(
    name: str, kind: type, reference_dir: Path, tmp_path: Path
) -> None:
    result = convert(reference_dir / f"{name}.pth", tmp_path / "hf", **HEADS)
    assert result.model_class == kind.__name__
    written = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert written["architectures"] == [kind.__name__]
    assert written["layer_norm_eps"] == written["pooled_norm_eps"] == 1e-6


def test_an_encoder_with_a_pooled_norm_and_no_head(reference_dir: Path, tmp_path: Path) -> None:
    """As the V2 hub repositories: `logits` are then the pooled features, in transformers too."""
    content = torch.load(reference_dir / "v1_finetune_tiny.pth", weights_only=True)["module"]
    raw = {key: value for key, value in content.items() if "head" not in key}
    save_pth(tmp_path / "encoder.pth", raw)
    config = config_path(tmp_path)
    result = convert(tmp_path / "encoder.pth", tmp_path / "hf", config=config)
    assert result.config.num_labels == 0
    case = np.load(reference_dir / "v1_finetune_tiny.npz")
    clip, pooled = torch.from_numpy(case["pixel_values"]), torch.from_numpy(case["pooled"])
    for library in (VideoMAEForVideoClassification, transformers.VideoMAEForVideoClassification):
        model: Any = library
        with torch.no_grad():
            features = model.from_pretrained(tmp_path / "hf")(clip).logits
        torch.testing.assert_close(features, pooled, atol=1e-4, rtol=0)
    convert(tmp_path / "hf", tmp_path / "back.pth", to="v1")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert back.keys() == raw.keys()


def test_a_bare_encoder(reference_dir: Path, tmp_path: Path) -> None:
    content = torch.load(reference_dir / "v1_pretrain_tiny.pth", weights_only=True)["model"]
    raw = {
        key.removeprefix("encoder."): value
        for key, value in content.items()
        if key.startswith("encoder.")
    }
    save_pth(tmp_path / "encoder.pth", raw)
    result = convert(tmp_path / "encoder.pth", tmp_path / "hf", num_attention_heads=3)
    assert result.model_class == "VideoMAEModel"
    convert(tmp_path / "hf", tmp_path / "back.pth", to="v1")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert back.keys() == raw.keys()
    assert all(torch.equal(back[key], raw[key]) for key in raw)


def test_an_image_model_becomes_an_encoder_of_videos(tmp_path: Path) -> None:
    config = transformers.ViTMAEConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
    )
    transformers.ViTMAEModel(config).save_pretrained(tmp_path / "image")
    (tmp_path / "image" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor"}'
    )
    with pytest.warns(UserWarning, match="an image model"):
        result = convert(tmp_path / "image", tmp_path / "hf")
    assert result.model_class == "VideoMAEModel"
    assert "embeddings.cls_token" in result.report.left_out
    stored = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert stored["image_processor_type"] == "VideoMAEImageProcessor"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = VideoMAEModel.from_pretrained(tmp_path / "hf")
    theirs = transformers.VideoMAEModel.from_pretrained(tmp_path / "hf").eval()
    clip = torch.randn(1, 16, 3, 32, 32)
    with torch.no_grad():
        expected = theirs(clip).last_hidden_state
        torch.testing.assert_close(ours(clip).last_hidden_state, expected, atol=1e-5, rtol=0)


def test_the_dtype_stays(reference_dir: Path, tmp_path: Path) -> None:
    content = torch.load(reference_dir / "v1_finetune_tiny.pth", weights_only=True)["module"]
    save_pth(tmp_path / "half.pth", {key: value.half() for key, value in content.items()})
    convert(tmp_path / "half.pth", tmp_path / "hf", **HEADS)
    tensors = safetensors.torch.load_file(tmp_path / "hf" / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "float16"


def test_the_sources_own_processor_is_kept(reference_dir: Path, tmp_path: Path) -> None:
    first = convert(reference_dir / "v1_finetune_tiny.pth", tmp_path / "one", **HEADS).path
    made = json.loads((first / "preprocessor_config.json").read_text())
    assert made["crop_size"] == {"height": 224, "width": 224}
    assert made["image_mean"] == [0.485, 0.456, 0.406]
    (first / "preprocessor_config.json").write_text('{"image_mean": 0.5}')
    for target in (tmp_path / "two", first):  # elsewhere, and in place
        convert(first, target)
        assert (target / "preprocessor_config.json").read_text() == '{"image_mean": 0.5}'


def test_refusals_before_anything_is_written(reference_dir: Path, tmp_path: Path) -> None:
    source = reference_dir / "v1_finetune_tiny.pth"
    taken = tmp_path / "file"
    taken.write_text("")
    for destination, to, message in (
        (taken, "hf", "is a file; to='hf' writes a folder"),
        (tmp_path / "x", "v1", r"must end in \.pth"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert(source, destination, to=to, **HEADS)
    with pytest.raises(WeightsError, match="does not say how many heads"):
        convert(source, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_resized_positions_have_no_original_format(tmp_path: Path) -> None:
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        position_grid=(2, 2, 2),  # type: ignore[arg-type]
    )
    folder = tmp_path / "resized"
    config.save_pretrained(folder)
    save_safetensors(folder / "model.safetensors", VideoMAEModel(config).state_dict())
    with pytest.raises(ConfigError, match=r"positions resized to \(8, 4, 4\) tubelets, which the"):
        convert(folder, tmp_path / "x.pth", to="v1")
