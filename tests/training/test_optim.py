import pytest
import torch

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.model.modeling import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.training.optim import (
    layer_of,
    lr_at,
    make_ema,
    parameter_groups,
    set_lr,
)


def test_lr_rises_linearly_then_falls_as_half_a_cosine() -> None:
    curve = [lr_at(s, peak=1.0, floor=0.2, num_warmup=2, num_steps=6) for s in range(8)]
    # cos(0), cos(pi/4), cos(pi/2), cos(3pi/4), cos(pi) over 0.2..1, and the floor from then on
    assert curve == pytest.approx([0, 0.5, 1, 0.882843, 0.6, 0.317157, 0.2, 0.2], abs=1e-6)


def test_lr_without_warmup_begins_at_the_peak() -> None:
    assert lr_at(0, peak=1.0, floor=0.0, num_warmup=0, num_steps=10) == 1.0


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("videomae.embeddings.patch_embeddings.projection.weight", 0),
        ("videomae.encoder.layer.0.attention.attention.query.weight", 1),
        ("videomae.encoder.layer.11.output.dense.bias", 12),
        ("fc_norm.weight", 13),
        ("classifier.weight", 13),
    ],
)
def test_layers_are_counted_from_the_embedding(name: str, layer: int) -> None:
    assert layer_of(name, 12) == layer


def test_groups_scale_by_depth_and_spare_vectors_from_decay() -> None:
    config = VideoMAEConfig.preset("tiny", num_hidden_layers=2, num_labels=3)
    model = VideoMAEForVideoClassification(config)
    groups = parameter_groups(model, weight_decay=0.05, num_layers=2, layer_decay=0.5)
    # The published scale is layer_decay ** (L + 1 - layer): 1/8 for the embedding, 1 for the head.
    assert sorted({g["lr_scale"] for g in groups}) == [0.125, 0.25, 0.5, 1.0]
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.05}
    together = [p for g in groups for p in g["params"]]
    assert len(together) == len(list(model.parameters()))
    assert {id(p) for p in together} == {id(p) for p in model.parameters()}


def test_the_mask_token_is_not_decayed() -> None:
    model = VideoMAEForPreTraining(VideoMAEConfig.preset("tiny", num_hidden_layers=1))
    groups = parameter_groups(model, weight_decay=0.05, num_layers=1)
    holding = [g for g in groups if any(p is model.mask_token for p in g["params"])]
    assert [g["weight_decay"] for g in holding] == [0.0]


def test_frozen_parameters_are_left_out() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1, num_layers=1)
    assert [len(g["params"]) for g in groups] == [1]


def test_set_lr_gives_each_group_its_share() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW(
        [{"params": [w], "lr_scale": s} for w, s in zip(weights, (0.5, 1.0), strict=True)]
    )
    set_lr(optimizer, 0.2)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.2]


def test_the_running_mean_follows_the_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = make_ema(model, 0.75)
    model.weight.data.fill_(2.0)
    ema.update_parameters(model)  # 0.75 * 1 + 0.25 * 2
    assert ema.module.weight.item() == 1.25
    other = make_ema(model, 0.75)
    other.module.load_state_dict(ema.module.state_dict())
    assert other.module.weight.item() == 1.25
    other.update_parameters(model)
    assert other.module.weight.item() == 0.75 * 1.25 + 0.25 * 2


def test_a_running_mean_needs_a_decay_between_0_and_1() -> None:
    with pytest.raises(ConfigError, match=r"ema_decay=1\.0 must lie between 0 and 1"):
        make_ema(torch.nn.Linear(1, 1), 1.0)
