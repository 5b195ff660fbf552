"""Capabilities of the processor, and linear maps that suit it.

Letters: B clips, N tokens, D features.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

AnyModule = TypeVar("AnyModule", bound=nn.Module)

# What torch knows of this processor: `avx512_bf16`, `cpu_name`, ...; empty in an old torch. Asked
# once and here, because a compiler cannot trace the question; telling it so with
# `assume_constant_result` imports torch._dynamo, which takes a second.
CPU_CAPABILITIES: dict[str, Any] = dict(getattr(torch.cpu, "get_capabilities", dict)())


def cpu_multiplies_bfloat16() -> bool:
    """Whether there are instructions for bfloat16 products (AMX, AVX-512 BF16, Arm)."""
    names = ("amx_bf16", "avx512_bf16", "bf16")
    return any(CPU_CAPABILITIES.get(name, False) for name in names)


def onednn_outruns_mkl() -> bool:
    """Whether oneDNN computes a float32 linear map faster than MKL, which torch takes by itself.

    On AMD processors with AVX-512, where MKL keeps to AVX2: 362 and 150 to 184 GFLOP/s for
    1568 x 768 x 3072 on Zen 5. With AVX2 alone MKL is the faster, 86 and 72 on Zen 3. Where the two
    were not measured the answer is no.
    """
    there = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    wide = bool(CPU_CAPABILITIES.get("avx512_f"))
    return there and wide and "AMD" in str(CPU_CAPABILITIES.get("cpu_name"))


class _Product(torch.autograd.Function):
    """A linear map of (..., D) and both of its gradients by oneDNN, which takes what is turned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        rows, inputs = (each.reshape(-1, each.shape[-1]) for each in (grad, x))
        return (
            _multiply(grad, weight.t()) if to_x else None,
            _multiply(rows.t(), inputs.t()) if to_weight else None,
            rows.sum(0) if to_bias else None,
        )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # with gaps between its rows it takes a thousand times as long
    mapped: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return mapped


class OneDnnLinear(nn.Linear):
    """A linear map that oneDNN computes where it can: float32, on a CPU, not compiled.

    The parameters are those of `nn.Linear`, neither packed nor copied: on Zen 3, oneDNN took no
    longer with weights as they are than with packed ones. Elsewhere it is `nn.Linear` itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        plain = x.dtype == self.weight.dtype == torch.float32 and x.device.type == "cpu"
        if not plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return F.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            product: Tensor = _Product.apply(x, self.weight, self.bias)
            return product
        return _multiply(x, self.weight, self.bias)


def take_fastest_products(model: nn.Module) -> None:
    """Give a model, in place, the linear maps that are fastest here; no tensor changes.

    Only the rounding differs from torch's own (in the order of 1e-6 of a ViT-B's logits).
    """
    if onednn_outruns_mkl():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDnnLinear


def prepare_for_inference(model: AnyModule) -> AnyModule:
    """The model with the linear maps that are fastest here, by `take_fastest_products`.

    Where torch's own are, that is the model itself. Elsewhere a copy comes back, which holds the
    very same parameters: names and state dict stay, a change of the weights shows in both.
    """
    if not onednn_outruns_mkl():
        return model
    tensors = [*model.parameters(), *model.buffers()]
    prepared = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    take_fastest_products(prepared)
    return prepared
