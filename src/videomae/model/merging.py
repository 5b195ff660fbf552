"""Token merging: in each layer, the most alike tokens become one, so that later layers have fewer.

Written after Bolya et al., "Token Merging: Your ViT But Faster" (ICLR 2023), for all tokens of a
clip. Letters: B clips, N tokens now, R of them merged away, S at the start; D features.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Merged(NamedTuple):
    """Tokens (B, N, D), how many each stands for (B, N, 1), and where each of the first S went."""

    tokens: Tensor
    sizes: Tensor
    places: Tensor  # (B, S), numbers below N


def merge(now: Merged, keys: Tensor, num_merged: int) -> Merged:
    """Merge the `num_merged` tokens that are most like another, by the cosine of keys (B, N, d).

    Every second token (0, 2, ...) may go, into the one of the others that is most like it, so that
    half of them go at most. Means are weighted by sizes.
    """
    num_going = min(num_merged, now.tokens.shape[1] // 2)
    if num_going <= 0:
        return now
    keys = F.normalize(keys.detach().float(), dim=-1)
    alike, partner = (keys[:, ::2] @ keys[:, 1::2].mT).max(-1)  # (B, N/2) each
    order = alike.argsort(stable=True, dim=-1, descending=True)
    going, staying = order[:, :num_going], order[:, num_going:].sort(-1).values
    into = partner.gather(1, going)  # (B, R)

    def joined(values: Tensor) -> Tensor:  # (B, N, .) -> sums (B, N - R, .)
        even, odd = values[:, ::2], values[:, 1::2]
        width = values.shape[-1]
        added = odd.scatter_add(1, _wide(into, width), even.gather(1, _wide(going, width)))
        return torch.cat([even.gather(1, _wide(staying, width)), added], dim=1)

    sizes = joined(now.sizes)
    tokens = joined(now.tokens * now.sizes) / sizes
    num_staying = staying.shape[1]
    even = torch.empty_like(order)
    even.scatter_(1, staying, torch.arange(num_staying, device=even.device).expand_as(staying))
    even.scatter_(1, going, into + num_staying)
    odd = torch.arange(num_staying, tokens.shape[1], device=even.device).expand(len(even), -1)
    moved = torch.empty(keys.shape[:2], dtype=torch.long, device=even.device)  # (B, N)
    moved[:, ::2], moved[:, 1::2] = even, odd
    return Merged(tokens, sizes, moved.gather(1, now.places))


def _wide(index: Tensor, width: int) -> Tensor:
    return index[..., None].expand(-1, -1, width)


def run_layers(layers: Iterable[Any], x: Tensor, num_merged: int) -> Tensor:
    """Tokens (B, S, D) through layers that merge in each, between attention and MLP: (B, S, D).

    A token weighs in attention as many as it stands for, and at the end all that went into one get
    the same features, so that a mean over tokens is that over all places of the clip.
    """
    sizes = x.new_ones(*x.shape[:2], 1)
    now = Merged(x, sizes, torch.arange(x.shape[1], device=x.device).expand(len(x), -1))
    for layer in layers:
        attention = layer.attention.attention
        seen = layer.layernorm_before(now.tokens)
        heads = (attention.num_attention_heads, attention.attention_head_size)
        query, key, value = (
            part(seen).unflatten(-1, heads).transpose(1, 2)  # (B, heads, N, d)
            for part in (attention.query, attention.key, attention.value)
        )
        context = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=now.sizes.log().mT[:, None].to(query.dtype),  # (B, 1, 1, N)
            dropout_p=attention.config.attention_probs_dropout_prob if layer.training else 0.0,
        )
        branch = layer.attention.output(context.transpose(1, 2).flatten(2))
        now = now._replace(tokens=now.tokens + layer.drop_path(branch))
        now = merge(now, key.mean(1), num_merged)
        hidden = layer.intermediate(layer.layernorm_after(now.tokens))
        now = now._replace(tokens=layer.output(hidden, now.tokens))
    return now.tokens.gather(1, _wide(now.places, now.tokens.shape[-1]))
