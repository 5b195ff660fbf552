"""The stored outputs of the published code: what a model of ours must give for the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from videomae.config import Grid, VideoMAEConfig
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.tubelets import pixel_targets

# As the README of the cases describes them; eps is that of the published code everywhere.
TINY: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 192,
    "decoder_hidden_size": 24,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 96,
    "layer_norm_eps": 1e-6,
    "pooled_norm_eps": 1e-6,
}


def arrays(reference_dir: Path, case: str) -> dict[str, Tensor]:
    with np.load(reference_dir / f"{case}.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(params=["eager", "sdpa"])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("case", "decoder_depth"), [("v1_pretrain_tiny", 1), ("v2_pretrain_tiny", 2)]
)
def test_pretraining(
    case: str, decoder_depth: int, implementation: str, reference_dir: Path
) -> None:
    config = VideoMAEConfig(**TINY, decoder_num_hidden_layers=decoder_depth, use_mean_pooling=False)
    model = VideoMAEForPreTraining.from_pretrained(
        reference_dir / f"{case}.pth", config=config, attn_implementation=implementation
    )
    expected = arrays(reference_dir, case)
    masks = {name: value for name, value in expected.items() if name.endswith("masked_pos")}
    assert len(masks) == (2 if case.startswith("v2") else 1)
    with torch.no_grad():
        output = model(expected["pixel_values"], **masks)
    torch.testing.assert_close(output.logits, expected["logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output.loss, expected["loss"], atol=1e-5, rtol=0)


def test_the_loss_against_raw_pixels(implementation: str, reference_dir: Path) -> None:
    config = VideoMAEConfig(
        **TINY, decoder_num_hidden_layers=1, use_mean_pooling=False, norm_pix_loss=False
    )
    model = VideoMAEForPreTraining.from_pretrained(
        reference_dir / "v1_pretrain_tiny.pth", config=config, attn_implementation=implementation
    )
    expected = arrays(reference_dir, "v1_pretrain_tiny")
    with torch.no_grad():
        output = model(expected["pixel_values"], expected["bool_masked_pos"])
    torch.testing.assert_close(output.logits, expected["logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output.loss, expected["loss_raw_pixels"], atol=1e-5, rtol=0)


def test_the_targets_alone(reference_dir: Path) -> None:
    expected = arrays(reference_dir, "v1_pretrain_tiny")
    grid = Grid(8, 4, 4)
    for normalize, name in ((True, "loss"), (False, "loss_raw_pixels")):
        target = pixel_targets(expected["pixel_values"], grid, normalize=normalize)
        hidden = target[expected["bool_masked_pos"]].view_as(expected["logits"])
        loss = (expected["logits"] - hidden).square().mean()
        torch.testing.assert_close(loss, expected[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["v1_finetune_tiny", "v2_finetune_tiny"])
def test_classification(case: str, implementation: str, reference_dir: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(
        reference_dir / f"{case}.pth",
        config=VideoMAEConfig(**TINY, num_labels=7),
        attn_implementation=implementation,
    )
    expected = arrays(reference_dir, case)
    with torch.no_grad():
        logits = model(expected["pixel_values"]).logits
        pooled = model.pool(model.videomae(expected["pixel_values"]).last_hidden_state)
    torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(pooled, expected["pooled"], atol=1e-4, rtol=0)
