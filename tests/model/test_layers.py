import math
import re
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.model import layers
from videomae.model.layers import (
    ACTIVATIONS,
    VideoMAEIntermediate,
    VideoMAELayer,
    VideoMAESelfAttention,
    run_layer,
)


def layer(drop_path_rate: float = 0.0) -> Any:
    """24 features in 3 heads."""
    return VideoMAELayer(VideoMAEConfig(), 24, 3, 48, drop_path_rate)


def test_drop_path_drops_whole_clips_and_keeps_the_mean() -> None:
    dropping = layer(0.25).train()
    dropped = dropping.drop_path(torch.ones(4000, 3, 24))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)  # standard deviation 0.009
    branch = torch.ones(4, 3, 24)
    assert dropping.eval().drop_path(branch) is branch


def test_a_rate_of_zero_drops_nothing() -> None:
    branch = torch.ones(4, 3, 24)
    assert layer().train().drop_path(branch) is branch


def test_an_unknown_activation_is_refused() -> None:
    message = re.escape("hidden_act='swish2' is not known; use one of gelu, gelu_new")
    with pytest.raises(ConfigError, match=message):
        VideoMAEIntermediate(24, 48, "swish2")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_act_behind_the_linear_map(name: str) -> None:
    part, x = VideoMAEIntermediate(24, 48, name), torch.randn(2, 5, 24)
    torch.testing.assert_close(part(x), ACTIVATIONS[name](part.dense(x)))


def test_to_save_memory_a_layer_runs_twice_in_training_alone() -> None:
    plain, x = layer(), torch.randn(2, 5, 24)
    calls: list[int] = []
    plain.register_forward_pre_hook(lambda *_: calls.append(1))
    for training, expected in ((False, 1), (True, 2)):
        calls.clear()
        run_layer(plain.train(training), x, save_memory=True)[0].sum().backward()
        assert len(calls) == expected


@pytest.mark.parametrize(("batch_size", "num_tokens"), [(1, 7), (2, 5), (3, 4), (1, 2)])
def test_without_gradients_the_mlp_takes_the_tokens_in_pieces(
    batch_size: int, num_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Laid out feature by feature, as those of a convolution would be.
    whole, x = layer().eval(), torch.randn(batch_size, 24, num_tokens).mT
    seen: list[int] = []
    whole.intermediate.register_forward_hook(
        lambda *call: seen.append(call[1][0].shape[:-1].numel())
    )
    expected, before = whole(x)[0], x.clone()
    assert seen == [batch_size * num_tokens]
    monkeypatch.setattr(layers, "_MLP_TOKENS", 4)
    seen.clear()
    with torch.no_grad():
        torch.testing.assert_close(whole(x)[0], expected)
    assert len(seen) == math.ceil(batch_size * num_tokens / 4)
    assert max(seen) <= 4
    assert sum(seen) == batch_size * num_tokens
    assert torch.equal(x, before)


def test_pieces_are_for_inference_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_MLP_TOKENS", 4)
    part, x = layer(0.5), torch.randn(2, 5, 24)
    calls: list[int] = []
    part.intermediate.register_forward_hook(lambda *_: calls.append(1))
    part.train()
    with torch.no_grad():
        part(x)  # a branch is dropped per clip
    part.eval()(x)
    assert len(calls) == 2
    with torch.no_grad():
        exported = torch.export.export(part, (x,))
    assert str(exported.graph).count("torch.ops.aten.gelu") == 1


def test_a_bias_of_the_keys_would_change_nothing() -> None:
    """Why there is none, and why dropping that of another model is exact."""
    part = VideoMAESelfAttention(VideoMAEConfig(attn_implementation="eager"), 24, 3).eval()
    x = torch.randn(2, 5, 24)
    before, weights = part(x, need_weights=True)
    part.key.bias = torch.nn.Parameter(3 * torch.randn(24))
    after, weights_after = part(x, need_weights=True)
    assert not torch.allclose(F.linear(x, part.key.weight), part.key(x))
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(weights_after, weights)
