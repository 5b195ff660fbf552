import importlib.machinery
import importlib.util
import re
import sys
import types

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.errors import ConfigError
from videomae.model import attention
from videomae.model.attention import attend, best_implementation, check_implementation


def heads(dtype: torch.dtype = torch.float64, tokens: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = torch.randn(3, 2, 3, tokens, 8, dtype=dtype)  # (B, H, N, d) each
    return query, key, value


def naive(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The formula written out, one head and one clip at a time."""
    context, weights = [], []
    for q, k, v in zip(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), strict=True):
        scores = (q @ k.T / 8**0.5).exp()
        weights.append(scores / scores.sum(1, keepdim=True))
        context.append(weights[-1] @ v)  # (N, d)
    by_head = torch.stack(context).view(2, 3, -1, 8)
    return by_head.transpose(1, 2).flatten(2), torch.stack(weights).view(2, 3, *weights[0].shape)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "per_head", "auto"])
def test_all_ways_are_the_formula(implementation: str) -> None:
    query, key, value = heads()
    context, weights = attend(query, key, value, implementation=implementation)
    assert context.shape == (2, 10, 24)
    assert weights is None
    torch.testing.assert_close(context, naive(query, key, value)[0])


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "auto", "flash_attention_2"])
def test_weights_come_when_asked_for_whatever_is_chosen(implementation: str) -> None:
    query, key, value = heads()
    context, weights = attend(query, key, value, implementation=implementation, need_weights=True)
    expected_context, expected_weights = naive(query, key, value)
    assert weights is not None
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(context, expected_context)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 10, dtype=torch.float64))


def test_one_token_attends_to_itself() -> None:
    query, key, value = heads(tokens=1)
    context, _ = attend(query, key, value)
    torch.testing.assert_close(context, value.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "per_head"])
def test_dropout_only_when_asked_and_unbiased(implementation: str) -> None:
    query, key, value = heads(torch.float32, tokens=40)
    value = value.abs() + 1
    plain, _ = attend(query, key, value, implementation=implementation)
    again, _ = attend(query, key, value, implementation=implementation, dropout=0.0)
    assert torch.equal(plain, again)
    chosen = {"implementation": implementation, "dropout": 0.3}
    draws = torch.stack([attend(query, key, value, **chosen)[0] for _ in range(60)])
    assert not torch.allclose(draws[0], draws[1])
    torch.testing.assert_close(draws.mean((0, 1)), plain.mean(0), rtol=0.15, atol=0)


def test_gradients_agree() -> None:
    gradients = []
    for implementation in ("eager", "per_head", "sdpa"):
        torch.manual_seed(0)
        inputs = [x.requires_grad_() for x in heads()]
        attend(*inputs, implementation=implementation)[0].square().sum().backward()
        gradients.append(torch.stack([x.grad for x in inputs if x.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[2])
    torch.testing.assert_close(gradients[1], gradients[2])


@pytest.mark.parametrize(
    ("device_type", "dtype", "num_tokens", "best"),
    [  # on a processor that multiplies bfloat16
        ("cpu", torch.float32, 160, "sdpa"),
        ("cpu", torch.float32, 1568, "sdpa"),
        ("cpu", torch.bfloat16, 160, "eager"),
        ("cpu", torch.bfloat16, 511, "eager"),
        ("cpu", torch.bfloat16, 512, "per_head"),
        ("cpu", torch.bfloat16, 1568, "per_head"),
        ("cpu", torch.float16, 160, "sdpa"),
        ("cuda", torch.bfloat16, 160, "sdpa"),
        ("mps", torch.float16, 1568, "sdpa"),
    ],
)
def test_the_choice_of_auto(
    device_type: str,
    dtype: torch.dtype,
    num_tokens: int,
    best: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "cpu_multiplies_bfloat16", lambda: True)
    assert best_implementation(device_type, dtype, num_tokens) == best


def test_per_head_keeps_no_weights_of_many_tokens_for_the_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[torch.Size] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.shape)
        return x

    inputs = [x.requires_grad_() for x in heads(tokens=40)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        attend(*inputs, implementation="eager")
    assert any(shape[-2:] == (40, 40) for shape in kept)
    kept.clear()
    monkeypatch.setattr(attention, "_MADE_AGAIN_MIN_TOKENS", 40)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        attend(*inputs, implementation="per_head")
        assert not any(shape[-2:] == (40, 40) for shape in kept)
        monkeypatch.setattr(attention, "_MADE_AGAIN_MIN_TOKENS", 41)
        attend(*inputs, implementation="per_head")
        assert any(shape[-2:] == (40, 40) for shape in kept)


@pytest.mark.parametrize("least", [40, 41])  # made again, and kept
def test_dropout_of_per_head_is_the_same_in_the_backward_pass(
    least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_MADE_AGAIN_MIN_TOKENS", least)
    query, key, value = (x.requires_grad_() for x in heads(tokens=40))
    torch.manual_seed(0)
    context, _ = attend(query, key, value, implementation="per_head", dropout=0.5)
    torch.manual_seed(1)  # what is drawn in between changes nothing
    (gradient,) = torch.autograd.grad(context.sum(), value)
    # The context is linear in the values, so that value * gradient sums up to it.
    torch.testing.assert_close((value * gradient).sum(), context.sum())


def test_emulated_bfloat16_is_left_to_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "cpu_multiplies_bfloat16", lambda: False)
    for num_tokens in (160, 1568):
        assert best_implementation("cpu", torch.bfloat16, num_tokens) == "sdpa"


def test_auto_takes_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "cpu_multiplies_bfloat16", lambda: True)
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *x, **kw: calls.append(1) or fused(*x, **kw)
    )
    attend(*heads(torch.bfloat16))
    assert not calls
    attend(*heads(torch.float32))
    assert calls


def test_unknown_implementations_are_refused() -> None:
    message = "attn_implementation='flash' is not one of auto, eager, sdpa, flash_attention_2"
    with pytest.raises(ConfigError, match=message):
        check_implementation("flash")
    for implementation in ("auto", "eager", "sdpa"):
        check_implementation(implementation)


def test_flash_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "attn_implementation='flash_attention_2' needs an NVIDIA GPU and none is available; "
    with pytest.raises(ConfigError, match=message + "use 'sdpa'"):
        check_implementation("flash_attention_2")


def test_flash_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    message = (
        "attn_implementation='flash_attention_2' needs the package flash-attn; "
        "pip install flash-attn --no-build-isolation, or use 'sdpa'"
    )
    with pytest.raises(ConfigError, match=message):
        check_implementation("flash_attention_2")


@pytest.fixture
def flash_is_here(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A GPU and the package, both pretended; the package's function computes by the formula."""
    calls: list[dict[str, object]] = []

    def flash_attn_func(query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float) -> Tensor:
        calls.append({"shape": tuple(query.shape), "dropout_p": dropout_p})
        by_head = (x.transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(*by_head).transpose(1, 2)

    module = types.ModuleType("flash_attn")
    module.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    module.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return calls


def test_flash_on_the_wrong_device_says_how_to_move(
    flash_is_here: list[dict[str, object]],
) -> None:
    message = (
        "flash_attention_2 runs on a CUDA device in float16 or bfloat16, got cpu and "
        "torch.float32; move the model with .to('cuda', torch.bfloat16), or use 'sdpa'"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        attend(*heads(torch.float32), implementation="flash_attention_2")
    assert not flash_is_here


@pytest.mark.gpu
def test_flash_on_a_gpu_is_the_formula() -> None:
    query, key, value = (x.cuda() for x in heads(torch.bfloat16, tokens=64))
    context, _ = attend(query, key, value, implementation="flash_attention_2")
    eager, _ = attend(query, key, value, implementation="eager")
    torch.testing.assert_close(context, eager, atol=2e-2, rtol=2e-2)
