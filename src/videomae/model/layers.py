"""The parts of the network: tubelets to tokens, and one transformer layer.

Letters: B clips, T frames, C channels, H x W pixels; t, p, q one tubelet; N tokens, D features, d
those of one head. Parameters carry the names that transformers gives them, so that state dicts move
over unchanged.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from videomae.compute.cpu import OneDnnLinear
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.model.attention import attend
from videomae.tubelets import grid_of, pick_tubelets

# Tokens that go through an MLP together where no gradient is wanted. Its inner vectors, 4 times as
# wide as a token, then never exist for all tokens at once, which saves memory and time.
_MLP_TOKENS = 1024

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class VideoMAEPatchEmbeddings(nn.Module):
    """One linear map from a tubelet's pixels to D features; the weight is that of a Conv3d."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        kernel = (config.tubelet_size, *config.patch_hw)
        self.num_patches = config.grid.num_tokens
        self.image_size, self.patch_size = config.image_hw, config.patch_hw
        self.tubelet_size, self.num_channels = config.tubelet_size, config.num_channels
        self.projection = nn.Conv3d(config.num_channels, config.hidden_size, kernel, stride=kernel)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Clips (B, T, C, H, W) of any size that tubelets divide -> tokens (B, N, D)."""
        if not untouched(self.projection):
            tokens: Tensor = self.projection(pixel_values.transpose(1, 2))  # (B, D, f, h, w)
            return tokens.flatten(2).mT
        t, p, q = self.projection.kernel_size
        return self.embed(pick_tubelets(pixel_values, grid_of(pixel_values, t, (p, q))))

    def embed(self, tubelets: Tensor) -> Tensor:
        """Tubelets (B, M, C, t, p, q) -> tokens (B, M, D).

        Kernel = stride, so that the convolution is a product per tubelet: hidden ones need never be
        touched, and even where all are seen it is the faster way (docs/log.md).
        """
        weight = self.projection.weight.flatten(1)  # (D, C*t*p*q)
        return F.linear(tubelets.flatten(2), weight, self.projection.bias)


class VideoMAESelfAttention(nn.Module):
    def __init__(self, config: VideoMAEConfig, dim: int, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.num_attention_heads, self.attention_head_size = num_heads, dim // num_heads
        self.all_head_size = dim
        self.query = nn.Linear(dim, dim, bias=config.qv_bias)
        self.key = nn.Linear(dim, dim, bias=False)  # a key bias would cancel in the softmax
        self.value = nn.Linear(dim, dim, bias=config.qv_bias)

    def forward(
        self, x: Tensor, need_weights: bool = False, num_asking: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, D) -> what each of the last `num_asking` (by default all) finds in all."""
        asking = x if num_asking is None else x[:, -num_asking:]
        heads = (self.num_attention_heads, self.attention_head_size)
        return attend(
            self.query(asking).unflatten(-1, heads).transpose(1, 2),  # (B, heads, M, d)
            self.key(x).unflatten(-1, heads).transpose(1, 2),  # (B, heads, N, d)
            self.value(x).unflatten(-1, heads).transpose(1, 2),
            implementation=self.config.attn_implementation,
            dropout=self.config.attention_probs_dropout_prob if self.training else 0.0,
            need_weights=need_weights,
        )


class VideoMAESelfOutput(nn.Sequential):
    """The linear map behind attention, with dropout."""

    def __init__(self, dim: int, dropout: float) -> None:
        parts = {"dense": nn.Linear(dim, dim), "dropout": nn.Dropout(dropout)}
        super().__init__(OrderedDict(parts))


class VideoMAEAttention(nn.Module):
    def __init__(self, config: VideoMAEConfig, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = VideoMAESelfAttention(config, dim, num_heads)
        self.output = VideoMAESelfOutput(dim, config.hidden_dropout_prob)

    def forward(
        self, x: Tensor, attentions: list[Tensor] | None = None, num_asking: int | None = None
    ) -> Tensor:
        context, weights = self.attention(x, attentions is not None, num_asking)
        if attentions is not None:
            attentions.append(weights)
        branch: Tensor = self.output(context)
        return branch


class VideoMAEIntermediate(nn.Module):
    def __init__(self, dim: int, dim_hidden: int, activation: str) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"hidden_act={activation!r} is not known; use one of {', '.join(ACTIVATIONS)}"
            )
        self.dense = nn.Linear(dim, dim_hidden)
        self.intermediate_act_fn = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.intermediate_act_fn(self.dense(x))
        return hidden


