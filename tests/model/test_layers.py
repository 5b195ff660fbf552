import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.model import layers
from videomae.model.layers import (
    ACTIVATIONS,
    DropPath,
    VideoMAEIntermediate,
    VideoMAELayer,
    VideoMAESelfAttention,
)


def layer(drop_path_rate: float = 0.0) -> Any:
    """24 features in 3 heads."""
    return VideoMAELayer(VideoMAEConfig(), 24, 3, 48, drop_path_rate)


def test_drop_path_drops_whole_clips_and_keeps_the_mean() -> None:
    dropping = DropPath(0.25).train()
    dropped = dropping(torch.ones(4000, 3, 24))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)  # standard deviation 0.009
    branch = torch.ones(4, 3, 24)
    assert dropping.eval()(branch) is branch


def test_a_rate_of_zero_drops_nothing() -> None:
    branch = torch.ones(4, 3, 24)
    assert DropPath(0).train()(branch) is branch


def test_both_branches_of_a_layer_are_dropped() -> None:
    dropping, x = layer(0.999).train(), torch.randn(50, 5, 24)
    assert torch.equal(dropping(x), x)


def test_an_unknown_activation_is_refused() -> None:
    message = re.escape("hidden_act='swish2' is not known; use one of gelu, gelu_new")
    with pytest.raises(ConfigError, match=message):
        VideoMAEIntermediate(24, 48, "swish2")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_act_behind_the_linear_map(name: str) -> None:
    part, x = VideoMAEIntermediate(24, 48, name), torch.randn(2, 5, 24)
    torch.testing.assert_close(part(x), ACTIVATIONS[name]()(part.dense(x)))


def test_to_save_memory_a_layer_computes_twice_in_training_alone() -> None:
    plain, x = layer(), torch.randn(2, 5, 24)
    plain.gradient_checkpointing = True
    calls: list[str] = []
    plain.register_forward_pre_hook(lambda *_: calls.append("layer"))
    plain.intermediate.register_forward_pre_hook(lambda *_: calls.append("inside"))
    for training, inside in ((False, 1), (True, 2)):
        calls.clear()
        plain.train(training)(x).sum().backward()
        assert calls == ["layer"] + ["inside"] * inside
    calls.clear()
    with torch.no_grad():
        plain(x)
    assert calls == ["layer", "inside"]


@pytest.mark.parametrize(("batch_size", "num_tokens"), [(1, 7), (2, 5), (3, 4), (1, 2)])
def test_without_gradients_the_mlp_takes_the_tokens_in_pieces(
    batch_size: int, num_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Laid out feature by feature, as those of a convolution would be.
    whole, x = layer().eval(), torch.randn(batch_size, 24, num_tokens).mT
    expected, before = whole(x), x.clone()
    monkeypatch.setattr(layers, "_MLP_TOKENS", 4)
    seen = sizes_in_the_mlp(monkeypatch)
    with torch.no_grad():
        torch.testing.assert_close(whole(x), expected)
    assert len(seen) == math.ceil(batch_size * num_tokens / 4)
    assert max(seen) <= 4
    assert sum(seen) == batch_size * num_tokens
    assert torch.equal(x, before)


def sizes_in_the_mlp(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens go through the activation at once, noted without touching a module."""
    seen: list[int] = []
    gelu = F.gelu

    def noting(x: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(x.shape[:-1].numel())
        return gelu(x, **options)

    monkeypatch.setattr(F, "gelu", noting)
    return seen


def test_pieces_are_for_inference_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    part, x = layer(0.5), torch.randn(2, 5, 24)
    monkeypatch.setattr(layers, "_MLP_TOKENS", 4)
    with torch.no_grad():
        exported = torch.export.export(part.eval(), (x,))
        traced = torch.jit.trace(part, x)
    assert str(exported.graph).count("torch.ops.aten.gelu") == 1
    assert str(traced.inlined_graph).count("aten::gelu") == 1
    seen = sizes_in_the_mlp(monkeypatch)
    part.train()
    with torch.no_grad():
        part(x)  # a branch is dropped per clip
    part.eval()(x)
    assert seen == [10, 10]


@pytest.mark.parametrize(
    "touch",
    [
        lambda part, note: part.layernorm_after.register_forward_hook(note),
        lambda part, note: part.intermediate.register_forward_hook(note),
        lambda part, note: part.intermediate.dense.register_forward_pre_hook(note),
        lambda part, note: part.intermediate.intermediate_act_fn.register_forward_hook(note),
        lambda part, note: part.output.register_forward_hook(note),
        lambda part, note: part.output.dense.register_forward_hook(note),
        lambda part, note: part.output.dropout.register_forward_hook(note),
        lambda part, note: setattr(
            part.output.dense, "forward", Noting(note, nn.Linear(48, 24)).forward
        ),
        lambda part, note: setattr(part.intermediate, "dense", Noting(note, nn.Linear(24, 48))),
        lambda part, note: setattr(part.output, "dropout", Noting(note)),
    ],
)
def test_what_is_touched_is_called_once_with_all_tokens(
    touch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_MLP_TOKENS", 4)
    part, x = layer().eval(), torch.randn(2, 5, 24)
    shapes: list[tuple[int, ...]] = []
    touch(part, lambda *call: shapes.append(tuple(call[1][0].shape[:2])))
    with torch.no_grad():
        part(x)
    assert shapes == [(2, 5)]


class Noting(nn.Module):
    """Put in the place of a module, or its forward in that of a module's."""

    def __init__(self, note: Callable[..., Any], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.note, self.inner = note, inner or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.note(self, (x,))
        inner: torch.Tensor = self.inner(x)
        return inner


def test_hooks_on_all_modules_see_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_MLP_TOKENS", 4)
    part, x = layer().eval(), torch.randn(2, 5, 24)
    shapes = []
    hook = nn.modules.module.register_module_forward_hook(
        lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape[:2]))
    )
    with torch.no_grad():
        part(x)
    hook.remove()
    assert set(shapes) == {(2, 5)}
    assert len(shapes) == len(list(part.modules()))


def test_dropout_that_stays_on_in_evaluation_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_MLP_TOKENS", 4)
    part, x = layer().eval(), torch.randn(2, 5, 24)
    part.output.dropout.p = 0.5
    part.output.dropout.train()  # as one does to see how sure a model is
    with torch.no_grad():
        assert not torch.equal(part(x), part(x))


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
