"""Softmax attention in the ways that serve VideoMAE, and which of them suits a call.

Letters: B clips, H heads, N tokens, d features of a head. There is no causal or padding mask:
every token of a clip sees every other.
"""

import importlib.util
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from videomae.compute.cpu import cpu_multiplies_bfloat16
from videomae.config import ATTENTION_IMPLEMENTATIONS, check_choice
from videomae.errors import ConfigError

# On a CPU that multiplies bfloat16, `eager` is the fastest on the 160 visible tokens of
# pre-training, and one head at a time on 1568 tokens (docs/log.md). Between the two, nothing was
# measured: the line is drawn in the middle of the two logarithms.
_SDPA_CPU_BF16_MIN_TOKENS = 512
# Head by head, weights of fewer tokens are kept for gradients: of 8 clips, 4 heads and 512 tokens,
# forward and backward take 27 ms in place of 48 (fused 53, eager 60; two cores of Zen 5, one used).
# Of more they would fill the memory: those of 1568 tokens and 12 heads take 59 MB a layer and clip.
_MADE_AGAIN_MIN_TOKENS = 1024


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    implementation: str = "auto",
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Softmax(query key^T / sqrt(d)) value, heads side by side.

    query (B, H, M, d), key and value (B, H, N, d) -> context (B, M, H*d), and the weights
    (B, H, M, N) where they are asked for. Only `eager` makes the weights, so `need_weights` uses it
    whatever is chosen.
    """
    if implementation == "auto":
        implementation = best_implementation(query.device.type, query.dtype, key.shape[2])
    if need_weights or implementation == "eager":
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
        weights = F.dropout(weights, dropout) if dropout else weights
        context = weights @ value  # (B, H, M, d)
        return context.transpose(1, 2).flatten(2), weights if need_weights else None
    if implementation == "flash_attention_2":
        return _flash(query, key, value, dropout), None
    if implementation == "per_head":
        return _per_head(query, key, value, dropout), None
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2), None


def best_implementation(device_type: str, dtype: torch.dtype, num_tokens: int) -> str:
    """The fastest of `eager`, `per_head` and `sdpa` where it was measured; `sdpa` elsewhere.

    `per_head` is chosen by this alone: it is nothing but `eager` in another order.
    """
    if device_type != "cpu" or dtype != torch.bfloat16 or not cpu_multiplies_bfloat16():
        return "sdpa"
    if num_tokens < _SDPA_CPU_BF16_MIN_TOKENS:
        return "eager"
    return "per_head"


def check_implementation(implementation: str) -> None:
    """Raise ConfigError, saying what is missing, where an implementation cannot run here."""
    check_choice("attn_implementation", implementation, ATTENTION_IMPLEMENTATIONS)
    if implementation != "flash_attention_2":
        return
    if not torch.cuda.is_available():
        raise ConfigError(
            "attn_implementation='flash_attention_2' needs an NVIDIA GPU and none is available; "
            "use 'sdpa'"
        )
    if importlib.util.find_spec("flash_attn") is None:
        raise ConfigError(
            "attn_implementation='flash_attention_2' needs the package flash-attn; "
            "pip install flash-attn --no-build-isolation, or use 'sdpa'"
        )


def _per_head(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """As `eager`, one head after another; for gradients, many weights (N, N) are made again."""

    def attend_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (N, d) each -> (N, d)
        weights = ((q * q.shape[-1] ** -0.5) @ k.T).softmax(-1)
        return F.dropout(weights, dropout) @ v if dropout else weights @ v

    attend_one = attend_head
    many = key.shape[2] >= _MADE_AGAIN_MIN_TOKENS
    if many and torch.is_grad_enabled() and query.requires_grad:
        options = {"use_reentrant": False, "preserve_rng_state": dropout > 0}
        attend_one = partial(checkpoint, attend_head, **options)
    clips = [
        torch.cat([attend_one(*head) for head in zip(*heads, strict=True)], dim=-1)  # (N, H*d)
        for heads in zip(query, key, value, strict=True)
    ]
    return torch.stack(clips)


def _flash(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    check_implementation("flash_attention_2")
    if query.device.type != "cuda" or query.dtype not in (torch.float16, torch.bfloat16):
        raise ConfigError(
            "flash_attention_2 runs on a CUDA device in float16 or bfloat16, got "
            f"{query.device.type} and {query.dtype}; move the model with "
            ".to('cuda', torch.bfloat16), or use 'sdpa'"
        )
    from flash_attn import flash_attn_func  # type: ignore[import-not-found]

    heads_last = (x.transpose(1, 2) for x in (query, key, value))  # (B, N, H, d)
    context: Tensor = flash_attn_func(*heads_last, dropout_p=dropout)
    return context.flatten(2)