class DropPath(nn.Module):
    """In training, a branch without some of its clips, and the others scaled up for them."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        kept = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep)
        return branch * kept.div_(keep)


class VideoMAEOutput(nn.Module):
    """The linear map back to D features, and the sum of this branch and what it started from."""

    def __init__(self, dim_hidden: int, dim: int, dropout: float, drop_path_rate: float) -> None:
        super().__init__()
        self.dense = nn.Linear(dim_hidden, dim)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        branch: Tensor = self.drop_path(self.dropout(self.dense(hidden)))
        return x + branch


class VideoMAELayer(nn.Module):
    """One pre-norm transformer layer. In training its two branches are dropped per clip.

    With `gradient_checkpointing`, training forgets what happens inside and computes it again
    backwards; hooks on the layer itself run once.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Any] = staticmethod(
        partial(checkpoint, use_reentrant=False)
    )

    def __init__(
        self,
        config: VideoMAEConfig,
        dim: int,
        num_heads: int,
        dim_hidden: int,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        dropout = config.hidden_dropout_prob
        self.attention = VideoMAEAttention(config, dim, num_heads)
        self.intermediate = VideoMAEIntermediate(dim, dim_hidden, config.hidden_act)
        self.output = VideoMAEOutput(dim_hidden, dim, dropout, drop_path_rate)
        self.layernorm_before = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self,
        hidden_states: Tensor,
        attentions: list[Tensor] | None = None,
        num_last: int | None = None,
    ) -> Tensor:
        """Tokens (B, N, D) -> the same; adds the weights of its attention to a list, if given.

        `num_last` makes the last so many tokens alone, (B, num_last, D), out of all of them.
        """
        asked = hidden_states, attentions, num_last
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            x: Tensor = self._gradient_checkpointing_func(self.compute, *asked)
            return x
        return self.compute(*asked)

    def compute(self, x: Tensor, attentions: list[Tensor] | None, num_last: int | None) -> Tensor:
        """Both branches, each added to what it started from."""
        context = self.attention(self.layernorm_before(x), attentions, num_last)
        x = (x if num_last is None else x[:, -num_last:]) + self.drop_path(context)
        if self.mlp_whole(x):
            whole: Tensor = self.output(self.intermediate(self.layernorm_after(x)), x)
            return whole
        tokens = x.flatten(0, 1)  # (B*N, D), which see nothing of each other in here
        for piece in tokens.chunk(math.ceil(tokens.shape[0] / _MLP_TOKENS)):
            hidden = self.intermediate(self.layernorm_after(piece))
            piece += self.output.dense(hidden)  # into this sum, which nobody else holds
        return tokens.view(x.shape)

    def mlp_whole(self, x: Tensor) -> bool:
        """Whether all tokens go through the MLP together, not in pieces."""
        if self.training or torch.is_grad_enabled() or x.device.type != "cpu":
            return True  # gradients need all of it, and a GPU is kept busy by whole products
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            return True  # compilers fuse and plan memory by themselves
        parts = [*self.intermediate.modules(), *self.output.modules(), self.layernorm_after]
        return any(part.training for part in parts) or not untouched(*parts)


# Modules of which it is known what a call of them does.
_KNOWN: tuple[type[nn.Module], ...] = (
    *(VideoMAEPatchEmbeddings, VideoMAELayer, VideoMAEAttention, VideoMAESelfAttention),
    *(VideoMAESelfOutput, VideoMAEIntermediate, VideoMAEOutput, DropPath, OneDnnLinear),
    *(nn.Conv3d, nn.Linear, nn.LayerNorm, nn.Dropout, nn.GELU, nn.ReLU, nn.SiLU),
)


def untouched(*parts: nn.Module) -> bool:
    """Whether nobody has hooked, wrapped or replaced these: they may then be computed another way.

    Hooks, adapters, quantised and sharded parts, and an assigned `forward` all count as touched.
    """
    every = nn.modules.module
    if every._global_forward_hooks or every._global_forward_pre_hooks:
        return False
    if every._global_backward_hooks or every._global_backward_pre_hooks:
        return False
    for part in parts:  # written out, so that torch.compile follows it before 2.9
        if type(part) not in _KNOWN or "forward" in part.__dict__:
            return False
        if part._forward_hooks or part._forward_pre_hooks:
            return False
        if part._backward_hooks or part._backward_pre_hooks:
            return False
    return True
