"""One transformer layer: attention, two linear maps, a norm in front of each, and its parts.

Letters: B clips, N tokens, D features, d those of one head. Parameters carry the names that
transformers gives them, so that state dicts move over unchanged.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.model.attention import attend

# Tokens that go through an MLP together where no gradient is wanted. Its inner vectors, 4 times as
# wide as a token, then never exist for all tokens at once, which saves memory and time.
_MLP_TOKENS = 1024

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class VideoMAESelfAttention(nn.Module):
    def __init__(self, config: VideoMAEConfig, dim: int, num_heads: int) -> None:
        super().__init__()
        self.config, self.num_heads = config, num_heads
        self.query = nn.Linear(dim, dim, bias=config.qv_bias)
        self.key = nn.Linear(dim, dim, bias=False)  # a key bias would cancel in the softmax
        self.value = nn.Linear(dim, dim, bias=config.qv_bias)

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        heads = (*x.shape[:2], self.num_heads, -1)
        return attend(
            self.query(x).view(heads).transpose(1, 2),  # (B, heads, N, d)
            self.key(x).view(heads).transpose(1, 2),
            self.value(x).view(heads).transpose(1, 2),
            implementation=self.config.attn_implementation,
            dropout=self.config.attention_probs_dropout_prob if self.training else 0.0,
            need_weights=need_weights,
        )


class Projection(nn.Sequential):
    """A linear map with dropout behind it; called `output` in the checkpoints."""

    def __init__(self, dim_in: int, dim_out: int, dropout: float) -> None:
        parts = {"dense": nn.Linear(dim_in, dim_out), "dropout": nn.Dropout(dropout)}
        super().__init__(OrderedDict(parts))


class VideoMAEAttention(nn.Module):
    def __init__(self, config: VideoMAEConfig, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = VideoMAESelfAttention(config, dim, num_heads)
        self.output = Projection(dim, dim, config.hidden_dropout_prob)

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        context, weights = self.attention(x, need_weights)
        return self.output(context), weights


class VideoMAEIntermediate(nn.Module):
    def __init__(self, dim: int, dim_hidden: int, activation: str) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"hidden_act={activation!r} is not known; use one of {', '.join(ACTIVATIONS)}"
            )
        self.dense = nn.Linear(dim, dim_hidden)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.dense(x))


class VideoMAELayer(nn.Module):
    """One pre-norm transformer layer. In training its two branches are dropped per clip."""

    def __init__(
        self,
        config: VideoMAEConfig,
        dim: int,
        num_heads: int,
        dim_hidden: int,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = VideoMAEAttention(config, dim, num_heads)
        self.intermediate = VideoMAEIntermediate(dim, dim_hidden, config.hidden_act)
        self.output = Projection(dim_hidden, dim, config.hidden_dropout_prob)
        self.layernorm_before = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        branch, weights = self.attention(self.layernorm_before(x), need_weights)
        x = x + self.drop_path(branch)
        whole = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        # A GPU is kept busy by whole products, and compilers fuse and plan memory by themselves.
        if whole or x.device.type != "cpu":
            return x + self.drop_path(self.mlp(x)), weights
        tokens = x.flatten(0, 1)  # (B*N, D), which see nothing of each other in here
        for piece in tokens.chunk(math.ceil(len(tokens) / _MLP_TOKENS)):
            piece += self.mlp(piece)  # into this sum, which nobody else holds
        return tokens.view(x.shape), weights

    def mlp(self, x: Tensor) -> Tensor:
        """The second branch: norm, a wide linear map, the activation, a linear map back."""
        hidden = self.intermediate(self.layernorm_after(x))
        branch: Tensor = self.output(hidden)
        return branch

    def drop_path(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path_rate == 0:
            return branch
        keep = 1 - self.drop_path_rate
        kept = torch.empty(len(branch), 1, 1, dtype=branch.dtype, device=branch.device)
        return branch * kept.bernoulli_(keep).div_(keep)


def run_layer(
    layer: nn.Module, x: Tensor, need_weights: bool = False, *, save_memory: bool
) -> tuple[Tensor, Tensor | None]:
    """Call a layer; to save memory, forget what happens inside and compute it again backwards."""
    twice = save_memory and layer.training and torch.is_grad_enabled()
    run = partial(checkpoint, layer, use_reentrant=False) if twice else layer
    result: tuple[Tensor, Tensor | None] = run(x, need_weights)
    return result
